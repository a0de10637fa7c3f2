"""Radar nowcasting: from the last frames of a radar the next ones, each level a sequence of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from backend.models import build
from backend.models.exportable import PlainNowcaster
from backend.preprocessing.grid import same_spacing
from backend.preprocessing.radar import RadarPreprocessing
from backend.weights import load_matching, read_state_dict
from training.data.radar.glance import glance_at_radar
from training.data.radar.prepare import prepare_radar
from training.fetching.archive import Tellers
from training.losses.radar import radar_counts, radar_loss
from training.losses.ssim import check_size
from training.schemas.convlstm import ConvLSTMConfig
from training.scores.radar import NowcastScores
from training.tasks.card import Card
from training.tasks.convlstm_card import convlstm_card
from training.tasks.exported import DIFFERENCE, Exported, largest_difference
from training.tasks.protocol import Batch, Glance, Outputs, PrepareContext, Prepared, Task, Term

if TYPE_CHECKING:
    from backend.models.convlstm import ConvLSTMNowcaster

_FEWEST_TRIAL_STEPS = 3
_EXPORT_DIFFERENCE = 1e-4  # of a forecast from 0 to 1: a hundredth of a dBZ


class ConvLSTMTask(Task):
    """Windows of radar frames; a row is one level of one window."""

    name = "convlstm"
    config_type = ConvLSTMConfig
    item_word = "windows"
    cheap_items = True

    def __init__(self, config: ConvLSTMConfig) -> None:
        super().__init__(config)
        data = config.data
        self.packing = RadarPreprocessing(min_dbz=data.min_dbz, max_dbz=data.max_dbz, bits=data.pack_bits)

    @staticmethod
    def make_sample(folder: Path, seed: int = 42) -> None:
        from training.samples.radar import make_radar_sample

        make_radar_sample(folder, seed)

    def prepare(self, context: PrepareContext) -> Prepared:
        prepared = prepare_radar(self.config.data, context)
        if self.config.loss.ssim_weight > 0:
            height, width = prepared.facts["image_size"]
            check_size(height, width, self.config.loss.ssim_window)
        return prepared

    def build_model(self, facts: Mapping[str, Any]) -> nn.Module:
        return build(self.name, self.config.model_dump(), facts)

    def init_weights(self, model: nn.Module, tell: Tellers) -> None:
        if self.config.model.init_from is not None:
            path = Path(self.config.model.init_from)
            load_matching(model, read_state_dict(path), path)

    def counts(self, batch: Batch) -> dict[str, float | Tensor]:
        _, _, valid = self._split(batch)
        return radar_counts(valid, self.config.loss)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Term]:
        inputs, target, valid = self._split(batch)
        return radar_loss(model(inputs), target, valid, self.config.loss)

    def terms(self) -> list[str]:
        weight = self.config.loss.ssim_weight
        return [name for name, share in (("huber", 1 - weight), ("ssim", weight)) if share > 0]

    def new_scores(self, facts: Mapping[str, Any]) -> NowcastScores:
        data = self.config.data
        return NowcastScores(
            self.config.evaluation.thresholds_dbz,
            data.prediction_steps,
            data.min_dbz,
            data.max_dbz,
            self._scale(facts),
            self.packing.as_stored,
        )

    def outputs(self, model: nn.Module, batch: Batch) -> Outputs:
        frames, _ = self.packing.normalise(batch["frames"])
        return {"forecast": model(frames[:, : self.config.data.input_steps])}

    def score(self, outputs: Outputs, batch: Batch, scores: Any) -> dict[str, Term]:
        frames, valid = self.packing.normalise(batch["frames"])
        steps, prediction = self.config.data.input_steps, outputs["forecast"]
        scores.update(prediction, frames[:, steps:], valid[:, steps:], frames[:, steps - 1], valid[:, steps - 1])
        return radar_loss(prediction, frames[:, steps:], valid[:, steps:], self.config.loss)

    def glance(self, source: Path | None, cache_dir: Path) -> Glance:
        return glance_at_radar(self.config.data, source, cache_dir)

    def trial_item(self, facts: Mapping[str, Any], rng: np.random.Generator) -> Batch:
        data = self.config.data
        dbz = rng.uniform(data.min_dbz, data.max_dbz, (1, data.window, *facts["image_size"])).astype(np.float32)
        frames = torch.from_numpy(self.packing.pack(dbz))
        return {"frames": frames.repeat(facts["levels"], 1, 1, 1)}

    def row_bytes(self, model: nn.Module, dtype: torch.dtype, device_type: str = "cpu") -> int:
        return cast("ConvLSTMNowcaster", model).activation_bytes_per_row(dtype, device_type)

    def row_flops(self, model: nn.Module) -> float:
        return cast("ConvLSTMNowcaster", model).flops_per_row()

    def smaller(self, facts: Mapping[str, Any], share: float) -> tuple[Task, Mapping[str, Any]]:
        """Fewer frames first (never below three, so that the recurrence takes part), then fewer rows of pixels."""
        data = self.config.data
        steps = min(data.input_steps, max(_FEWEST_TRIAL_STEPS, round(data.input_steps * share)))
        height, width = facts["image_size"]
        lowest = self.config.loss.ssim_window if self.config.loss.ssim_weight > 0 else 1
        rows = min(height, max(lowest, round(height * share * data.input_steps / steps)))
        config = self.config.model_copy(update={"data": data.model_copy(update={"input_steps": steps})})
        return type(self)(config), {**facts, "image_size": [rows, width]}

    def exported(self, model: nn.Module, facts: Mapping[str, Any]) -> Exported:
        return Exported(
            PlainNowcaster(cast("ConvLSTMNowcaster", model)),
            lambda batch: {"frames": self._split(dict(batch))[0]},
            "forecast",
            largest_difference,
            {DIFFERENCE: _EXPORT_DIFFERENCE},
            rows=2,  # each takes minutes on a CPU at full size
        )

    def card(self, facts: Mapping[str, Any]) -> Card:
        return convlstm_card(self.config, facts)

    def draw(self, model: nn.Module, prepared: Prepared, split: str, folder: Path, device: torch.device) -> list[Path]:
        from training.reporting.radar_examples import draw_examples

        return draw_examples(self.packing, model, prepared, split, folder, device)

    def _split(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Packed frames [rows, T, H, W] to normalised inputs, targets and the targets' valid mask."""
        frames, valid = self.packing.normalise(batch["frames"])
        steps = self.config.data.input_steps
        return frames[:, :steps], frames[:, steps:], valid[:, steps:]

    def mismatch(self, preprocessing: Mapping[str, Any], facts: Mapping[str, Any], prepared: Prepared) -> str | None:
        """Dates and cadence may differ, but not what a frame is: its preprocessing and the size of its cells."""
        here = prepared.facts
        if facts["image_size"] != here["image_size"] or not same_spacing(facts["spacing_km"], here["spacing_km"]):
            return f"its frames come to {here['grid']}, the model's are {facts['grid']}"
        theirs, ours = ({**one["radar"], "crop_km": None} for one in (prepared.preprocessing, preprocessing))
        other = [name for name in ours if ours[name] != theirs[name]]
        return f"other preprocessing: {', '.join(other)}" if other else None

    def _scale(self, facts: Mapping[str, Any]) -> str:
        method = "" if self.config.data.downsample_size is None else f" ({self.config.data.downsample_method})"
        return f"dBZ on {facts['grid']}{method}"
