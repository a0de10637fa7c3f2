"""What a landmark dataset will become, from its table and its image files' names, or from its prepared cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from backend.preprocessing.landmark_set import LUNGS
from training.data.landmarks.images import Annotated, read_annotated
from training.data.landmarks.mirror import check_pairs
from training.data.landmarks.prepare import cache_settings, facts_before, prepared_items
from training.data.landmarks.split import split_sizes
from training.data.prepared import Request, unchanged_cache
from training.schemas.landmarks import AugmentationSection, LandmarkDataSection
from training.tasks.protocol import Glance


def glance_at_landmarks(section: LandmarkDataSection, source: Path | None, cache_dir: Path, split_seed: int) -> Glance:
    """Exact where the dataset is prepared; else counted in the table. No image is opened.

    Raises BadDataError: what is wrong with the table, the images' names or the mirror pairs.
    """
    if source is None:
        return _without_files(section)
    annotated = read_annotated(source)
    check_pairs(annotated.landmark_set, annotated.points)
    request = Request(cache_settings(section), annotated.sources)
    cache = unchanged_cache(cache_dir, request)
    if cache is None:
        return _estimate(section, annotated, cache_dir / f".building-{request.key}")
    prepared = prepared_items(section, annotated, cache, split_seed, AugmentationSection())
    items = {name: len(one) for name, one in prepared.splits.items()}
    return Glance(prepared.facts, f"{_counted(annotated)}, prepared; {_told(items)}", items, exact=True)


def _without_files(section: LandmarkDataSection) -> Glance:
    facts = {
        "landmark_set": LUNGS.to_json(),
        "image_size": section.image_size,
        "classes": [],
        "mean_shape": [[0.5, 0.5]] * len(LUNGS),
    }
    return Glance(facts, f"no files yet; {len(LUNGS)} points of the lungs assumed")


def _estimate(section: LandmarkDataSection, annotated: Annotated, building: Path) -> Glance:
    count = len(annotated.names)
    items = split_sizes(count, section.split.fractions) if count > 2 else None
    missing = max(count * 3 * section.image_size**2 - _already_written(building), 0)
    largest = max(float(annotated.points.max()), 1.0)  # stands for the images' sizes, which nobody has seen yet
    facts = facts_before(section, annotated, np.clip(annotated.points / largest, 0, 1))
    found = f"{_counted(annotated)}; not prepared yet"
    return Glance(facts, f"{found}, roughly {_told(items)}" if items else found, items, cache_bytes=missing)


def _already_written(building: Path) -> int:
    """Bytes of a preparation that was interrupted."""
    return sum(path.stat().st_blocks * 512 for path in building.glob("*") if path.is_file())


def _counted(annotated: Annotated) -> str:
    count, points, classes = len(annotated.names), len(annotated.landmark_set), len(annotated.classes)
    size = sum(source.size for source in annotated.sources) / 1e9
    return f"{count:,} images with {points} points, {classes} class{'es' * (classes != 1)}, {size:,.2f} GB"


def _told(items: dict[str, Any]) -> str:
    return ", ".join(f"{number:,} images for {name}" for name, number in items.items())
