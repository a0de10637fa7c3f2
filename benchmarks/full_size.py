"""One optimizer step of the default configuration on full-size volumes, through the worker's own command.

Makes three events of 18x500x500 volumes in the radar's own format, then trains for one step with
``training.batch_size=1`` (one window, all 18 levels) on whatever device is there, and says how long the step took and
how much memory the process needed at its peak. On two CPU cores this is a matter of an hour.

    python benchmarks/full_size.py --place FOLDER [--set key=value …]
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main() -> None:
    """Make the volumes, train, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--place", type=Path, required=True, help="a folder with 1 GB free")
    parser.add_argument("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE")
    options = parser.parse_args()
    data = options.place / "volumes"
    if not data.exists():
        from training.samples.radar import make_radar_sample

        data.mkdir(parents=True)
        make_radar_sample(data, events=3, frames=25, levels=18, size=500, spacing_km=1.0)
    sets = ["training.batch_size=1", "training.max_steps=1", "evaluation.max_samples=1", "training.log_every_steps=1"]
    words = ["train", "--task", "convlstm", "--data", str(data), "--config", "default", "--run-name", "full-size"]
    words += ["--datasets", str(options.place / "datasets"), "--output", str(options.place / "out")]
    started = time.perf_counter()
    from training.cli import main as worker

    code = worker([*words, *(word for text in [*sets, *options.sets] for word in ("--set", text))])
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    (run,) = (options.place / "out" / "convlstm").glob("*_full-size")
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    cpu = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    print(f"exit code {code}; the step took {1 / first['items_per_second']:.0f} s; loss {first['loss']:.4f}")
    print(f"all stages {seconds:.0f} s, {cpu:.0f} s of processor time, peak memory {peak:.1f} GiB")


if __name__ == "__main__":
    main()
