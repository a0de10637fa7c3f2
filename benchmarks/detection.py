"""How fast a detector serves and trains: images a second, on this machine's CPU or GPU.

    python benchmarks/detection.py [--model retinanet_resnet18] [--size 640] [--images 32] [--device cuda]

Pictures are street scenes drawn by this worker, of 1280 x 720 pixels, as JPEG files and as an H.264 film; weights are
random, which changes no shape. Medians of several passes, after one that is not counted:

* ``images``, ``film``: what `predict` does, from files to files: decode, letterbox, model, labels, drawing, encoding;
* ``model``: its forward pass alone, which also selects the boxes;
* ``training``: forward, losses, backward and AdamW, in batches of ``--batch``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from backend import boxes
from backend.artifact import Artifact
from backend.models.detector import build_detector
from backend.preprocessing.detection import DetectionPreprocessing
from backend.preprocessing.images import read_image
from backend.video import Pace, VideoWriter
from training.losses.detection import image_losses, loss_counts
from training.samples.detection import CLASSES, make_detection_sample
from training.schemas.detection import DetectionConfig

PICTURE = (1280, 720)
AT_ONCE = 16


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="retinanet_resnet18")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    given = parser.parse_args()
    if given.device == "cpu":
        torch.cuda.is_available = lambda: False  # so that predict does not take the GPU either
    config = DetectionConfig(
        data={"image_size": given.size}, model={"name": given.model, "pretrained": "none", "norm": "batch"}
    ).model_dump()
    torch.manual_seed(0)
    model = build_detector(config["model"], len(CLASSES), given.size).to(given.device)
    print(
        f"{given.model} at {given.size}, {given.device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as place:
        paths = pictures(Path(place), given.images)
        film = film_of(paths, Path(place) / "film.mp4")
        checkpoint = artifact(config, model)
        out = Path(place) / "out"
        jobs: dict[str, Callable[[], object]] = {
            "images": lambda: boxes.write_detections(checkpoint, [paths[0].parent], out),
            "film": lambda: boxes.write_detections(checkpoint, [film], out),
            "model": forward(model, paths, given),
        }
        for name, job in jobs.items():
            show(name, given.images, job, given.passes)
        show("training", given.batch, training(model, paths, config, given), given.passes)


def pictures(place: Path, count: int) -> list[Path]:
    """Street scenes as JPEG files."""
    make_detection_sample(place / "sample", images=max(6, count * 3 // 2), size=PICTURE)
    return sorted((place / "sample" / "images" / "train").glob("*.jpg"))[:count]


def film_of(paths: list[Path], path: Path) -> Path:
    """The same pictures as a film."""
    tick = Fraction(1, 25)
    writer = VideoWriter(path, Pace(1 / tick, tick, Fraction(1)), *PICTURE)
    for number, image in enumerate(map(read_image, paths)):
        writer.write(image, number, tick)
    writer.close()
    return path


def artifact(config: dict[str, Any], model: nn.Module) -> Artifact:
    """What `predict` opens, without a run."""
    facts = {"classes": list(CLASSES), "category_ids": list(range(len(CLASSES)))}
    size = config["data"]["image_size"]
    state = {
        "task": "detection",
        "run_id": "benchmark",
        "config": config,
        "facts": facts | {"image_size": size},
        "preprocessing": {"detection": DetectionPreprocessing(size).to_dict()},
    }
    return Artifact(Path("step-00000000"), state, {name: value.cpu() for name, value in model.state_dict().items()})


def batch_of(paths: list[Path], given: argparse.Namespace) -> dict[str, torch.Tensor]:
    """The first pictures as the model sees them."""
    read = [DetectionPreprocessing(given.size).read(path) for path in paths]
    images, frames = (torch.from_numpy(np.stack(arrays)).to(given.device) for arrays in zip(*read, strict=True))
    return {"image": images, "frame": frames}


def forward(model: nn.Module, paths: list[Path], given: argparse.Namespace) -> Callable[[], None]:
    """All pictures through the model, in batches as `predict` makes them."""
    batch = batch_of(paths, given)

    def job() -> None:
        model.eval()
        with torch.inference_mode():
            for first in range(0, len(paths), AT_ONCE):
                part = slice(first, first + AT_ONCE)
                model(batch["image"][part], batch["frame"][part]).cpu()

    return job


def training(
    model: nn.Module, paths: list[Path], config: dict[str, Any], given: argparse.Namespace
) -> Callable[[], None]:
    """A step on the same pictures, each with five boxes."""
    rng = np.random.default_rng(0)
    batch: dict[str, Any] = batch_of(paths[: given.batch], given)
    corners = rng.uniform(0, 0.7, (given.batch, 5, 2)) * PICTURE
    drawn = np.concatenate([corners, corners + rng.uniform(0.05, 0.3, corners.shape) * PICTURE], axis=2)
    batch |= {
        "boxes": [torch.from_numpy(each.astype(np.float32)).to(given.device) for each in drawn],
        "labels": [torch.arange(5, device=given.device) % len(CLASSES) for _ in drawn],
        "crowd": [torch.zeros(5, dtype=torch.bool, device=given.device) for _ in drawn],
        "draw": torch.arange(given.batch, device=given.device),
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    counts = loss_counts(batch, config["model"])

    def job() -> None:
        model.train()
        optimizer.zero_grad()
        terms = image_losses(model, batch)
        torch.stack([values.sum() / counts[name] for name, values in terms.items()]).sum().backward()
        optimizer.step()
        if given.device == "cuda":
            torch.cuda.synchronize()

    return job


def show(name: str, count: int, job: Callable[[], object], passes: int) -> None:
    """A line with images a second: the median, and the slowest and fastest pass."""
    job()
    rates = []
    for _ in range(passes):
        began = time.perf_counter()
        job()
        rates.append(count / (time.perf_counter() - began))
    print(f"{name:<9} {statistics.median(rates):7.2f} images/s   ({min(rates):.2f} to {max(rates):.2f})", flush=True)


if __name__ == "__main__":
    main()
