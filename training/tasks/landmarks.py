"""Landmarks: where a fixed set of points lies on an image, by regression of their coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from backend.errors import ConfigError
from backend.models import build
from backend.models.exportable import PlainLandmarks
from backend.models.landmarks import predict_points
from backend.models.landmarks_weights import start_from
from backend.preprocessing.landmark_set import LandmarkSet
from backend.weights import read_state_dict
from training.data.landmarks.glance import glance_at_landmarks
from training.data.landmarks.mirror import check_mirroring
from training.data.landmarks.prepare import class_counts, prepare_landmarks, preprocessing_of
from training.fetching.archive import Tellers
from training.fetching.pretrained import IMAGENET_RESNET18
from training.losses.landmarks import check_loss, landmark_counts, landmark_loss, loss_terms
from training.pretrained import load_pretrained
from training.schemas.landmarks import LandmarkConfig
from training.scores.landmarks import LandmarkScores
from training.tasks.card import Card
from training.tasks.exported import DIFFERENCE, Exported, largest_difference
from training.tasks.landmarks_card import landmark_card
from training.tasks.protocol import Batch, Glance, Outputs, Phase, PrepareContext, Prepared, Task, Term

if TYPE_CHECKING:
    from backend.models.landmarks import LandmarkNet

FROZEN = "frozen"
_EXPORT_DIFFERENCE = 1e-4  # of a coordinate from 0 to 1: a fortieth of a pixel of 224


class LandmarkTask(Task):
    """Images with points; a row is one image."""

    name = "landmarks"
    config_type = LandmarkConfig
    item_word = "images"
    augments = True

    def __init__(self, config: LandmarkConfig) -> None:
        super().__init__(config)
        self.preprocessing = preprocessing_of(config.data)

    @staticmethod
    def make_sample(folder: Path, seed: int = 42) -> None:
        from training.samples.landmarks import make_landmark_sample

        make_landmark_sample(folder, seed)

    def prepare(self, context: PrepareContext) -> Prepared:
        config = self.config
        prepared = prepare_landmarks(
            config.data, context, config.training.split_seed, config.augmentation, config.loss.class_weights
        )
        points = LandmarkSet.from_json(prepared.facts["landmark_set"])
        check_mirroring(points, config)
        check_loss(points, prepared.facts["classes"], config.loss)
        return prepared

    def build_model(self, facts: Mapping[str, Any]) -> nn.Module:
        return build(self.name, self.config.model_dump(), facts)

    def init_weights(self, model: nn.Module, tell: Tellers) -> None:
        net, section = cast("LandmarkNet", model), self.config.model
        if section.init_from is not None:
            path = Path(section.init_from)
            start_from(net, read_state_dict(path), path)
        elif self.published_weights() is not None:
            load_pretrained(net, tell)

    def published_weights(self) -> str | None:
        section = self.config.model
        needed = section.init_from is None and section.pretrained == "imagenet"
        return IMAGENET_RESNET18 if needed else None

    def load_foreign(self, model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> str:
        start_from(cast("LandmarkNet", model), weights, path)
        return ""

    def phases(self) -> list[Phase]:
        training, frozen = self.config.training, self.config.frozen
        both = Phase("all", training.epochs, training.learning_rate, training.patience, start_from_best=True)
        if frozen.epochs == 0:
            return [both]
        return [Phase(FROZEN, frozen.epochs, frozen.learning_rate, frozen.patience, schedule="constant"), both]

    def enter_phase(self, model: nn.Module, phase: Phase) -> list[dict[str, Any]]:
        net, training = cast("LandmarkNet", model), self.config.training
        net.freeze_trunk(phase.name == FROZEN)
        head = {"params": list(net.head.parameters())}
        if phase.name == FROZEN:
            return [head]
        scale = training.trunk_learning_rate / training.learning_rate
        return [{"params": net.trunk_parameters(), "lr_scale": scale}, head]

    def counts(self, batch: Batch) -> dict[str, float | Tensor]:
        return landmark_counts(batch, self.config.loss)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Term]:
        points = model(self.preprocessing.normalise(batch["image"]))
        return landmark_loss(points, batch, self.config.loss)

    def terms(self) -> list[str]:
        return loss_terms(self.config.loss)

    def new_scores(self, facts: Mapping[str, Any]) -> LandmarkScores:
        return LandmarkScores.of(self.config.evaluation, facts)

    def outputs(self, model: nn.Module, batch: Batch) -> Outputs:
        images = self.preprocessing.normalise(batch["image"])
        plain, tta = predict_points(model, images, self.config.evaluation.tta)
        return {"points": plain} if tta is None else {"points": plain, "tta": tta}

    def score(self, outputs: Outputs, batch: Batch, scores: Any) -> dict[str, Term]:
        tta = outputs.get("tta") if self.config.evaluation.tta else None
        if tta is None and self.config.evaluation.tta:  # kept before, without
            raise ConfigError("evaluation.tta is true, but these predictions were kept without it; evaluate anew")
        scores.update(outputs["points"], tta, batch["points"], batch["size"], batch["class"])
        return landmark_loss(outputs["points"], batch, self.config.loss)

    def glance(self, source: Path | None, cache_dir: Path) -> Glance:
        return glance_at_landmarks(self.config.data, source, cache_dir, self.config.training.split_seed)

    def trial_item(self, facts: Mapping[str, Any], rng: np.random.Generator) -> Batch:
        side, points = facts["image_size"], len(facts["landmark_set"]["names"])
        image = rng.integers(0, 256, (1, 3, side, side), dtype=np.uint8)
        return {
            "image": torch.from_numpy(image),
            "points": torch.from_numpy(rng.random((1, points, 2), dtype=np.float32)),
            "size": torch.full((1, 2), float(side)),
            "class": torch.zeros(1, dtype=torch.int64),
            "weight": torch.ones(1),
        }

    def class_counts(self, prepared: Prepared) -> Mapping[str, Mapping[str, int]]:
        return class_counts(prepared)

    def row_bytes(self, model: nn.Module, dtype: torch.dtype, device_type: str = "cpu") -> int:
        return cast("LandmarkNet", model).activation_bytes_per_row(dtype, self.config.data.image_size)

    def row_flops(self, model: nn.Module) -> float:
        return cast("LandmarkNet", model).flops_per_row(self.config.data.image_size)

    def exported(self, model: nn.Module, facts: Mapping[str, Any]) -> Exported:
        return Exported(
            PlainLandmarks(cast("LandmarkNet", model), self.preprocessing.normalise),
            lambda batch: {"images": batch["image"]},
            "points",
            largest_difference,
            {DIFFERENCE: _EXPORT_DIFFERENCE},
        )

    def card(self, facts: Mapping[str, Any]) -> Card:
        return landmark_card(self.config, facts)

    def mismatch(self, preprocessing: Mapping[str, Any], facts: Mapping[str, Any], prepared: Prepared) -> str | None:
        """Other images may be scored, but not other points, and not what was prepared in another way."""
        ours, theirs = facts["landmark_set"]["names"], prepared.facts["landmark_set"]["names"]
        if ours != theirs:
            return f"its points are {', '.join(theirs)}, the model's are {', '.join(ours)}"
        return super().mismatch(preprocessing, facts, prepared)

    def draw(self, model: nn.Module, prepared: Prepared, split: str, folder: Path, device: torch.device) -> list[Path]:
        from training.reporting.landmark_examples import draw_examples

        return draw_examples(model, prepared, split, folder, device)
