"""Limits of control groups, which the usual questions to the system do not show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from training.machine import available_cpus, available_memory, free_shared_memory, memory_limit, total_memory


@pytest.mark.parametrize(
    ("text", "cpus"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), (None, None)]
)
def test_cpus(tmp_path: Path, text: str | None, cpus: int | None) -> None:
    if text is not None:
        (tmp_path / "cpu.max").write_text(text)
    assert available_cpus(tmp_path) == (cpus or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(("quota", "cpus"), [("50000", 1), ("-1", None)])
def test_cpus_of_version_1(tmp_path: Path, quota: str, cpus: int | None) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert available_cpus(tmp_path) == (cpus or len(os.sched_getaffinity(0)))


def test_memory(tmp_path: Path) -> None:
    free = available_memory(tmp_path)
    assert free > 2**20
    (tmp_path / "memory.max").write_text(str(300 * 2**20))
    (tmp_path / "memory.current").write_text(str(100 * 2**20))
    assert available_memory(tmp_path) == min(200 * 2**20, free)
    (tmp_path / "memory.max").write_text("max")
    assert available_memory(tmp_path) > 200 * 2**20


def test_memory_of_version_1_without_pages_that_can_be_dropped(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    (memory / "memory.limit_in_bytes").write_text(str(300 * 2**20))
    (memory / "memory.usage_in_bytes").write_text(str(250 * 2**20))
    assert available_memory(tmp_path) == 50 * 2**20
    (memory / "memory.stat").write_text(f"cache 1\ninactive_file 1\ntotal_inactive_file {150 * 2**20}\n")
    assert available_memory(tmp_path) == 200 * 2**20
    assert memory_limit(tmp_path) == total_memory(tmp_path) == 300 * 2**20
    (memory / "memory.limit_in_bytes").write_text(str(2**63 - 4096))
    assert memory_limit(tmp_path) is None
    assert total_memory(tmp_path) > 300 * 2**20


def test_shared_memory(tmp_path: Path) -> None:
    assert free_shared_memory(tmp_path / "gone") is None
    assert (free_shared_memory(tmp_path) or 0) > 0
