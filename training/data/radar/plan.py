"""Planning a radar cache from the headers: grids that go together, levels, frames that stand in two events."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backend.errors import BadDataError, ConfigError
from backend.preprocessing.grid import Grid
from backend.preprocessing.radar import RadarPreprocessing
from backend.preprocessing.radar_netcdf import VolumeHeader
from training.data.prepared_build import Plan
from training.data.radar.blocks import MakeBlock, find_duplicates
from training.data.radar.events import Listing, Scan, frames_at_same_time, scan_events, some
from training.data.workers import WorkerPool

if TYPE_CHECKING:
    from training.schemas.convlstm import RadarDataSection
    from training.tasks.protocol import PrepareContext


def plan_cache(section: RadarDataSection, listing: Listing, pool: WorkerPool, context: PrepareContext) -> Plan:
    """Reads all headers, checks the events against each other, and says which blocks to make in which order.

    Raises BadDataError and ConfigError before any volume is decoded, but for those that stand in two events.
    """
    scan = scan_events(listing, section.variable, pool, context.progress)
    preprocessing = radar_preprocessing(section, _common_extent(section, listing, scan))
    after = _grids_after(preprocessing, listing, scan)
    make = MakeBlock(preprocessing)
    duplicates = find_duplicates(listing, frames_at_same_time(listing, scan), make, pool)
    grid_of = [scan.grid_of[folder] for folder in listing.folder_of]
    used = [i for i in range(len(listing.sources)) if i not in duplicates.kept]
    return Plan(
        shape=(_level_count(section, listing, scan), *after[0].shape),
        dtype="uint8" if section.pack_bits == 8 else "int16",
        block_sources=sorted(used, key=lambda i: (grid_of[i], scan.times[i])),
        make=make,
        recipe=preprocessing.to_dict(),
        extra={
            "folders": listing.folders,
            "folder_of": listing.folder_of,
            "times": scan.times,
            "grid_of_folder": scan.grid_of,
            "grids": [_grid_record(grid) for grid in scan.grids],
            "grid_after": _grid_record(after[0]),
            "levels": scan.levels[0].tolist(),
            "duplicates": [[source, kept] for source, kept in sorted(duplicates.kept.items())],
            "preprocessing": preprocessing.to_dict(),
        },
        known_hashes=duplicates.hashes,
    )


def radar_preprocessing(section: RadarDataSection, crop_km: tuple[float, float] | None = None) -> RadarPreprocessing:
    """The settings as the preprocessing that training and serving share; ``crop_km`` follows from the files."""
    size = section.downsample_size
    return RadarPreprocessing(
        variable=section.variable,
        fill_means=section.fill_means,
        levels=section.levels if isinstance(section.levels, str) else tuple(section.levels),
        crop_km=crop_km,
        downsample_size=None if size is None else (size[0], size[1]),
        downsample_method=section.downsample_method,
        min_dbz=section.min_dbz,
        max_dbz=section.max_dbz,
        bits=section.pack_bits,
    )


def _common_extent(section: RadarDataSection, listing: Listing, scan: Scan) -> tuple[float, float] | None:
    """Height and width in km that every event has, or None where all lie on one grid."""
    if len(scan.grids) == 1:
        return None
    sizes = [f"{name}: {scan.grids[grid].describe()}" for name, grid in _an_event_per_grid(listing, scan)]
    if section.grid == "strict":
        raise BadDataError(
            f"The events lie on {len(sizes)} different grids: {some(sizes)}. Train on the events of one grid, "
            "or crop all to their common extent with --set data.grid=crop."
        )
    spacings = [grid.spacing_km for grid in scan.grids]
    known = [spacing for spacing in spacings if spacing is not None]
    if len(known) < len(spacings):
        raise BadDataError(f"data.grid=crop needs coordinates in km, m or degrees, but found {some(sizes)}.")
    extents = [(grid.shape[0] * dy, grid.shape[1] * dx) for grid, (dy, dx) in zip(scan.grids, known, strict=True)]
    return min(height for height, _ in extents), min(width for _, width in extents)


def _an_event_per_grid(listing: Listing, scan: Scan) -> list[tuple[str, int]]:
    first = {grid: name for name, grid in reversed(list(zip(listing.folders, scan.grid_of, strict=True)))}
    return [(first[grid], grid) for grid in sorted(first)]


def _grids_after(preprocessing: RadarPreprocessing, listing: Listing, scan: Scan) -> list[Grid]:
    """What each grid becomes. Raises unless all come out with the same shape."""
    grids = []
    for name, number in _an_event_per_grid(listing, scan):
        try:
            grids.append(preprocessing.grid_after(_header(name, scan.grids[number])))
        except (BadDataError, ConfigError) as error:
            raise type(error)(f"Event {name} with {scan.grids[number].describe()}: {error}") from error
    if len({grid.shape for grid in grids}) > 1:
        raise ConfigError(
            f"The events' common extent has different numbers of cells ({some(grid.describe() for grid in grids)}): "
            "set data.downsample_size to bring all to one size."
        )
    return grids


def _header(name: str, grid: Grid) -> VolumeHeader:
    return VolumeHeader(Path(name), 0.0, np.zeros(1), grid)


def _level_count(section: RadarDataSection, listing: Listing, scan: Scan) -> int:
    counts = [len(levels) for levels in scan.levels]
    if section.levels == "max":
        return 1
    if section.levels == "all":
        odd = [i for i, count in enumerate(counts) if count != counts[0]]
        if odd:
            raise BadDataError(
                f"Events have different numbers of levels: {listing.folders[0]} has {counts[0]}, "
                f"{some(f'{listing.folders[i]} has {counts[i]}' for i in odd)}. Set data.levels to max or to a list."
            )
        return counts[0]
    fewest = int(np.argmin(counts))
    if max(section.levels) >= counts[fewest]:
        raise ConfigError(
            f"data.levels asks for level {max(section.levels)}, but event {listing.folders[fewest]} has levels 0 to "
            f"{counts[fewest] - 1}."
        )
    return len(section.levels)


def _grid_record(grid: Grid) -> dict[str, Any]:
    spacing = None if grid.spacing_km is None else list(grid.spacing_km)
    return {"shape": list(grid.shape), "units": grid.units, "spacing_km": spacing, "text": grid.describe()}
