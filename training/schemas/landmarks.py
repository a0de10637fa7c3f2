"""The settings of a landmark run: which points on which images, how they are learned, how errors are told."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator, model_validator

from training.schemas.landmarks_json import converted, is_old
from training.schemas.shared import (
    Auto,
    EvaluationSection,
    RunConfig,
    Section,
    SelectionSection,
    TrainingSection,
    check_fractions,
    setting,
)


class LandmarkSplitSection(Section):
    """How images are divided into train, val and test: drawn, each class in the same shares."""

    fractions: list[float] = setting(
        lambda: [0.75, 0.15, 0.10], "Shares of the images for train, val and test.", min_length=3, max_length=3
    )

    @field_validator("fractions")
    @classmethod
    def _check_fractions(cls, fractions: list[float]) -> list[float]:
        return check_fractions(fractions)


class LandmarkDataSection(Section):
    """Which images and points, and what becomes of an image before the model sees it."""

    manifest: str | None = setting(None, "A manifest of files to fetch.", neutral=True)
    cache_dir: str | None = setting(None, "Where prepared data lie; null chooses a place.", neutral=True)
    image_size: int = setting(224, "Rows and columns that the model sees.", ge=64)
    clahe: bool = setting(
        True, "Contrast-limited adaptive histogram equalisation of the lightness (L of LAB), before the resize."
    )
    clahe_clip: float = setting(2.0, "Its contrast limit.", gt=0, when={"data.clahe": [True]})
    clahe_tile: int = setting(4, "Its tiles in each direction.", ge=1, when={"data.clahe": [True]})
    split: LandmarkSplitSection = setting(LandmarkSplitSection, "Train, val and test.")
    prepare_workers: int | Auto = setting("auto", "Processes that prepare the data.", neutral=True)

    @field_validator("prepare_workers")
    @classmethod
    def _check_workers(cls, workers: int | str) -> int | str:
        if isinstance(workers, int) and workers < 1:
            raise ValueError("expected auto or at least 1")
        return workers


class AugmentationSection(Section):
    """What happens to a training image, drawn anew each epoch from the seed."""

    flip: float = setting(0.5, "Probability of a mirrored image, whose paired points change places.", ge=0, le=1)
    rotation: float = setting(10.0, "Largest rotation about the centre, in degrees, either way.", ge=0, le=180)
    brightness: float = setting(0.2, "Largest change of brightness, as a share.", ge=0, lt=1)
    contrast: float = setting(0.2, "Largest change of contrast about the mean, as a share.", ge=0, lt=1)


class LandmarkModelSection(Section):
    """The network: a ResNet-18 trunk, coordinate attention, a head that gives each point's coordinates."""

    pretrained: Literal["imagenet", "none"] = setting(
        "imagenet",
        "Weights that the trunk starts from; imagenet is fetched once from PyTorch's site.",
        when={"model.init_from": [None]},
    )
    coordinate_attention: bool = setting(True, "Attention along rows and columns between trunk and head.")
    head: Literal["deep", "shallow"] = setting("deep", "Three linear layers with group norm, or two.")
    hidden_dim: int = setting(
        768, "Width of the head's last hidden layer; for a deep head a multiple of 16 from 32.", ge=16
    )
    dropout: float = setting(0.3, "Dropout in the head; the second one is half of it.", ge=0, lt=1)
    init_from: str | None = setting(None, "A .pth file of weights to start from.", content=True)

    @model_validator(mode="after")
    def _check_groups(self) -> LandmarkModelSection:
        if self.head == "deep" and (self.hidden_dim % 16 or self.hidden_dim < 32):
            raise ValueError(
                "hidden_dim must be a multiple of 16 from 32 for a deep head, whose group norm has 16 groups of two or "
                f"more; it is {self.hidden_dim}"
            )
        return self


class LandmarkLossSection(Section):
    """What is minimised, on coordinates from 0 to 1."""

    kind: Literal["wing", "weighted_wing", "combined", "adaptive_wing", "soft_wing"] = setting(
        "wing", "combined is wing with the axis and symmetry terms of the fifteen lung points."
    )
    omega: float = setting(
        10.0,
        "Where wing turns from logarithm to line, in pixels of a 224-pixel image.",
        gt=0,
        when={"loss.kind": ["wing", "weighted_wing", "combined"]},
    )
    epsilon: float = setting(
        2.0,
        "Curvature of wing's logarithm, in pixels of a 224-pixel image.",
        gt=0,
        when={"loss.kind": ["wing", "weighted_wing", "combined"]},
    )
    point_weights: Literal["uniform", "inverse_variance", "custom"] | list[float] = setting(
        "inverse_variance",
        "A weight for each point, or a set of weights by name (for the fifteen lung points).",
        when={"loss.kind": ["weighted_wing"]},
    )
    central_weight: float = setting(1.0, "Weight of the axis term.", ge=0, when={"loss.kind": ["combined"]})
    symmetry_weight: float = setting(0.5, "Weight of the symmetry term.", ge=0, when={"loss.kind": ["combined"]})
    class_weights: dict[str, float] = setting(
        dict, "How much images of a class count, such as COVID: 2.0; a class that is not named counts 1."
    )

    @field_validator("point_weights")
    @classmethod
    def _check_points(cls, weights: str | list[float]) -> str | list[float]:
        if isinstance(weights, list) and (not weights or min(weights) < 0 or not sum(weights)):
            raise ValueError("expected uniform, inverse_variance, custom, or weights from 0 of which one is more")
        return weights

    @field_validator("class_weights")
    @classmethod
    def _check_classes(cls, weights: dict[str, float]) -> dict[str, float]:
        if any(not weight > 0 for weight in weights.values()):
            raise ValueError("expected positive numbers")
        return weights


class FrozenSection(Section):
    """The first phase: the trunk keeps the weights that it starts from, its batch norm's statistics too."""

    epochs: int = setting(15, "Passes over the training split; 0 leaves the phase out.", ge=0)
    learning_rate: float = setting(
        1e-3, "The head's learning rate, which stays as it is.", gt=0, unless={"frozen.epochs": [0]}
    )
    patience: int | None = setting(
        5, "Validations without improvement before the phase ends.", ge=1, unless={"frozen.epochs": [0]}
    )


class LandmarkTrainingSection(TrainingSection):
    """The second phase, in which everything learns, and what holds for both."""

    epochs: int = setting(100, "Passes over the training split in the second phase.", ge=1)
    batch_size: int = setting(16, "Effective batch: images that one optimizer step sees.", ge=1)
    learning_rate: float = setting(2e-4, "The head's learning rate in the second phase.", gt=0)
    trunk_learning_rate: float = setting(2e-5, "The trunk's and the attention's.", gt=0)
    weight_decay: float = setting(0.0, "AdamW's decoupled weight decay.", ge=0)
    schedule: Literal["constant", "plateau", "cosine", "linear", "step"] = setting(
        "cosine", "How the learning rate falls after warm-up in the second phase."
    )
    min_learning_rate: float = setting(
        1e-6, "The schedule never goes below it.", ge=0, unless={"training.schedule": ["constant"]}
    )
    clip_grad_norm: float | None = setting(
        None, "Largest norm of the whole gradient; null switches clipping off.", gt=0
    )
    patience: int | None = setting(
        15,
        "Early stopping: validations without improvement before the second phase ends; null trains to the end.",
        ge=1,
    )
    split_seed: int = setting(42, "Seed of the split, apart from the seed of everything else.", ge=0, lt=2**32)


class LandmarkSelectionSection(SelectionSection):
    """Which checkpoint is the best."""

    metric: str = setting(
        "val/error_px_224",
        "A validation metric, of plain predictions unless it begins with val/tta_; test metrics are refused.",
        pattern=r"^val/.+",
    )


class LandmarkEvaluationSection(EvaluationSection):
    """Validation, and how errors are told."""

    tta: bool = setting(
        True, "Score the mean of an image's and its mirror image's prediction beside the plain prediction."
    )
    success_px: list[float] = setting(
        lambda: [5.0, 8.0, 10.0, 15.0], "A point is found when its error is at most so many pixels.", min_length=1
    )
    bootstrap: int = setting(1000, "Resamplings of the images behind each interval (95 %); 0 leaves them out.", ge=0)


class LandmarkConfig(RunConfig):
    """Everything that a landmark run reads."""

    task: Literal["landmarks"] = setting("landmarks", "The task that this configuration is for.")
    data: LandmarkDataSection = setting(LandmarkDataSection, "Which images, and what becomes of them.")
    augmentation: AugmentationSection = setting(AugmentationSection, "What happens to training images.")
    model: LandmarkModelSection = setting(LandmarkModelSection, "The network.")
    loss: LandmarkLossSection = setting(LandmarkLossSection, "What is minimised.")
    frozen: FrozenSection = setting(FrozenSection, "The first phase, in which the trunk is frozen.")
    training: LandmarkTrainingSection = setting(LandmarkTrainingSection, "The second phase, and both.")
    selection: LandmarkSelectionSection = setting(LandmarkSelectionSection, "Which checkpoint is the best.")
    evaluation: LandmarkEvaluationSection = setting(LandmarkEvaluationSection, "When to validate, and what is scored.")

    @classmethod
    def of_file(cls, content: Any, origin: str) -> Any:
        return converted(content, origin) if is_old(content) else content
