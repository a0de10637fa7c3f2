"""Limits of control groups, which the usual questions to the system do not show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from training.machine import available_cpus, available_memory


@pytest.mark.parametrize(
    ("text", "cpus"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), (None, None)]
)
def test_cpus(tmp_path: Path, text: str | None, cpus: int | None) -> None:
    if text is not None:
        (tmp_path / "cpu.max").write_text(text)
    assert available_cpus(tmp_path) == (cpus or len(os.sched_getaffinity(0)))


def test_memory(tmp_path: Path) -> None:
    free = available_memory(tmp_path)
    assert free > 2**20
    (tmp_path / "memory.max").write_text(str(300 * 2**20))
    (tmp_path / "memory.current").write_text(str(100 * 2**20))
    assert available_memory(tmp_path) == min(200 * 2**20, free)
    (tmp_path / "memory.max").write_text("max")
    assert available_memory(tmp_path) > 200 * 2**20
