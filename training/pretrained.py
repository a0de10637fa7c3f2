"""A landmark network's start from ImageNet: the published ResNet-18 put into its trunk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from backend.weights import read_state_dict
from training.fetching.archive import Tellers
from training.fetching.pretrained import IMAGENET_RESNET18, SPARE, pretrained_file

if TYPE_CHECKING:
    from backend.models.landmarks import LandmarkNet

WITHOUT = "--set model.pretrained=none, or model.init_from=FILE with weights that you have"


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
