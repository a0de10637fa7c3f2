"""The tasks by name. A task's modules are imported when they are asked for, never before."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from backend.errors import UsageError

if TYPE_CHECKING:
    from training.schemas.shared import RunConfig
    from training.tasks.protocol import Task


@dataclass(frozen=True)
class Places:
    """Where the parts of a task are, each as ``module:class``."""

    task: str
    config: str  # its settings, in a module without torch: they are shown and checked in an instant
    data_files: tuple[str, ...] = ()  # endings of files that may stand for a dataset's folder, as they name it


TASKS: dict[str, Places] = {
    "convlstm": Places("training.tasks.convlstm:ConvLSTMTask", "training.schemas.convlstm:ConvLSTMConfig"),
    "landmarks": Places("training.tasks.landmarks:LandmarkTask", "training.schemas.landmarks:LandmarkConfig"),
    "detection": Places(
        "training.tasks.detection:DetectionTask", "training.schemas.detection:DetectionConfig", (".yaml", ".yml")
    ),
}
DEFAULT_TASK = "convlstm"


def task_class(name: str) -> type[Task]:
    """The class of task ``name``. Raises UsageError naming the tasks there are."""
    found: type[Task] = _imported(_places(name).task)
    return found


def config_class(name: str) -> type[RunConfig]:
    """The settings of task ``name``, without importing the task. Raises UsageError naming the tasks there are."""
    found: type[RunConfig] = _imported(_places(name).config)
    return found


def _places(name: str) -> Places:
    if name not in TASKS:
        near = get_close_matches(name, TASKS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"there is no task {name!r}; {hint}tasks: {', '.join(TASKS)}")
    return TASKS[name]


def _imported(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)
