"""Weights for a landmark model out of other programs' files: the program it succeeds, and ImageNet classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from backend.errors import ConfigError
from backend.models.landmarks import LandmarkNet
from backend.weights import load_matching

_OLD_TRUNK = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_OLD_ATTENTION = {"conv1": "squeeze", "bn1": "norm", "conv_h": "rows", "conv_w": "columns"}
_COUNTER = "num_batches_tracked"  # which older files lack, and nothing here reads


def start_from(model: LandmarkNet, weights: Mapping[str, Tensor], path: Path | str) -> str:
    """Put ``weights``, read from ``path``, into ``model``, and say what they were.

    They may be a landmark model's of this worker or of the program that it succeeds, or those of a ResNet-18
    classifier under torchvision's names, which go into the trunk.

    Raises:
        ConfigError: they are of another model; the model is left as it was.
    """
    if "conv1.weight" in weights and "layer4.1.conv2.weight" in weights:
        start_trunk(model, weights, path)
        return "a ResNet-18 classifier, for the trunk"
    if any(name.startswith("backbone_conv.") for name in weights):
        load_matching(model, renamed(weights, path), path)
        return "a landmark model of the earlier program"
    load_matching(model, weights, path)
    return "a landmark model"


def start_trunk(model: LandmarkNet, weights: Mapping[str, Tensor], path: Path | str) -> None:
    """Put a ResNet-18 classifier's weights into the trunk; its last layer has no place there.

    Raises:
        ConfigError: they are of another network.
    """
    kept = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    counters = {name: value for name, value in model.trunk.state_dict().items() if name.endswith(_COUNTER)}
    load_matching(model.trunk, counters | kept, path)


def renamed(weights: Mapping[str, Tensor], path: Path | str) -> dict[str, Tensor]:
    """The earlier program's weights, from ``path``, under the names that `LandmarkNet` has for them.

    Raises:
        ConfigError: a name that its models never had.
    """
    return {_renamed(name, path): value for name, value in weights.items()}


def _renamed(name: str, path: Path | str) -> str:
    part, _, rest = name.partition(".")
    first, _, tail = rest.partition(".")
    if part == "backbone_conv" and first in _OLD_TRUNK:
        return f"trunk.{_OLD_TRUNK[first]}.{tail}"
    if part == "coord_attention" and first in _OLD_ATTENTION:
        return f"attention.{_OLD_ATTENTION[first]}.{tail}"
    if part == "head" and first.isdigit() and int(first) > 0:
        return f"head.{int(first) - 1}.{tail}"  # its first layer only flattened
    raise ConfigError(f"{path}: {name} is no weight of the earlier landmark models (ResNet-18 with a linear head).")
