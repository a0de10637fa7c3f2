"""What all tests share."""

from __future__ import annotations

import os

import pytest
import torch

torch.set_num_threads(1)  # tests run beside each other, and sums come out the same


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the worker's variables of the shell that it is started from."""
    for name in list(os.environ):
        if name == "TASK" or name.startswith("TRAIN_WORKER_"):
            monkeypatch.delenv(name)
