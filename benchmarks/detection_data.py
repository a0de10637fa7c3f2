"""How fast detection's data are prepared and given to training, in processor seconds of one core.

    python benchmarks/detection_data.py [--images 200] [--size 640]

Pictures are street scenes drawn by this worker, of 1280 x 720 pixels. ``decoding`` is the alternative to the prepared
cache: each image read and letterboxed each time it is asked for. Medians of five passes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from backend.preprocessing.detection import DetectionPreprocessing
from training.data.detection.prepare import prepare_detection
from training.samples.detection import make_detection_sample
from training.schemas.detection import DetectionAugmentationSection, DetectionDataSection
from training.tasks.protocol import ItemSource, PrepareContext

PICTURE, PASSES = (1280, 720), 5
SETTINGS = {
    "as they are": None,
    "augmented, no mosaic": DetectionAugmentationSection(mosaic=0.0),
    "augmented, as by default": DetectionAugmentationSection(),
    "augmented, mosaic always": DetectionAugmentationSection(mosaic=1.0),
}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, default=640)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        measure(Path(place), given.images, given.size)


def measure(place: Path, images: int, size: int) -> None:
    """Print images a second of each way."""
    data = place / "data"
    data.mkdir()
    make_detection_sample(data, images=images, size=PICTURE)
    files = sorted((data / "images").rglob("*.jpg"))
    preprocessing, section = DetectionPreprocessing(size), DetectionDataSection(image_size=size)
    print(f"{images} images of {PICTURE[0]} x {PICTURE[1]}, brought to {size} x {size}")
    print(f"  decoding: {len(files) / median(lambda: [preprocessing.read(path) for path in files]):,.0f} images/s")
    start = time.process_time()
    prepare_detection(section, context(data, place / "cache"))
    print(f"  preparing, once: {images / (time.process_time() - start):,.0f} images/s")
    for name, augmentation in SETTINGS.items():
        prepared = prepare_detection(section, context(data, place / "cache"), augmentation)
        items, varied = prepared.splits["train"], augmentation is not None
        print(f"  items, {name}: {len(items) / median(lambda: all_items(items, varied)):,.0f} images/s")  # noqa: B023


def context(data: Path, cache: Path) -> PrepareContext:
    """Preparation in this process."""
    return PrepareContext(data, cache, 1, lambda line: None, lambda *_: None, lambda: None)


def all_items(items: ItemSource, varied: bool) -> None:
    """Each item once."""
    for index in range(len(items)):
        items.item(index, np.random.default_rng([1, index]) if varied else None)


def median(do: Callable[[], object]) -> float:
    """Processor seconds, the first pass not counted."""
    do()
    found = []
    for _ in range(PASSES):
        start = time.process_time()
        do()
        found.append(time.process_time() - start)
    return statistics.median(found)


if __name__ == "__main__":
    main()
