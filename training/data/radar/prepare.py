"""Radar data from event folders to windows for training: the preparation, the windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from training.data.prepared import BlockReader, PreparedCache, Request
from training.data.prepared_build import open_or_build
from training.data.radar.audit import findings, summary_lines
from training.data.radar.events import list_events
from training.data.radar.members import members_of
from training.data.radar.plan import plan_cache, radar_preprocessing
from training.data.radar.splits import SPLITS, split_windows
from training.data.radar.windows import (
    Event,
    Stretch,
    join_events,
    require_windows,
    stretches_of,
    windows_of,
)
from training.files import digest
from training.schemas.convlstm import RadarDataSection
from training.tasks.protocol import Batch, PrepareContext, Prepared

PREPARATION_VERSION = 1  # raise it when the same settings begin to give other blocks
_FILES_PER_WORKER = 8  # fewer are done before another process has started


class RadarWindows:
    """One split's windows (an ItemSource): slices of the prepared cache, nothing is computed."""

    def __init__(self, reader: BlockReader, first_blocks: np.ndarray, length: int) -> None:
        self._reader, self._first_blocks, self._length = reader, first_blocks, length

    def __len__(self) -> int:
        return len(self._first_blocks)

    def item(self, index: int, rng: np.random.Generator | None) -> Batch:
        """``frames``: packed codes [L, T_in + T_out, H, W], contiguous. ``rng`` is not used: nothing is drawn here."""
        planes, *rest = self._reader.shape
        dtype = torch.uint8 if self._reader.dtype == np.uint8 else torch.int16
        frames = torch.empty((planes, self._length, *rest), dtype=dtype)
        self._reader.read_run(int(self._first_blocks[index]), frames.numpy())
        return {"frames": frames}


def prepare_radar(section: RadarDataSection, context: PrepareContext) -> Prepared:
    """Event folders to split windows over a prepared cache; in well under a second where nothing changed.

    Raises BadDataError, ConfigError, DiskError and InterruptedRunError.
    """
    listing = list_events(context.source)
    workers = max(1, min(context.workers, len(listing.sources) // _FILES_PER_WORKER))
    request = Request(cache_settings(section), listing.sources)
    cache = open_or_build(
        context.cache_dir, request, lambda pool: plan_cache(section, listing, pool, context), context, workers
    )
    return prepared_windows(section, cache, listing.ignored)


def cache_settings(section: RadarDataSection) -> dict[str, Any]:
    """What shapes the blocks of a prepared cache."""
    record = radar_preprocessing(section).to_dict()
    del record["crop_km"]  # follows from the files
    return {"kind": "radar", "version": PREPARATION_VERSION, "grid": section.grid, **record}


# --- from the cache to windows: nothing here touches a source --------------------------------------------------------


def _events(extra: Mapping[str, Any], block_sources: list[int]) -> list[Event]:
    sources = np.array(block_sources)
    times = np.array(extra["times"])[sources]
    folders = np.array(extra["folder_of"])[sources]
    events = []
    for folder in np.unique(folders):
        blocks = np.flatnonzero(folders == folder)
        name, grid = extra["folders"][folder], extra["grid_of_folder"][folder]
        events.append(Event(name, times[blocks], blocks, grid))
    return events


def prepared_windows(section: RadarDataSection, cache: PreparedCache, ignored: int) -> Prepared:
    """Split windows over an opened cache. Raises BadDataError when there are too few."""
    extra, block_sources = cache.extra, cache.index["block_sources"]
    sequences = join_events(_events(extra, block_sources), section.gap_tolerance)
    stretches = stretches_of(sequences, section.gap_tolerance)
    windows = windows_of(stretches, section.window, section.stride)
    require_windows(
        windows, stretches, "Lower data.input_steps or data.prediction_steps, raise data.gap_tolerance, or add events."
    )
    method, fractions, min_gap_hours = section.split.method, section.split.fractions, section.split.min_gap_hours
    split = split_windows(stretches, windows, method, fractions, min_gap_hours)
    first_blocks = np.array([stretches[s].blocks[f] for s, f in zip(windows.stretch, windows.first, strict=True)])
    members = members_of(cache, stretches, windows, first_blocks)
    audit = {**split.audit, **findings(extra, sequences, stretches, section.window)}
    facts, reader = _facts(cache, stretches), cache.reader()
    return Prepared(
        fingerprint=_fingerprint(section, cache),
        splits={name: RadarWindows(reader, first_blocks[split.members(name)], section.window) for name in SPLITS},
        audit=audit,
        members={name: [members[i] for i in split.members(name)] for name in SPLITS},
        near_seconds=min_gap_hours * 3600,
        preprocessing={
            "radar": extra["preprocessing"],
            "input_steps": section.input_steps,
            "prediction_steps": section.prediction_steps,
            "cadence_seconds": facts["cadence_seconds"],
            "gap_tolerance": section.gap_tolerance,
            "source_grids": extra["grids"],
        },
        summary=summary_lines(cache, audit, facts, ignored),
        facts=facts,
    )


def _facts(cache: PreparedCache, stretches: list[Stretch]) -> dict[str, Any]:
    grid = cache.extra["grid_after"]
    steps = np.concatenate([np.diff(stretch.times) for stretch in stretches])
    return {
        "image_size": list(cache.shape[1:]),
        "levels": cache.shape[0],
        "cadence_seconds": float(np.median(steps)),
        "grid": grid["text"],
        "spacing_km": grid["spacing_km"],
        "cache": cache.fingerprint,  # its folder in the cache folder: what pruning keeps
    }


def _fingerprint(section: RadarDataSection, cache: PreparedCache) -> str:
    """Of the cache's content and of all that makes windows and splits from it."""
    shaping = section.model_dump(include={"input_steps", "prediction_steps", "stride", "gap_tolerance", "split"})
    return digest([cache.fingerprint, shaping])
