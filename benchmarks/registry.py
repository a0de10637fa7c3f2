"""How long the commands of the registry take with ten thousand runs, and how long writing to it takes.

    python benchmarks/registry.py [--runs 10000] [--repeats 5]

Each run is a folder with the records of a radar training (six thresholds, seven leads: 563 scores each of validation
and test, of which the registry keeps the headlines). Commands run as a person starts them, each in its own process: the
median of their wall times, and of their processor times, which say more on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from training.registry.folders import stamp_of  # noqa: E402
from training.registry.index import Registry  # noqa: E402
from training.yaml_core import write_yaml  # noqa: E402

WORKER = ROOT / "training" / "train_worker.py"
WRITERS = 100


def score_names() -> list[str]:
    """The names of `training/scores/radar.py` for seven leads."""
    scores = [f"{score}_{dbz}" for score in ("csi", "pod", "far", "bias", "hss") for dbz in (20, 30, 35, 40, 45, 50)]
    scores += ["mae_dbz", "rmse_dbz", "mae_echo_dbz", "rmse_echo_dbz", "ssim"]
    by_lead = [f"{score}{lead}" for score in scores for lead in ("", *(f"_lead_{n}" for n in range(1, 8)))]
    return ["loss", "loss_huber", "loss_ssim", *by_lead, *(f"persistence_{name}" for name in by_lead)]


def make_run(folder: Path, seed: int) -> None:
    """A finished run's records, with made-up scores."""
    draw = random.Random(seed)
    folder.mkdir(parents=True)
    (folder / "best_model.pth").touch()
    selection = {"metric": "val/loss", "mode": "min"}
    settings = {f"key_{number}": number for number in range(50)}
    write_yaml(folder / "config.yaml", {"task": "convlstm", "selection": selection, "training": settings})
    for split in ("val", "test"):
        metrics = {f"{split}/{name}": draw.random() for name in score_names()}
        path = folder / "evaluations" / split / "metrics.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"checkpoint": "step-00001200", "n": 120, "metrics": metrics}))
    write_yaml(folder / "metadata.yaml", metadata(folder.name))


def metadata(run_id: str) -> dict[str, object]:
    """As long as that of a real run."""
    return {
        "run_id": run_id,
        "run_name": "default",
        "state": "finished",
        "task": "convlstm",
        "config_hash": "c998c24a3fff97a5ccb810f7386b44a7879782832d7b12bf5f6c38b36906a8b8",
        "versions": {"python": "3.11.10", "torch": "2.5.1"},
        "git": {"commit": "9c45126fd0b7b0a4a9c1c0e8c2b8a0f0d3c9a111", "dirty": False},
        "dataset": {"fingerprint": "511f499696372013b53560f93b0c0ae6", "is_sample": False, "summary": ["…"] * 8},
        "audit": {f"finding_{number}": number for number in range(60)},
    }


def fill(output: Path, runs: int) -> Registry:
    """A registry of ``runs`` runs; all but the first few folders hold their metadata alone."""
    registry = Registry(output / "registry.json", output)
    whole = [output / "convlstm" / f"20261125_{number:06d}_default" for number in range(10)]
    for number, folder in enumerate(whole):
        make_run(folder, number)
        registry.register(folder)
    first = next(iter(registry.file.read().entries.values()))
    text = (whole[0] / "metadata.yaml").read_text()
    entries = []
    for number in range(len(whole), runs):
        run_id = f"20261125_{number:06d}_default"
        folder = output / "convlstm" / run_id
        folder.mkdir()
        (folder / "metadata.yaml").write_text(text)
        place = {"folder": f"convlstm/{run_id}", "checkpoint_path": f"convlstm/{run_id}/best_model.pth"}
        metrics = {name: random.Random(number).random() for name in first["metrics"]}
        entries.append({**first, "run_id": run_id, **place, "stamp": stamp_of(str(folder)), "metrics": metrics})
    registry.file.update(entries)
    return registry


def commands(output: Path) -> dict[str, list[str]]:
    """What is timed."""
    place = ["--output", str(output)]
    two = [f"20261125_{number:06d}_default" for number in (1, 2)]
    return {
        "--help": ["--help"],
        "runs --help": ["runs", "--help"],
        "runs list, ten runs": ["runs", "list", "--output", str(output.parent / "few")],
        "runs list": ["runs", "list", *place],
        "runs list --sort val/csi_30": ["runs", "list", "--sort", "val/csi_30", *place],
        "runs best": ["runs", "best", *place],
        "runs best --metric val/csi_30 --mode max": ["runs", "best", "--metric", "val/csi_30", "--mode", "max", *place],
        "runs show": ["runs", "show", two[0], *place],
        "runs compare": ["runs", "compare", *two, *place],
        "runs export": ["runs", "export", *place],
    }


def timed(words: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of this Python with ``words``."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - start, os.times()
    return wall, after.children_user + after.children_system - before.children_user - before.children_system


def seconds(what: Callable[[], object], repeats: int) -> float:
    """Median wall time."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        what()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "many"
        fill(Path(place) / "few", 10)
        registry = fill(output, asked.runs)
        size = registry.path.stat().st_size
        print(f"{asked.runs:,} runs, registry.json of {size / 1e6:.1f} MB\n")
        print("| command | wall, s | processor, s |\n|---|---|---|")
        for name, words in commands(output).items():
            measured = [timed([str(WORKER), *words]) for _ in range(asked.repeats)]
            wall, processor = (statistics.median(column) for column in zip(*measured, strict=True))
            print(f"| `{name}` | {wall:.2f} | {processor:.2f} |")
        folder = output / "convlstm" / "20261125_000003_default"
        print("\n| writing | s |\n|---|---|")
        print(
            f"| one run noted among {asked.runs:,} | {seconds(lambda: registry.register(folder), asked.repeats):.3f} |"
        )
        few = Registry(Path(place) / "few" / "registry.json")
        with ThreadPoolExecutor(WRITERS) as pool:
            own = Path(place) / "few" / "convlstm" / "20261125_000003_default"
            together = seconds(lambda: list(pool.map(lambda _: few.register(own), range(WRITERS))), 1)
        print(f"| {WRITERS} writers at once, all of them | {together:.2f} |")
        print(f"| `runs rebuild`, a run | {seconds(few.rebuild, asked.repeats) / 10:.3f} |")


if __name__ == "__main__":
    main()
