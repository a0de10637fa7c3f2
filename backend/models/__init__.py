"""The architectures, and how a checkpoint's config becomes one of them; training and serving build alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from backend.errors import BadDataError


def build(task: str, config: Mapping[str, Any], facts: Mapping[str, Any]) -> nn.Module:
    """The untrained network of ``task`` for a resolved config and the dataset's facts.

    Raises:
        BadDataError: a checkpoint of a task that this version does not know.
    """
    if task not in _BUILDERS:
        raise BadDataError(f"no architecture for the task {task!r}; this version knows {', '.join(_BUILDERS)}")
    return _BUILDERS[task](config, facts)


def _convlstm(config: Mapping[str, Any], facts: Mapping[str, Any]) -> nn.Module:
    from backend.models.convlstm import ConvLSTMNowcaster

    data, model = config["data"], config["model"]
    return ConvLSTMNowcaster(
        input_steps=data["input_steps"],
        prediction_steps=data["prediction_steps"],
        image_size=tuple(facts["image_size"]),
        hidden_dims=tuple(model["hidden_dims"]),
        kernel_size=model["kernel_size"],
        norm=model["norm"],
        gradient_checkpointing=model["gradient_checkpointing"],
    )


def _landmarks(config: Mapping[str, Any], facts: Mapping[str, Any]) -> nn.Module:
    from backend.models.landmarks import LandmarkNet
    from backend.preprocessing.landmark_set import LandmarkSet

    model, points = config["model"], LandmarkSet.from_json(facts["landmark_set"])
    return LandmarkNet(
        points=len(points),
        coordinate_attention=model["coordinate_attention"],
        head=model["head"],
        hidden_dim=model["hidden_dim"],
        dropout=model["dropout"],
        mirrored_order=points.mirrored_order() if points.mirrors else None,
    )


def _detection(config: Mapping[str, Any], facts: Mapping[str, Any]) -> nn.Module:
    from backend.models.detector import build_detector

    return build_detector(config["model"], facts["classes"], facts["image_size"])


_BUILDERS = {"convlstm": _convlstm, "landmarks": _landmarks, "detection": _detection}
