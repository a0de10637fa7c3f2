"""The small schema as a task, and presets for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from training.config import layers
from training.tasks import TASKS, Places


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setitem(TASKS, "small", Places("nowhere:SmallTask", "tests.config.small:SmallConfig"))
    monkeypatch.chdir(tmp_path)
    yield


@pytest.fixture
def presets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(layers, "PRESETS", tmp_path / "configs")
    folder = tmp_path / "configs" / "small"
    folder.mkdir(parents=True)
    (folder / "default.yaml").write_text("training: {epochs: 7}\n")
    (folder / "quick.yaml").write_text("training: {epochs: 1, lr_patience: 9}\n")
    return folder
