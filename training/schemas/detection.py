"""The settings of a detection run: which images and boxes, how they are varied, which detector, how it is scored."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator, model_validator

from training.schemas.shared import (
    Auto,
    EvaluationSection,
    RunConfig,
    Section,
    SelectionSection,
    TrainingSection,
    setting,
)

TORCHVISION = ["fasterrcnn_resnet50", "fasterrcnn_mobilenet", "retinanet_resnet18"]
FASTER_RCNN = ["fasterrcnn_resnet50", "fasterrcnn_mobilenet"]
RTDETR = ["rtdetr_v2"]
MIN_IMAGE_SIZE, SIZE_STEP = 64, 32  # pixels

SUBTASK_SUFFIX = "_detection"  # `vehicle_detection` means the sub-task `vehicle`, and is how the registry calls it
STREET_SUBTASKS = {
    "pedestrian": ["person", "persons", "people", "pedestrian", "pedestrians", "rider"],
    "vehicle": [
        *("car", "cars", "truck", "trucks", "bus", "buses", "van", "vans", "train"),
        *("motorcycle", "motorcycles", "motorbike", "motor", "bicycle", "bicycles", "bike"),
    ],
}


class DetectionDataSection(Section):
    """Which images and boxes, and what becomes of an image before the model sees it."""

    manifest: str | None = setting(None, "A manifest of files to fetch.", neutral=True)
    cache_dir: str | None = setting(None, "Where prepared data lie; null chooses a place.", neutral=True)
    image_size: int = setting(
        640,
        "Side of the square that images are brought to, their proportions kept and the rest grey.",
        ge=MIN_IMAGE_SIZE,
    )
    subtask: str | None = setting(
        None, "Learn the classes of this sub-task alone, one of data.subtasks; null takes data.classes."
    )
    subtasks: dict[str, list[str]] = setting(
        lambda: {name: list(classes) for name, classes in STREET_SUBTASKS.items()},
        "Class names of each sub-task; those that a dataset has are taken, upper and lower case alike.",
        unless={"data.subtask": [None]},
    )
    classes: list[str] | None = setting(
        None,
        "Learn these of the dataset's classes alone, in this order; null takes all.",
        when={"data.subtask": [None]},
    )
    duplicates: Literal["drop", "refuse", "keep"] = setting(
        "drop",
        "Images of train that also stand in val or test, and of val that stand in test: leave them out, end with an "
        "error, or keep them, which reports mark.",
    )
    groups: Literal["report", "drop", "refuse"] = setting(
        "report",
        "The same for other images of one picture, video or sequence, as file names tell; report only marks them.",
    )
    prepare_workers: int | Auto = setting("auto", "Processes that prepare the data.", neutral=True)

    @field_validator("subtask", mode="before")
    @classmethod
    def _short_name(cls, subtask: Any) -> Any:
        return subtask.removesuffix(SUBTASK_SUFFIX) if isinstance(subtask, str) else subtask

    @field_validator("subtasks", mode="before")
    @classmethod
    def _short_names(cls, subtasks: Any) -> Any:
        if not isinstance(subtasks, dict):
            return subtasks
        return {
            name.removesuffix(SUBTASK_SUFFIX): classes for name, classes in subtasks.items() if isinstance(name, str)
        }

    @field_validator("prepare_workers")
    @classmethod
    def _check_workers(cls, workers: int | str) -> int | str:
        if isinstance(workers, int) and workers < 1:
            raise ValueError("expected auto or at least 1")
        return workers

    @field_validator("image_size")
    @classmethod
    def _check_size(cls, size: int) -> int:
        if size % SIZE_STEP:
            raise ValueError(
                f"expected a multiple of {SIZE_STEP}, which the detectors' coarsest features need; it is {size}"
            )
        return size

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, classes: list[str] | None) -> list[str] | None:
        if classes is not None and (not classes or len(set(classes)) < len(classes)):
            raise ValueError("expected at least one class, each once")
        return classes

    @model_validator(mode="after")
    def _check_subtask(self) -> DetectionDataSection:
        if self.subtask is not None and self.subtask not in self.subtasks:
            raise ValueError(f"there is no sub-task {self.subtask!r}; data.subtasks has {', '.join(self.subtasks)}")
        return self


class DetectionAugmentationSection(Section):
    """What happens to a training image, drawn anew each epoch from the seed."""

    flip: float = setting(0.5, "Probability of a mirrored image.", ge=0, le=1)
    scale: list[float] = setting(
        lambda: [0.5, 1.5], "Smallest and largest factor by which a picture is scaled.", min_length=2, max_length=2
    )
    shift: float = setting(0.1, "Largest shift in each direction, as a share of the image.", ge=0, lt=1)
    brightness: float = setting(0.3, "Largest change of brightness, as a share.", ge=0, lt=1)
    contrast: float = setting(0.3, "Largest change of contrast about the mean, as a share.", ge=0, lt=1)
    saturation: float = setting(0.5, "Largest change of saturation, as a share.", ge=0, le=1)
    hue: float = setting(0.015, "Largest change of hue, as a share of the colour circle.", ge=0, le=0.5)
    mosaic: float = setting(
        0.5, "Probability that four images become one (Bochkovskiy et al. 2020, arXiv:2004.10934).", ge=0, le=1
    )
    min_visible: float = setting(
        0.2, "A box of which less is left inside the picture, as a share of its area, is left out.", ge=0, lt=1
    )

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, scale: list[float]) -> list[float]:
        if not 0 < scale[0] <= scale[1]:
            raise ValueError("expected two positive numbers, the smaller one first")
        return scale


class DetectionModelSection(Section):
    """The detector."""

    name: Literal["fasterrcnn_resnet50", "fasterrcnn_mobilenet", "retinanet_resnet18", "rtdetr_v2"] = setting(
        "fasterrcnn_resnet50",
        "fasterrcnn_resnet50 is the strong one, fasterrcnn_mobilenet and retinanet_resnet18 are light; rtdetr_v2 is a "
        "transformer and needs the package transformers.",
    )
    pretrained: Literal["coco", "imagenet", "none"] = setting(
        "coco",
        "Published weights to start from, fetched once: the whole detector's (coco) or its trunk's (imagenet).",
        when={"model.init_from": [None]},
    )
    init_from: str | None = setting(None, "A file of weights (.pth, .safetensors) to start from.", content=True)
    norm: Literal["batch", "frozen"] = setting(
        "frozen",
        "Batch norm learns (batch), or keeps what it starts from (frozen), which asks for weights to start from.",
    )
    anchor_sizes: list[float] = setting(
        lambda: [32.0, 64.0, 128.0, 256.0, 512.0],
        "Side of the anchor boxes on each level of features, fine to coarse, in pixels of data.image_size; "
        "fasterrcnn_mobilenet has all of them on each level.",
        min_length=5,
        max_length=5,
        when={"model.name": TORCHVISION},
    )
    anchor_ratios: list[float] = setting(
        lambda: [0.5, 1.0, 2.0],
        "Height over width of the anchor boxes.",
        min_length=1,
        when={"model.name": TORCHVISION},
    )
    proposals: int = setting(
        1000, "Regions that the second stage looks at, of each image.", ge=1, when={"model.name": FASTER_RCNN}
    )
    samples: int = setting(
        512, "Regions that the second stage learns from, of each image.", ge=4, when={"model.name": FASTER_RCNN}
    )
    queries: int = setting(300, "Objects that the transformer looks for.", ge=1, when={"model.name": RTDETR})
    denoising: int = setting(
        100,
        "Noisy copies of true boxes that the transformer also learns from; 0 for none.",
        ge=0,
        when={"model.name": RTDETR},
    )
    nms_iou: float = setting(
        0.5,
        "Of two boxes of one class that overlap more, the less sure one is left out.",
        gt=0,
        le=1,
        when={"model.name": TORCHVISION},
    )
    min_score: float = setting(0.01, "Less sure boxes are left out, in scoring too.", ge=0, lt=1)
    max_detections: int = setting(100, "Boxes kept of each image, the surest.", ge=1)

    @field_validator("anchor_sizes", "anchor_ratios")
    @classmethod
    def _check_anchors(cls, numbers: list[float]) -> list[float]:
        if any(not number > 0 for number in numbers):
            raise ValueError("expected positive numbers")
        return numbers

    @model_validator(mode="after")
    def _check_start(self) -> DetectionModelSection:
        from_nothing = self.pretrained == "none" and self.init_from is None
        if self.norm == "frozen" and from_nothing:
            raise ValueError(
                "norm frozen keeps what it starts from, and pretrained none gives it nothing; set model.norm=batch"
            )
        if self.name == "rtdetr_v2" and self.pretrained == "imagenet" and self.init_from is None:
            raise ValueError("there are no published imagenet weights for rtdetr_v2; set model.pretrained=coco or none")
        if self.name == "retinanet_resnet18" and self.pretrained == "coco" and self.init_from is None:
            raise ValueError(
                "there are no published coco weights of retinanet_resnet18; set model.pretrained=imagenet or none"
            )
        return self


class DetectionTrainingSection(TrainingSection):
    """How the engine trains."""

    epochs: int = setting(30, "Passes over the training split.", ge=1)
    batch_size: int = setting(16, "Effective batch: images that one optimizer step sees.", ge=1)
    learning_rate: float = setting(1e-4, "AdamW's learning rate of all but the trunk.", gt=0)
    trunk_learning_rate: float = setting(1e-5, "The trunk's.", gt=0)
    weight_decay: float = setting(1e-4, "AdamW's decoupled weight decay.", ge=0)
    schedule: Literal["constant", "plateau", "cosine", "linear", "step"] = setting(
        "cosine", "How the learning rate falls after warm-up."
    )
    warmup_steps: int = setting(200, "Optimizer steps over which the learning rate rises linearly from zero.", ge=0)
    clip_grad_norm: float | None = setting(
        10.0, "Largest norm of the whole gradient; null switches clipping off.", gt=0
    )


class DetectionSelectionSection(SelectionSection):
    """Which checkpoint is the best."""

    metric: str = setting("val/map", "A validation metric; test metrics are refused.", pattern=r"^val/.+")
    mode: Literal["min", "max"] = setting("max", "Whether lower or higher is better.")


class DetectionEvaluationSection(EvaluationSection):
    """Validation, and how detections are told apart from mistakes."""

    confidence: float = setting(
        0.5,
        "How sure a box must be to count in precision, recall and the confusion matrix, and to be drawn.",
        gt=0,
        lt=1,
    )
    iou: float = setting(
        0.5, "Overlap with a true box from which a box counts as found, in the same three.", gt=0, lt=1
    )


class DetectionConfig(RunConfig):
    """Everything that a detection run reads."""

    task: Literal["detection"] = setting("detection", "The task that this configuration is for.")
    data: DetectionDataSection = setting(DetectionDataSection, "Which images and boxes.")
    augmentation: DetectionAugmentationSection = setting(
        DetectionAugmentationSection, "What happens to training images."
    )
    model: DetectionModelSection = setting(DetectionModelSection, "The detector.")
    training: DetectionTrainingSection = setting(DetectionTrainingSection, "How to train.")
    selection: DetectionSelectionSection = setting(DetectionSelectionSection, "Which checkpoint is the best.")
    evaluation: DetectionEvaluationSection = setting(
        DetectionEvaluationSection, "When to validate, and what is scored."
    )
