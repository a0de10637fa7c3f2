"""The tasks by name. A task's module is imported when it is asked for, never before."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from typing import TYPE_CHECKING

from backend.errors import UsageError

if TYPE_CHECKING:
    from training.tasks.protocol import Task

TASKS: dict[str, str] = {
    "convlstm": "training.tasks.convlstm:ConvLSTMTask",
}
DEFAULT_TASK = "convlstm"


def task_class(name: str) -> type[Task]:
    """The class of task ``name``. Raises UsageError naming the tasks there are."""
    if name not in TASKS:
        near = get_close_matches(name, TASKS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"there is no task {name!r}; {hint}tasks: {', '.join(TASKS)}")
    module, _, attribute = TASKS[name].partition(":")
    found: type[Task] = getattr(importlib.import_module(module), attribute)
    return found
