"""What the prepared cache saves a landmark training, beside decoding every image in every epoch.

    python benchmarks/landmark_data.py [--data FOLDER] [--size 224]

Without ``--data`` a sample of 400 drawn images is made. One process, medians of five passes over the training split:

* ``decoded``: read the file, CLAHE, resize, augment: what a loader without a cache does for each image;
* ``cached``: a block of the prepared cache, augmented: what this worker does.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training.data.landmarks.augment import apply_change, draw_change
from training.data.landmarks.images import read_annotated
from training.data.landmarks.prepare import prepare_landmarks, preprocessing_of
from training.samples.landmarks import make_landmark_sample
from training.schemas.landmarks import AugmentationSection, LandmarkDataSection
from training.tasks.protocol import PrepareContext

PASSES = 5


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--size", type=int, default=224)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = given.data or made(Path(folder) / "sample")
        measure(data, given.size, Path(folder) / "cache")


def made(folder: Path) -> Path:
    """A sample of 400 images."""
    folder.mkdir()
    make_landmark_sample(folder, images=400)
    return folder


def measure(data: Path, size: int, cache: Path) -> None:
    """Print how long preparation takes, and both rates."""
    section, augmentation = LandmarkDataSection(image_size=size), AugmentationSection()
    context = PrepareContext(data, cache, 1, lambda line: None, lambda *_: None, lambda: None)
    began = time.perf_counter()
    prepared = prepare_landmarks(section, context, 42, augmentation)
    print(f"{sum(map(len, prepared.splits.values()))} images of {size} x {size} prepared in {since(began):.2f} s")
    began = time.perf_counter()
    items = prepare_landmarks(section, context, 42, augmentation).splits["train"]
    print(f"found again in {1000 * since(began):.0f} ms")

    annotated, preprocessing = read_annotated(data), preprocessing_of(section)
    order = annotated.landmark_set.mirrored_order()
    paths = [source.path for source in annotated.sources][: len(items)]

    def decoded(index: int) -> None:
        image, (width, height) = preprocessing.read(paths[index])
        change = draw_change(augmentation, np.random.default_rng(index))
        apply_change(image, (annotated.points[index] / (width, height)).astype(np.float32), change, order)

    def cached(index: int) -> None:
        items.item(index, np.random.default_rng(index))

    rates = {job.__name__: rate(job, len(items)) for job in (decoded, cached)}
    for name, images in rates.items():
        print(f"{name:<8} {images:7.0f} images/s")
    print(f"cached / decoded: {rates['cached'] / rates['decoded']:.1f}")


def rate(job: Callable[[int], None], count: int) -> float:
    """Images a second; the median of the passes."""
    seconds = []
    for _ in range(PASSES):
        began = time.perf_counter()
        for index in range(count):
            job(index)
        seconds.append(since(began))
    return count / statistics.median(seconds)


def since(began: float) -> float:
    """Seconds."""
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
