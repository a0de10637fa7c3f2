"""Detection: which objects stand in an image, each as a box, a class and how sure the model is of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from backend.models import build
from backend.models.detector_weights import start_from
from backend.weights import class_names_in, read_state_dict
from training.data.detection.glance import glance_at_detection
from training.data.detection.prepare import class_counts, prepare_detection
from training.fetching.archive import Tellers
from training.fetching.pretrained import DETECTOR_WEIGHTS
from training.losses.detection import image_losses, loss_counts, loss_terms, scored
from training.pretrained import load_pretrained_detector
from training.schemas.detection import MIN_IMAGE_SIZE, SIZE_STEP, SUBTASK_SUFFIX, DetectionConfig
from training.scores.detection import DetectionScores
from training.tasks.card import Card
from training.tasks.detection_card import detection_card
from training.tasks.exported import DETECTION_LIMITS, DetectionsApart, Exported
from training.tasks.protocol import Batch, Glance, Outputs, Phase, PrepareContext, Prepared, Task, Term

if TYPE_CHECKING:
    from backend.models.detector_parts import Detector

_LOSS = "loss_"  # before a term's name, in what is kept of an evaluation
_TRIAL_BOXES = 8


class DetectionTask(Task):
    """Images with boxes; a row is one image."""

    name = "detection"
    config_type = DetectionConfig
    item_word = "images"
    augments = True

    def __init__(self, config: DetectionConfig) -> None:
        super().__init__(config)
        self._section: dict[str, Any] = config.model.model_dump()

    @property
    def subtask(self) -> str | None:
        subtask = self.config.data.subtask
        return None if subtask is None else f"{subtask}{SUBTASK_SUFFIX}"

    @staticmethod
    def make_sample(folder: Path, seed: int = 42) -> None:
        from training.samples.detection import make_detection_sample

        make_detection_sample(folder, seed)

    def prepare(self, context: PrepareContext) -> Prepared:
        return prepare_detection(self.config.data, context, self.config.augmentation)

    def build_model(self, facts: Mapping[str, Any]) -> nn.Module:
        return build(self.name, self.config.model_dump(), facts)

    def init_weights(self, model: nn.Module, tell: Tellers) -> None:
        section = self.config.model
        if section.init_from is not None:
            path = Path(section.init_from)
            told = start_from(model, read_state_dict(path), path, class_names_in(path))
            tell.say(f"starting from {path}: {told}")
        elif (url := self.published_weights()) is not None:
            load_pretrained_detector(model, tell, url)

    def published_weights(self) -> str | None:
        section = self.config.model
        return DETECTOR_WEIGHTS.get((section.name, section.pretrained)) if section.init_from is None else None

    def load_foreign(self, model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> str:
        return start_from(model, weights, path, class_names_in(path))

    def enter_phase(self, model: nn.Module, phase: Phase) -> list[dict[str, Any]]:
        training = self.config.training
        trunk = [p for p in cast("Detector", model).trunk_parameters() if p.requires_grad]
        own = {id(p) for p in trunk}
        rest = [p for p in model.parameters() if p.requires_grad and id(p) not in own]
        return [{"params": trunk, "lr_scale": training.trunk_learning_rate / training.learning_rate}, {"params": rest}]

    def counts(self, batch: Batch) -> dict[str, float | Tensor]:
        return dict(loss_counts(batch, self._section))

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Term]:
        return self._terms(image_losses(model, batch), batch)

    def terms(self) -> list[str]:
        return loss_terms(self._section)

    def new_scores(self, facts: Mapping[str, Any]) -> DetectionScores:
        return DetectionScores.of(self.config.evaluation, facts)

    def outputs(self, model: nn.Module, batch: Batch) -> Outputs:
        detections, losses = scored(model, batch)
        return {"detections": detections, **{f"{_LOSS}{name}": sums for name, sums in losses.items()}}

    def score(self, outputs: Outputs, batch: Batch, scores: Any) -> dict[str, Term]:
        scores.update(outputs["detections"], *(batch[name] for name in ("boxes", "labels", "crowd", "area")))
        return self._terms({name: outputs[f"{_LOSS}{name}"] for name in self.terms()}, batch)

    def _terms(self, sums: Mapping[str, Tensor], batch: Batch) -> dict[str, Term]:
        counts = loss_counts(batch, self._section)
        return {name: Term(sums[name].sum(), counts[name], 1.0) for name in self.terms()}

    def glance(self, source: Path | None, cache_dir: Path) -> Glance:
        return glance_at_detection(self.config.data, source, cache_dir)

    def trial_item(self, facts: Mapping[str, Any], rng: np.random.Generator) -> Batch:
        side, classes = facts["image_size"], len(facts["classes"])
        corners = np.sort(rng.random((_TRIAL_BOXES, 2, 2)), axis=1)
        corners[:, 1] = np.minimum(corners[:, 1] + 0.1, 1)  # none without area
        boxes = torch.from_numpy((corners.reshape(-1, 4) * side).astype(np.float32))
        image = rng.integers(0, 256, (1, 3, side, side), dtype=np.uint8)
        return {
            "image": torch.from_numpy(image),
            "boxes": [boxes],
            "labels": [torch.from_numpy(rng.integers(0, classes, _TRIAL_BOXES))],
            "crowd": [torch.zeros(_TRIAL_BOXES, dtype=torch.bool)],
            "area": [(boxes[:, 2:] - boxes[:, :2]).prod(1)],
            "frame": torch.tensor([[1.0, 1.0, 0.0, 0.0, side, side]]),
            "draw": torch.zeros(1, dtype=torch.int64),
        }

    def class_counts(self, prepared: Prepared) -> Mapping[str, Mapping[str, int]]:
        return class_counts(prepared)

    def row_bytes(self, model: nn.Module, dtype: torch.dtype, device_type: str = "cpu") -> int:
        return cast("Detector", model).activation_bytes_per_row(dtype)

    def row_flops(self, model: nn.Module) -> float:
        return cast("Detector", model).flops_per_row()

    def exported(self, model: nn.Module, facts: Mapping[str, Any]) -> Exported:
        section = self.config.model
        transformer = section.name == "rtdetr_v2"
        return Exported(
            model,
            lambda batch: {"images": batch["image"], "frames": batch["frame"]},
            "detections",
            DetectionsApart(section.min_score, None if transformer else section.nms_iou),
            DETECTION_LIMITS,
            any_batch=transformer,  # the others look at one image after another
        )

    def smaller(self, facts: Mapping[str, Any], share: float) -> tuple[Task, Mapping[str, Any]]:
        """The same detector on a smaller square; what looks at regions costs what it did."""
        side = facts["image_size"]
        fewer = max(MIN_IMAGE_SIZE, SIZE_STEP * round(side * share**0.5 / SIZE_STEP))
        if fewer >= side:
            return self, facts
        data = self.config.data.model_copy(update={"image_size": fewer})
        return type(self)(self.config.model_copy(update={"data": data})), {**facts, "image_size": fewer}

    def card(self, facts: Mapping[str, Any]) -> Card:
        return detection_card(self.config, facts)

    def mismatch(self, preprocessing: Mapping[str, Any], facts: Mapping[str, Any], prepared: Prepared) -> str | None:
        """Other images may be scored, but not other classes, and not what was prepared in another way."""
        ours, theirs = facts["classes"], prepared.facts["classes"]
        if ours != theirs:
            return f"its classes are {', '.join(theirs)}, the model's are {', '.join(ours)}"
        return super().mismatch(preprocessing, facts, prepared)

    def draw(self, model: nn.Module, prepared: Prepared, split: str, folder: Path, device: torch.device) -> list[Path]:
        from training.reporting.detection_examples import draw_examples

        scoring = self.config.evaluation
        return draw_examples(model, prepared, split, folder, device, scoring.confidence, scoring.iou)
