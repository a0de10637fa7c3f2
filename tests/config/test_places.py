"""Where a task's settings are: the ones that the task itself reads, found without importing the task."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import TINY
from training.tasks import TASKS, config_class, task_class

ROOT = Path(__file__).parents[2]
SHIPPED = list(TASKS)  # before tests add theirs


@pytest.mark.parametrize("task", [*SHIPPED, "tiny"])
def test_the_settings_are_those_of_the_task(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "tiny", TINY)
    assert task_class(task).name == task
    assert task_class(task).config_type is config_class(task)


@pytest.mark.parametrize("task", SHIPPED)
def test_settings_are_shown_without_importing_torch_and_the_like(task: str, tmp_path: Path) -> None:
    code = (
        "import sys; from training.cli import main; "
        f"print(main(['--task', {task!r}, '--print-config', '--datasets', {str(tmp_path)!r}]), "
        f"main(['config', 'schema', '--task', {task!r}]), sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.startswith("0 0 ")
    assert f"task: {task}" in done.stdout
    for heavy in ("torch", "numpy", "pandas", "matplotlib", "requests", "training.tasks.protocol"):
        assert f"'{heavy}'" not in done.stderr
