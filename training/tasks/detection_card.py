"""What a detection run's model card says: from the configuration and the dataset's facts, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from training.tasks.card import Card, Reference
from training.tasks.convlstm_card import GROUP_NORM
from training.tasks.detection_papers import (
    BATCH_NORM,
    COCO,
    DENOISING,
    DETR,
    FASTER_RCNN,
    GIOU,
    MOBILENET,
    MOSAIC,
    PYRAMID,
    RETINANET,
    RTDETR,
    RTDETR_V2,
    STRONG_HEADS,
    VARIFOCAL,
)
from training.tasks.landmarks_card import IMAGENET, RESNET

if TYPE_CHECKING:
    from training.schemas.detection import (
        DetectionAugmentationSection,
        DetectionConfig,
        DetectionEvaluationSection,
        DetectionModelSection,
        DetectionTrainingSection,
    )

Told = tuple[str, list[Reference]]

_LIMITS = (
    "It knows its classes alone: whatever else stands in the street is not seen, or taken for one of them.",
    "It holds for images like its training images: test it first on other cameras, places, weather, and at night.",
    "Small, far and half hidden objects are missed more often than the mean says; the scores by size tell how often.",
    "Its scores are no probabilities: where a threshold decides something, choose it on data of your own.",
    "It looks at one image at a time: it does not follow anybody; one person in two images is two.",
    "It is not to be used to identify people or to follow them.",
    "Nobody's safety may rest on it alone: what it misses, it misses silently.",
)


def detection_card(config: DetectionConfig, facts: Mapping[str, Any]) -> Card:
    """The card of a model that was trained with ``config`` on data with these ``facts``."""
    names = [str(name) for name in facts["classes"]]
    parts = [
        _data(config.data.image_size, names),
        _augmentation(config.augmentation),
        _model(config.model),
        _start(config.model),
        _loss(config.model),
        _rates(config.training),
        _scores(config.model, config.evaluation),
    ]
    return Card(
        what=f"It finds objects in images of streets, with a box, a score and a class for each: {_listed(names)}.",
        uses=[
            "Finding and counting objects of its classes in single images, where the scores below are good enough.",
            "Research on object detection, as one model or as a start for training on other images.",
        ],
        limits=_LIMITS,
        method=[sentence for sentence, _ in parts if sentence],
        references=_once(parts),
    )


def _once(parts: Sequence[Told]) -> list[Reference]:
    """Every paper once, in the order of the sentences."""
    return list({paper.key: paper for _, papers in parts for paper in papers}.values())


def _listed(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names) if len(names) <= most else f"{names[0]} to {names[-1]}, {len(names)} classes"


def _data(size: int, names: Sequence[str]) -> Told:
    count = f"{len(names)} class" if len(names) == 1 else f"{len(names)} classes"
    text = f"Images were brought to {size} x {size} pixels, their proportions kept and the rest grey"
    return f"{text}, with boxes of {count}; regions of many objects (crowds) were not learned from.", []


def _augmentation(changes: DetectionAugmentationSection) -> Told:
    low, high = changes.scale
    parts = {
        f"mirrored with probability {changes.flip:g}": changes.flip > 0,
        f"scaled by {low:g} to {high:g}": (low, high) != (1, 1),
        f"shifted by up to {changes.shift:.0%} of the image": changes.shift > 0,
        f"changed in brightness by up to {changes.brightness:.0%}": changes.brightness > 0,
        f"changed in contrast by up to {changes.contrast:.0%}": changes.contrast > 0,
        f"changed in saturation by up to {changes.saturation:.0%}": changes.saturation > 0,
        f"changed in hue by up to {changes.hue:.1%} of the circle": changes.hue > 0,
        f"put together of four with probability {changes.mosaic:g} (mosaic; {MOSAIC.short})": changes.mosaic > 0,
    }
    told = [text for text, done in parts.items() if done]
    if not told:
        return "Training images were used as they are.", []
    cut = f"; boxes of which less than {changes.min_visible:.0%} stayed inside were left out"
    moved = (low, high) != (1, 1) or changes.shift > 0 or changes.mosaic > 0
    return f"Training images were {', '.join(told)}{cut if moved else ''}.", [MOSAIC] if changes.mosaic > 0 else []


def _model(model: DetectionModelSection) -> Told:
    if model.name == "rtdetr_v2":
        text = (
            f"The model was RT-DETRv2 ({RTDETR_V2.short}; {RTDETR.short}), a transformer that gives a set of "
            f"{model.queries} boxes, with a ResNet ({RESNET.short}) as trunk"
        )
        return f"{text}; the {model.max_detections} surest were kept.", [RTDETR_V2, RTDETR, RESNET]
    text, papers = _network(model.name)
    sizes = ", ".join(f"{size:g}" for size in model.anchor_sizes)
    text = (
        f"The model was {text} and its feature pyramid ({PYRAMID.short}), with anchors of {sizes} pixels of its input"
    )
    if model.name.startswith("fasterrcnn"):
        text += f" and {model.proposals:,} regions an image"
    text += f"; of boxes of one class that overlapped by more than {model.nms_iou:g} the surest was kept, and of an "
    return f"{text}image the {model.max_detections} surest.", [*papers, PYRAMID]


def _network(name: str) -> Told:
    if name == "retinanet_resnet18":
        text = (
            f"RetinaNet ({RETINANET.short}), with group normalisation ({GROUP_NORM.short}) in its head, on a ResNet-18"
        )
        return f"{text} ({RESNET.short})", [RETINANET, GROUP_NORM, RESNET]
    text = f"Faster R-CNN ({FASTER_RCNN.short})"
    if name == "fasterrcnn_mobilenet":
        return f"{text} on a MobileNetV3 ({MOBILENET.short})", [FASTER_RCNN, MOBILENET]
    text += f" with the heads of {STRONG_HEADS.short} on a ResNet-50 ({RESNET.short})"
    return text, [FASTER_RCNN, STRONG_HEADS, RESNET]


def _start(model: DetectionModelSection) -> Told:
    papers = []
    if model.init_from is not None:
        text = "It started from given weights"
    elif model.pretrained == "coco":
        text, papers = f"It started from published weights of a detector trained on COCO ({COCO.short})", [COCO]
    elif model.pretrained == "imagenet":
        text, papers = f"Its trunk started from weights trained on ImageNet ({IMAGENET.short})", [IMAGENET]
    else:
        text = "It started from random weights"
    learned = "kept its statistics and weights" if model.norm == "frozen" else "was trained"
    return f"{text}; batch normalisation ({BATCH_NORM.short}) {learned}.", [*papers, BATCH_NORM]


def _loss(model: DetectionModelSection) -> Told:
    if model.name == "rtdetr_v2":
        text = (
            f"Boxes and queries were paired one to one ({DETR.short}); the loss was varifocal loss ({VARIFOCAL.short}) "
            f"of the classes, plus L1 and generalised IoU loss ({GIOU.short}) of the boxes"
        )
        if not model.denoising:
            return f"{text}.", [DETR, VARIFOCAL, GIOU]
        text += f", also of {model.denoising} noisy copies of true boxes ({DENOISING.short})"
        return f"{text}.", [DETR, VARIFOCAL, GIOU, DENOISING]
    if model.name == "retinanet_resnet18":
        text = f"The loss was focal loss ({RETINANET.short}) of the classes plus generalised IoU loss ({GIOU.short})"
        return f"{text} of the boxes.", [RETINANET, GIOU]
    text = (
        f"The loss was that of both stages ({FASTER_RCNN.short}): cross-entropy and smooth L1 of sampled anchors, and "
        f"of {model.samples:,} sampled regions an image"
    )
    return f"{text}.", [FASTER_RCNN]


def _rates(training: DetectionTrainingSection) -> Told:
    if training.trunk_learning_rate == training.learning_rate:
        return "", []
    return f"The trunk had a learning rate of {training.trunk_learning_rate:g}.", []


def _scores(model: DetectionModelSection, evaluation: DetectionEvaluationSection) -> Told:
    text = (
        f"Average precision is COCO's ({COCO.short}): the mean over overlaps (intersection over union) from 0.5 to "
        f"0.95 and over classes, of boxes with a score of at least {model.min_score:g}; precision, recall and F1 count "
        f"boxes with a score of at least {evaluation.confidence:g} and, as found, overlaps of at least "
        f"{evaluation.iou:g}"
    )
    return f"{text}.", [COCO]
