"""All combinations of landmark models in one `sweep`, beside one `ensemble` process for each combination.

    python benchmarks/landmark_sweep.py [--models 12] [--k 4] [--more 20,5] [--processes 3]

The models are made, not trained: networks of the real size with random weights, imported for the built-in sample. They
are asked once before anything is timed, so that both ways read kept predictions; what is left of a process is its
start, its look at the data and one mean. A few such processes are timed and their median is multiplied.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import combinations, islice
from math import comb
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from backend.models import build
from training.config import load_config
from training.ensembles.combine import all_combinations, combination_errors

WORKER = Path(__file__).parents[1] / "training" / "train_worker.py"
SETTINGS = ["data.image_size=64", "model.hidden_dim=256", "model.pretrained=none", "training.device=cpu"]
POINTS = 15


def main() -> None:
    """Make the pool, time both ways, print."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--models", type=int, default=12)
    words.add_argument("--k", type=int, default=4)
    words.add_argument("--more", default="20,5", help="models,k of the larger case, by arrays alone")
    words.add_argument("--processes", type=int, default=3)
    asked = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        time_commands(Path(folder), asked.models, asked.k, asked.processes)
    time_arrays(asked.models, asked.k)
    time_arrays(*map(int, asked.more.split(",")))


def time_commands(place: Path, models: int, k: int, processes: int) -> None:
    """`sweep` once, and `ensemble` for a few of the combinations."""
    runs = [imported(place, seed) for seed in range(models)]
    begun = time.perf_counter()
    worker(place, "sweep", *runs, "--k", str(k))
    first = time.perf_counter() - begun
    worker(place, "ensemble", *runs)  # asks all about test, too
    begun = time.perf_counter()
    worker(place, "sweep", *runs, "--k", str(k))
    again = time.perf_counter() - begun
    each = []
    for chosen in islice(combinations(runs, k), processes):
        begun = time.perf_counter()
        worker(place, "ensemble", *chosen)
        each.append(time.perf_counter() - begun)
    count, one = comb(models, k), statistics.median(each)
    print(f"{count} combinations of {k} out of {models} models, 24 images of val, {torch.get_num_threads()} threads")
    print(f"one sweep, every model asked anew            {first:9.1f} s")
    print(f"one sweep, predictions kept                  {again:9.1f} s")
    print(f"one process for each combination             {one:9.2f} s, median of {processes}: {rounded(each)}")
    print(f"  extrapolated to all {count}                  {count * one:9.0f} s")
    print(f"  beside one sweep                           {count * one / again:9.0f} times as long")


def rounded(seconds: list[float]) -> str:
    """For people."""
    return ", ".join(f"{one:.2f}" for one in seconds)


def imported(place: Path, seed: int) -> str:
    """A run of random weights; its id."""
    config = load_config("landmarks", sets=SETTINGS).config
    torch.manual_seed(seed)
    names = [f"L{number}" for number in range(1, POINTS + 1)]
    facts = {
        "landmark_set": {"names": names, "pairs": [], "spans": [], "mirrors": True, "mm_per_px": None},
        "image_size": 64,
    }
    file = place / "weights.safetensors"
    save_file(build("landmarks", config.model_dump(), facts).state_dict(), file)
    sets = [word for text in SETTINGS for word in ("--set", text)]
    words = ["--task", "landmarks", "--data", "sample", "--split-known", "--run-name", f"made{seed}", *sets]
    said = worker(place, "import", str(file), *words)
    file.unlink()
    return said.strip().rpartition("run id: ")[2]


def worker(place: Path, *words: str) -> str:
    """A command in a process of its own; what it said."""
    places = ["--output", str(place / "out"), "--datasets", str(place / "datasets")]
    command = [sys.executable, str(WORKER), *words, *places]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def time_arrays(models: int, k: int, images: int = 144) -> None:
    """The combinations alone, of made predictions for as many images as val of the published chest data has."""
    generator = np.random.default_rng(0)
    truth = generator.random((images, POINTS, 2)).astype(np.float32) * 224
    said = truth + generator.normal(0, 6, (models, *truth.shape)).astype(np.float32)
    begun = time.perf_counter()
    errors = combination_errors(said, truth, all_combinations(models, (k,)))
    seconds = time.perf_counter() - begun
    print(f"arrays alone: {len(errors)} combinations of {k} out of {models}, {images} images: {seconds:.3f} s")


if __name__ == "__main__":
    main()
