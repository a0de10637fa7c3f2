"""What a radar dataset will become, from its listing and one header, or from its prepared cache where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from backend.preprocessing.radar_netcdf import VolumeHeader, read_header
from training.data.prepared import PreparedCache, Request, unchanged_cache
from training.data.radar.events import Listing, list_events
from training.data.radar.plan import radar_preprocessing
from training.data.radar.prepare import cache_settings, prepared_windows
from training.data.radar.splits import SPLITS
from training.schemas.convlstm import RadarDataSection
from training.tasks.protocol import Glance

_USUAL_LEVELS, _USUAL_SIZE = 18, [500, 500]  # of a volume, where no file has been seen yet


def glance_at_radar(section: RadarDataSection, source: Path | None, cache_dir: Path) -> Glance:
    """Exact where the dataset is prepared; else from the first file's header and the numbers of files.

    Raises BadDataError: no events, or the first file cannot be read.
    """
    if source is None:
        return _without_files(section)
    listing = list_events(source)
    request = Request(cache_settings(section), listing.sources)
    cache = unchanged_cache(cache_dir, request)
    if cache is not None:
        return _prepared(section, cache, listing)
    return _estimate(section, listing, cache_dir / f".building-{request.key}")


def _without_files(section: RadarDataSection) -> Glance:
    size = section.downsample_size or _USUAL_SIZE
    return Glance(
        {"image_size": list(size), "levels": _levels(section, _USUAL_LEVELS)},
        f"no files yet; {_levels(section, _USUAL_LEVELS)} levels of {size[0]}x{size[1]} cells assumed",
    )


def _prepared(section: RadarDataSection, cache: PreparedCache, listing: Listing) -> Glance:
    prepared = prepared_windows(section, cache, listing.ignored)
    items = {name: len(windows) for name, windows in prepared.splits.items()}
    return Glance(prepared.facts, f"{_counted(listing)}, prepared; {_told(items)}", items, exact=True)


def _estimate(section: RadarDataSection, listing: Listing, building: Path) -> Glance:
    first = listing.sources[0]
    header = read_header(first.path, section.variable)
    levels, size = _levels(section, len(header.levels)), _size(section, header)
    block = levels * size[0] * size[1] * section.pack_bits // 8
    missing = max(block * len(listing.sources) - _already_written(building), 0)
    items = _windows(section, listing)
    levels_there = f"{len(header.levels)} level{'s' * (len(header.levels) > 1)}"
    found = f"{_counted(listing)}, {levels_there}, {header.grid.describe()}; not prepared yet"
    return Glance(
        {"image_size": list(size), "levels": levels},
        f"{found}, roughly {_told(items)}" if items else found,
        items,
        cache_bytes=missing,
    )


def _levels(section: RadarDataSection, there: int) -> int:
    if section.levels == "max":
        return 1
    return there if section.levels == "all" else len(section.levels)


def _size(section: RadarDataSection, header: VolumeHeader) -> tuple[int, int]:
    return radar_preprocessing(section).grid_after(header).shape


def _already_written(building: Path) -> int:
    """Bytes of a preparation that was interrupted."""
    return sum(path.stat().st_blocks * 512 for path in building.glob("*") if path.is_file())


def _windows(section: RadarDataSection, listing: Listing) -> dict[str, int] | None:
    """Windows as if no event had gaps and none continued another; None where that gives too few to say anything."""
    frames = np.bincount(listing.folder_of)
    total = int(np.maximum(0, (frames - section.window) // section.stride + 1).sum())
    items = {name: round(total * share) for name, share in zip(SPLITS, section.split.fractions, strict=True)}
    return items if min(items.values()) else None


def _counted(listing: Listing) -> str:
    files, folders = len(listing.sources), len(listing.folders)
    size = sum(source.size for source in listing.sources) / 1e9
    return f"{folders:,} event{'s' * (folders > 1)}, {files:,} volume{'s' * (files > 1)}, {size:,.2f} GB"


def _told(items: dict[str, Any]) -> str:
    return ", ".join(f"{number:,} windows for {name}" for name, number in items.items())
