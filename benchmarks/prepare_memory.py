"""Peak memory of preparation for few and for many full-size volumes: it does not grow with the dataset.

python benchmarks/prepare_memory.py --volumes 100 400
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# a process of its own for each size: the peak that the system keeps is over all children that a process ever had
_MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def main() -> None:
    """Make volumes, prepare them, print the largest process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, nargs="+", default=[100, 400], help="how many files of 4.5 MB")
    parser.add_argument("--folder", type=Path, help="where to work")
    options = parser.parse_args()
    from benchmarks.radar_data import make_volumes

    print("| volumes | dataset, GB | prepared, GB | peak of the largest process, MiB |\n|---|---|---|---|")
    for count in options.volumes:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            place = Path(name)
            files = make_volumes(place / "data", count)
            words = [sys.executable, str(ROOT / "training" / "train_worker.py"), "prepare", "--task", "convlstm"]
            words += ["--data", str(place / "data"), "--datasets", str(place), "--output", str(place / "out")]
            measure = [sys.executable, "-c", _MEASURE, *words]
            peak = subprocess.run(measure, check=True, capture_output=True, text=True).stdout
            size = sum(Path(file).stat().st_size for file in files) / 1e9
            blocks = sum(path.stat().st_size for path in place.rglob("blocks.bin")) / 1e9
            print(f"| {count} | {size:.2f} | {blocks:.2f} | {int(peak) / 1024:.0f} |")


if __name__ == "__main__":
    main()
