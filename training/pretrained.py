"""A start from published weights: ImageNet's in a landmark network's or a detector's trunk, COCO's in a detector."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from backend.weights import read_state_dict
from training.fetching.archive import Tellers
from training.fetching.pretrained import IMAGENET_RESNET18, SPARE, pretrained_file

if TYPE_CHECKING:
    from torch import nn

    from backend.models.landmarks import LandmarkNet

WITHOUT = "--set model.pretrained=none, or model.init_from=FILE with weights that you have"
WITHOUT_DETECTOR = (
    "--set model.pretrained=none --set model.norm=batch, or model.init_from=FILE with weights that you have"
)


def load_pretrained(net: LandmarkNet, tell: Tellers, other: Path | None = None, url: str = IMAGENET_RESNET18) -> Path:
    """Put the ImageNet weights into the trunk of ``net``; they are fetched where they are not here yet.

    Args:
        net: whose trunk it is.
        tell: who is told of a download and may stop it.
        other: a folder for the file where torch.hub's cannot be written; None: the machine's temporary one.
        url: where they are published.

    Returns:
        The file that they were read from.

    Raises:
        SourceUnavailableError: they cannot be fetched; the line says how to go on without.
        BadDataError, ConfigError, DiskError: the file, its content, or its place is not as it has to be.
    """
    from backend.models.landmarks_weights import start_trunk

    path = pretrained_file(url, other or SPARE, tell, WITHOUT)
    start_trunk(net, read_state_dict(path), path)
    return path


def load_pretrained_detector(net: nn.Module, tell: Tellers, url: str, other: Path | None = None) -> Path:
    """Put published weights of torchvision into the detector ``net``; they are fetched where they are not here yet.

    Of a whole detector the head's rows are taken over of those classes that ``net`` knows by name; a classifier's go
    into the trunk.

    Args:
        net: as `build_detector` makes it, with the names of its classes.
        tell: who is told of a download and may stop it, and of what was taken over.
        url: where they are published: `DETECTOR_WEIGHTS`.
        other: a folder for the file where torch.hub's cannot be written; None: the machine's temporary one.

    Returns:
        The file that they were read from.

    Raises:
        SourceUnavailableError: they cannot be fetched; the line says how to go on without.
        BadDataError, ConfigError, DiskError: the file, its content, or its place is not as it has to be.
    """
    from backend.models.detector_weights import start_from

    path = pretrained_file(url, other or SPARE, tell, WITHOUT_DETECTOR)
    tell.say(f"starting from {path.name}: {start_from(net, read_state_dict(path), path)}")
    return path
