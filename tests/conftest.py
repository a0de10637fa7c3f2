"""What all tests share."""

from __future__ import annotations

import os

import pytest
import torch

from tests.pictures import render_nothing

torch.set_num_threads(1)  # tests run beside each other, and sums come out the same


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the worker's variables of the shell that it is started from."""
    for name in list(os.environ):
        if name == "TASK" or name.startswith("TRAIN_WORKER_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are not rendered, but in `tests/reporting` and where a test file has a fixture of this name."""
    render_nothing(monkeypatch.setattr)
