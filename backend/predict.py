"""From raw input to a result in physical units: which function does it for a model's task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from backend.artifact import Artifact, open_artifact
from backend.errors import UsageError


def _to_nobody(line: str) -> None:
    return


@dataclass(frozen=True)
class Choices:
    """What a prediction may be asked for beside its inputs."""

    confidence: float | None = None  # how sure a box must be to be drawn and labelled; None: as the run's settings say
    tell: Callable[[str], None] = _to_nobody  # hears a line on what was found

    def refuse_confidence(self, task: str) -> None:
        """Raises UsageError where a confidence was asked of results that have none."""
        if self.confidence is not None:
            raise UsageError(f"--confidence: what a model of the task {task} gives has no confidence; leave it out")


def predict(model: Path, inputs: Sequence[Path], out: Path, choices: Choices | None = None) -> Path:
    """Apply a model to raw files, write the result in the field's own format into the folder ``out``, say where.

    Args:
        model: a run folder (its best checkpoint) or a checkpoint.
        inputs: raw files, or folders of them.
        out: folder for the result; made when it is not there.
        choices: what else is asked for.

    Raises:
        UsageError: the model is of a task that has no prediction, or none with these choices.
        BadDataError: the model is damaged, or the inputs are not what it needs.
        DiskError: something cannot be read or written.
    """
    artifact = open_artifact(model)
    task = artifact.state["task"]
    if task not in _PREDICTORS:
        raise UsageError(f"{model}: a model of the task {task}, but predict applies {', '.join(_PREDICTORS)} models")
    return _PREDICTORS[task](artifact, inputs, out, choices or Choices())


def _convlstm(artifact: Artifact, inputs: Sequence[Path], out: Path, choices: Choices) -> Path:
    from backend.nowcast import write_nowcast

    choices.refuse_confidence("convlstm")
    return write_nowcast(artifact, inputs, out)


def _landmarks(artifact: Artifact, inputs: Sequence[Path], out: Path, choices: Choices) -> Path:
    from backend.points import write_points

    choices.refuse_confidence("landmarks")
    return write_points(artifact, inputs, out)


def _detection(artifact: Artifact, inputs: Sequence[Path], out: Path, choices: Choices) -> Path:
    from backend.boxes import write_detections

    return write_detections(artifact, inputs, out, choices.confidence, choices.tell)


_PREDICTORS = {"convlstm": _convlstm, "landmarks": _landmarks, "detection": _detection}
