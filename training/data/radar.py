"""Radar data from event folders to windows for training: the settings, the preparation, the windows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationInfo, field_validator

from backend.preprocessing.radar import RadarPreprocessing
from training.data.prepared import BlockReader, PreparedCache, Request
from training.data.prepared_build import open_or_build
from training.data.radar_audit import findings, summary_lines
from training.data.radar_events import list_events
from training.data.radar_members import members_of
from training.data.radar_plan import plan_cache
from training.data.splits import SPLITS, split_windows
from training.data.windows import (
    Event,
    Stretch,
    join_events,
    require_windows,
    stretches_of,
    windows_of,
)
from training.files import digest
from training.schema import Auto, Section, setting
from training.tasks.protocol import Batch, PrepareContext, Prepared

PREPARATION_VERSION = 1  # raise it when the same settings begin to give other blocks
_FILES_PER_WORKER = 8  # fewer are done before another process has started


class SplitSection(Section):
    """How windows are divided into train, val and test; always in the order of time."""

    method: Literal["gap", "day", "cut"] = setting(
        "gap", "Where sides may part: at long gaps, at midnights (UTC) moved to breaks, or anywhere (a weak split)."
    )
    min_gap_hours: float = setting(
        6.0, "Shortest time without frames between two groups.", gt=0, when={"data.split.method": ["gap"]}
    )
    fractions: list[float] = setting(
        lambda: [0.7, 0.15, 0.15], "Shares of the windows for train, val and test.", min_length=3, max_length=3
    )

    @field_validator("fractions")
    @classmethod
    def _check_fractions(cls, fractions: list[float]) -> list[float]:
        if min(fractions) <= 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
            raise ValueError("expected three positive numbers that sum to 1")
        return fractions


class RadarDataSection(Section):
    """Which radar volumes, and what becomes of them."""

    manifest: str | None = setting(None, "A manifest of files to fetch.", neutral=True)
    cache_dir: str | None = setting(None, "Where prepared data lie; null chooses a place.", neutral=True)
    variable: str = setting("DBZ", "The reflectivity variable in the files.", min_length=1)
    fill_means: Literal["no_echo", "no_data"] = setting(
        "no_echo", "What the files' fill value means: no echo is the lowest dBZ and counts, no data is masked."
    )
    input_steps: int = setting(18, "Frames that the model sees.", ge=1)
    prediction_steps: int = setting(7, "Frames that it predicts.", ge=1)
    stride: int = setting(5, "Frames from one window's start to the next one's.", ge=1)
    gap_tolerance: float = setting(
        0.5, "How much longer than the cadence a step may be, as a share of it, before it is a break.", ge=0
    )
    split: SplitSection = setting(SplitSection, "Train, val and test.")
    grid: Literal["strict", "crop"] = setting(
        "strict", "Events on different grids: refuse them, or crop all to one common extent in km."
    )
    downsample_size: list[int] | None = setting(
        lambda: [250, 250], "Rows and columns that the model sees; null keeps the files' grid."
    )
    downsample_method: Literal["area", "area_linear_z", "linear", "maximum"] = setting(
        "area", "Mean over the area in dBZ or in linear Z, linear interpolation, or maximum."
    )
    levels: Literal["all", "max"] | list[int] = setting(
        "all", "Each level a sequence of its own, the maximum over them, or the indices of some."
    )
    min_dbz: float = setting(-29.0, "Lowest reflectivity; what is below, and no echo, becomes it.", allow_inf_nan=False)
    max_dbz: float = setting(65.0, "Highest reflectivity; what is above becomes it.", allow_inf_nan=False)
    pack_bits: Literal[8, 16] = setting(8, "Bits of a prepared value: 8 are off by at most 1/508 of the range.")
    prepare_workers: int | Auto = setting("auto", "Processes that prepare the data.", neutral=True)

    @field_validator("downsample_size")
    @classmethod
    def _check_size(cls, size: list[int] | None) -> list[int] | None:
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError("expected two positive integers, rows and columns, or null")
        return size

    @field_validator("levels")
    @classmethod
    def _check_levels(cls, levels: str | list[int]) -> str | list[int]:
        if isinstance(levels, list) and (not levels or min(levels) < 0 or len(set(levels)) < len(levels)):
            raise ValueError("expected all, max, or a list of different level indices from 0")
        return levels

    @field_validator("max_dbz")
    @classmethod
    def _check_range(cls, highest: float, info: ValidationInfo) -> float:
        lowest = info.data.get("min_dbz", -math.inf)
        if not lowest < highest:
            raise ValueError(f"expected more than data.min_dbz, which is {lowest:g}")
        return highest

    @field_validator("prepare_workers")
    @classmethod
    def _check_workers(cls, workers: int | str) -> int | str:
        if isinstance(workers, int) and workers < 1:
            raise ValueError("expected auto or at least 1")
        return workers

    @property
    def window(self) -> int:
        """Frames in a window."""
        return self.input_steps + self.prediction_steps

    def preprocessing(self, crop_km: tuple[float, float] | None) -> RadarPreprocessing:
        """These settings as the preprocessing that training and serving share."""
        return RadarPreprocessing(
            variable=self.variable,
            fill_means=self.fill_means,
            levels=self.levels if isinstance(self.levels, str) else tuple(self.levels),
            crop_km=crop_km,
            downsample_size=None
            if self.downsample_size is None
            else (self.downsample_size[0], self.downsample_size[1]),
            downsample_method=self.downsample_method,
            min_dbz=self.min_dbz,
            max_dbz=self.max_dbz,
            bits=self.pack_bits,
        )


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
    record = section.preprocessing(None).to_dict()
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
