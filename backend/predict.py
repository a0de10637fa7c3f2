"""From raw input to a result in physical units: which function does it for a model's task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from backend.artifact import Artifact, open_artifact
from backend.errors import UsageError


def predict(model: Path, inputs: Sequence[Path], out: Path) -> Path:
    """Apply a model to raw files, write the result in the field's own format into the folder ``out``, say where.

    Args:
        model: a run folder (its best checkpoint) or a checkpoint.
        inputs: raw files, or folders of them.
        out: folder for the result; made when it is not there.

    Raises:
        UsageError: the model is of a task that has no prediction.
        BadDataError: the model is damaged, or the inputs are not what it needs.
        DiskError: something cannot be read or written.
    """
    artifact = open_artifact(model)
    task = artifact.state["task"]
    if task not in _PREDICTORS:
        raise UsageError(f"{model}: a model of the task {task}, but predict applies {', '.join(_PREDICTORS)} models")
    return _PREDICTORS[task](artifact, inputs, out)


def _convlstm(artifact: Artifact, inputs: Sequence[Path], out: Path) -> Path:
    from backend.nowcast import write_nowcast

    return write_nowcast(artifact, inputs, out)


def _landmarks(artifact: Artifact, inputs: Sequence[Path], out: Path) -> Path:
    from backend.points import write_points

    return write_points(artifact, inputs, out)


def _detection(artifact: Artifact, inputs: Sequence[Path], out: Path) -> Path:
    from backend.boxes import write_detections

    return write_detections(artifact, inputs, out)


_PREDICTORS = {"convlstm": _convlstm, "landmarks": _landmarks, "detection": _detection}
