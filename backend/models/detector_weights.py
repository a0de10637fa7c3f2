"""Weights for a detector out of files: this worker's own, torchvision's detectors, ImageNet classifiers.

A head has rows for its classes. Where those of the file are known by name, a class of the same name takes its row over;
the others begin anew, as the model's own initialisation left them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from backend.errors import ConfigError
from backend.models.detector_fasterrcnn import FasterRCNN
from backend.models.detector_parts import Detector
from backend.models.detector_retinanet import RetinaNet
from backend.weights import load_matching

if TYPE_CHECKING:
    from backend.models.detector_rtdetr import RTDetr

SAME_THING = {
    "pedestrian": "person",
    "pedestrians": "person",
    "people": "person",
    "persons": "person",
    "cars": "car",
    "trucks": "truck",
    "buses": "bus",
    "motorcycles": "motorcycle",
    "motorbike": "motorcycle",
    "motor": "motorcycle",
    "bicycles": "bicycle",
    "bike": "bicycle",
}
"""Other words of street datasets for classes of COCO."""

_COUNTER = "num_batches_tracked"  # which files of frozen batch norms lack, and nothing here reads
_OLD_LAYER = re.compile(r"^(.*(?:inner_blocks|layer_blocks)\.\d+)\.(weight|bias)$")  # of a pyramid without norms
_OLD_CONV = re.compile(r"^(rpn\.head\.conv)\.(weight|bias)$")
_CLASSIFIERS = {"conv1.weight": "fc.", "features.0.0.weight": "classifier."}  # a name by which to know one; its end
_CLASSIFIER_EPS = 1e-3  # of MobileNetV3's batch norms


@dataclass(frozen=True)
class _Rows:
    """One of the head's tensors: ``per_class`` rows for each class, as often as there are ``blocks``."""

    name: str
    per_class: int = 1
    blocks: int = 1


def start_from(
    model: nn.Module, weights: Mapping[str, Tensor], path: Path | str, classes: Sequence[str] | None = None
) -> str:
    """Put ``weights``, read from ``path``, into ``model``, and say what they were.

    They may be a detector's of the same kind, of this worker or of torchvision, or those of an ImageNet classifier for
    the trunk. Another head with as many classes is taken over as it is, unless both sides know the names.

    Args:
        model: as `build_detector` makes it.
        weights: by name.
        path: for errors.
        classes: names of the file's classes, in order; None where they are not known. A head of torchvision's 91
            classes is known to be COCO's.

    Raises:
        ConfigError: they are of another model; the model is left as it was.
    """
    if not isinstance(model, FasterRCNN | RetinaNet):
        from backend.models import detector_rtdetr_weights

        return detector_rtdetr_weights.start_from(cast("RTDetr", model), weights, path)
    if _is_classifier(weights):
        start_trunk(model, weights, path)
        return "an ImageNet classifier, for the trunk"
    net = cast(Detector, model)
    renamed = {_renamed(name): value for name, value in weights.items()}
    rows = _rows(net)
    found = _class_count(net, renamed, rows, path)
    names = _names(net, found, classes)
    if found == net.classes and (not names or not net.class_names or list(names) == list(net.class_names)):
        load_matching(net, _counters(net) | renamed, path)
        return f"a detector of {found} classes, its head too"
    heads, taken = _heads(net, renamed, rows, names)
    load_matching(net, _counters(net) | renamed | heads, path)
    known = f"the head's rows of {', '.join(taken)} with it" if taken else "none of its classes is known here"
    return f"a detector of other classes; {known}"


def start_trunk(model: nn.Module, weights: Mapping[str, Tensor], path: Path | str) -> None:
    """Put an ImageNet classifier's weights, read from ``path``, into the trunk; its last layers have no place there.

    Raises:
        ConfigError: they are of another network.
    """
    net = cast(Detector, model)
    trunk = net.backbone.body
    assert isinstance(trunk, nn.Module)
    end = next((end for sign, end in _CLASSIFIERS.items() if sign in weights), "")
    kept = {
        name.removeprefix("features."): value for name, value in weights.items() if not (end and name.startswith(end))
    }
    if end == "classifier.":
        kept = {name: _other_eps(name, value) for name, value in kept.items()}
    load_matching(trunk, _counters(trunk) | kept, path)


def coco_names() -> list[str]:
    """The classes of torchvision's published detectors, in the order of their heads, without background."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_V2_Weights

    return list(FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1.meta["categories"][1:])


def _is_classifier(weights: Mapping[str, Tensor]) -> bool:
    return any(sign in weights for sign in _CLASSIFIERS)


def _other_eps(name: str, value: Tensor) -> Tensor:
    """What a batch norm's variance must be for the detector's smaller epsilon to divide by the same."""
    return value + (_CLASSIFIER_EPS - nn.BatchNorm2d(1).eps) if name.endswith("running_var") else value


def _renamed(name: str) -> str:
    """torchvision's names of today for those in its older files."""
    if match := _OLD_LAYER.match(name):
        return f"{match[1]}.0.{match[2]}"
    if match := _OLD_CONV.match(name):
        return f"{match[1]}.0.0.{match[2]}"
    return name


def _counters(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if name.endswith(_COUNTER)}


def _rows(net: Detector) -> list[_Rows]:
    if isinstance(net, RetinaNet):
        prefix = "head.classification_head.cls_logits"
        return [_Rows(f"{prefix}.{end}", blocks=net.per_position) for end in ("weight", "bias")]
    prefix = "roi_heads.box_predictor"
    return [
        _Rows(f"{prefix}.{layer}.{end}", per_class)
        for layer, per_class in (("cls_score", 1), ("bbox_pred", 4))
        for end in ("weight", "bias")
    ]


def _background(net: Detector) -> int:
    """Rows of the head that stand before those of the classes."""
    return 1 if isinstance(net, FasterRCNN) else 0


def _class_count(net: Detector, weights: Mapping[str, Tensor], rows: Sequence[_Rows], path: Path | str) -> int:
    """How many classes the file's head has.

    Raises:
        ConfigError: it has no such head, or its tensors do not agree about it.
    """
    if missing := [part.name for part in rows if part.name not in weights]:
        raise ConfigError(
            f"{path}: its weights are of another model: without {missing[0]}, which every {type(net).__name__} has. "
            "Set model.name to the detector that they are of."
        )
    counts = {len(weights[part.name]) / (part.per_class * part.blocks) for part in rows}
    count = int(min(counts)) - _background(net)
    if len(counts) > 1 or count < 1 or not min(counts).is_integer():
        raise ConfigError(
            f"{path}: its weights are of another model: {rows[0].name} has {len(weights[rows[0].name])} rows, which "
            f"are no head of {type(net).__name__} with these anchors. Set the model's keys to those of the weights."
        )
    return count


def _names(net: Detector, found: int, classes: Sequence[str] | None) -> list[str]:
    """Names of the file's classes, where they are known and are of use."""
    if classes is not None:
        return list(classes)
    coco = coco_names()
    return coco if isinstance(net, FasterRCNN) and found == len(coco) else []


def _heads(
    net: Detector, weights: Mapping[str, Tensor], rows: Sequence[_Rows], names: Sequence[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """The head's tensors with the rows of classes that both sides have, and the names of those."""
    places = {_plain(name): place for place, name in reversed(list(enumerate(names)))}
    pairs = [(own, places[_plain(name)]) for own, name in enumerate(net.class_names) if _plain(name) in places]
    before, state = _background(net), net.state_dict()
    made = {}
    for part in rows:
        shape = (part.blocks, -1, part.per_class)
        ours, theirs = (tensor[part.name].unflatten(0, shape).clone() for tensor in (state, weights))
        if ours.shape[3:] != theirs.shape[3:]:
            continue  # `load_matching` will tell
        ours[:, :before] = theirs[:, :before]
        for own, other in pairs:
            ours[:, before + own] = theirs[:, before + other]
        made[part.name] = ours.flatten(0, 2)
    return made, [net.class_names[own] for own, _ in pairs]


def _plain(name: str) -> str:
    """A class's name as it is compared."""
    words = re.sub(r"[\s_-]+", " ", name).strip().lower()
    return SAME_THING.get(words, words)
