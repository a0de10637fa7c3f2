"""What a detection dataset will become, from its files' names and classes, or from its prepared cache."""

from __future__ import annotations

from pathlib import Path

from training.data.detection.folder import list_dataset
from training.data.detection.groups import groups_of
from training.data.detection.listing import SPLITS, Listing, some
from training.data.detection.prepare import facts_before, kept_rows, request_of
from training.data.prepared import unchanged_cache
from training.schemas.detection import DetectionDataSection
from training.tasks.protocol import Glance

_ASSUMED = 10  # classes, where neither files nor settings tell


def glance_at_detection(section: DetectionDataSection, source: Path | None, cache_dir: Path) -> Glance:
    """Exact where the dataset is prepared; else counted before duplicates are left out. No image is opened.

    Raises BadDataError: what is wrong with the layout, the classes, or the images that it names.
    """
    if source is None:
        return _without_files(section)
    listing = list_dataset(source)
    facts = facts_before(section, listing)
    request = request_of(section, listing)
    cache = unchanged_cache(cache_dir, request)
    found = _counted(listing, facts["classes"])
    if cache is None:
        items = {split: len(listing.rows[split]) for split in SPLITS}
        total = len(listing.sources) * 3 * section.image_size**2
        missing = max(total - _already_written(cache_dir / f".building-{request.key}"), 0)
        return Glance(facts, f"{found}; not prepared yet, {_told(items)}", items, cache_bytes=missing)
    groups = groups_of([source.relative for source in listing.sources])
    items = {split: len(rows) for split, rows in kept_rows(section, listing, cache, groups).rows.items()}
    return Glance({**facts, "cache": cache.fingerprint}, f"{found}, prepared; {_told(items)}", items, exact=True)


def _without_files(section: DetectionDataSection) -> Glance:
    if section.classes is not None:
        classes = list(section.classes)
    elif section.subtask is not None:
        classes = list(section.subtasks[section.subtask])
    else:
        classes = [f"class {number}" for number in range(_ASSUMED)]
    facts = {"classes": classes, "category_ids": list(range(len(classes))), "image_size": section.image_size}
    return Glance(facts, f"no files yet; {len(classes)} class{'es' * (len(classes) > 1)} assumed")


def _already_written(building: Path) -> int:
    """Bytes of a preparation that was interrupted."""
    return sum(path.stat().st_blocks * 512 for path in building.glob("*") if path.is_file())


def _counted(listing: Listing, classes: list[str]) -> str:
    size = sum(source.size for source in listing.sources) / 1e9
    few = f"{len(classes)} class{'es' * (len(classes) != 1)} ({some(classes)})"
    return f"{len(listing.sources):,} images in the {listing.layout} layout, {few}, {size:,.2f} GB"


def _told(items: dict[str, int]) -> str:
    return ", ".join(f"{number:,} images for {name}" for name, number in items.items())
