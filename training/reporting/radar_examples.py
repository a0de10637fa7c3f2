"""Which forecasts the report shows: windows with much echo from different parts of a split, the same at every run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from backend.preprocessing.radar import RadarPreprocessing
from training.reporting.radar_figures import draw_nowcast
from training.tasks.protocol import ItemSource, Prepared

_FIGURES = 3
_CANDIDATES = 12  # windows looked at for each figure


def draw_examples(
    packing: RadarPreprocessing, model: nn.Module, prepared: Prepared, split: str, folder: Path, device: torch.device
) -> list[Path]:
    """Draw input, truth, forecast and persistence for a few windows of ``split``; PNG and SVG of each."""
    items = prepared.splits[split]
    steps = prepared.preprocessing["input_steps"]
    written: list[Path] = []
    model.eval()
    for number, index in enumerate(_busiest(items, _FIGURES), start=1):
        frames = items.item(index, None)["frames"]
        level, name = _busiest_level(packing, frames), prepared.members[split][index].name
        values, valid = packing.normalise(frames[level : level + 1])
        with torch.inference_mode():
            forecast = model(values[:, :steps].to(device)).float().cpu()
        dbz = packing.to_dbz(values)[0].numpy()
        written += draw_nowcast(
            folder / f"{split}_example_{number}",
            dbz[:steps],
            dbz[steps:],
            packing.to_dbz(forecast)[0].numpy(),
            valid[0, steps:].numpy(),
            min_dbz=packing.min_dbz,
            max_dbz=packing.max_dbz,
            cadence_seconds=prepared.facts["cadence_seconds"],
            spacing_km=_spacing(prepared.facts),
            title=f"{split}: {name}" + (f", level {level + 1}" if len(frames) > 1 else ""),
            input_valid=valid[0, :steps].numpy(),
        )
    return written


def _busiest(items: ItemSource, count: int) -> list[int]:
    """From each of ``count`` equal parts of the split, the window with the strongest mean echo among a few."""
    chosen = []
    for part in np.array_split(np.arange(len(items)), min(count, len(items))):
        looked_at = part[:: max(len(part) // _CANDIDATES, 1)]
        chosen.append(int(max(looked_at, key=lambda index: _echo(items.item(int(index), None)["frames"]))))
    return chosen


def _echo(frames: torch.Tensor) -> float:
    values = frames[:, -1].float()
    return float(values[frames[:, -1] != (255 if frames.dtype == torch.uint8 else -32768)].square().sum())


def _busiest_level(packing: RadarPreprocessing, frames: torch.Tensor) -> int:
    values, _ = packing.normalise(frames)
    return int(values.square().mean(dim=(1, 2, 3)).argmax())


def _spacing(facts: Any) -> float | None:
    spacing = facts.get("spacing_km")
    return float(spacing[0]) if spacing else None
