"""Every card and every driver, judged by its facts: no GPU is needed to know what would be said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from training.doctor.gpu import (
    GpuProcess,
    check_device,
    check_driver,
    check_neighbours,
    check_video_memory,
    gpu_processes,
)
from training.doctor.job import Sizes
from training.engine.gpu import GpuFacts, driver_version, runs_on
from training.reporting.units import GIB

CU121 = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")
CU128 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
NO_IMAGE = "CUDA error: no kernel image is available for execution on the device"
A100 = GpuFacts("2.5.1+cu121", "12.1", True, True, "535.104.05", "NVIDIA A100", (8, 0), CU121, None, 38 * GIB, 40 * GIB)
RTX_5090 = replace(A100, name="NVIDIA GeForce RTX 5090", capability=(12, 0), kernel_error=NO_IMAGE)
NOTHING = GpuFacts("2.5.1+cu121", "12.1", in_sight=False, available=False)
IN_SIGHT = replace(NOTHING, in_sight=True)
SIZES = Sizes(weights=200 << 20, trained=140 << 20, ema=0, row=7 * GIB)


@pytest.mark.parametrize(
    ("capability", "arches", "runs"),
    [
        ((8, 0), CU121, True),
        ((8, 9), CU121, True),  # RTX 4090: code for 8.6 runs on 8.9
        ((6, 1), CU121, True),
        ((12, 0), CU121, False),
        ((10, 0), CU121, False),
        ((6, 1), CU128, False),
        ((7, 0), CU128, False),
        ((12, 0), CU128, True),
        ((12, 1), CU128, True),
        ((13, 0), CU128, True),  # from compute_120, compiled when it starts
        ((8, 0), ("sm_86",), False),  # no code for a smaller number
        ((9, 0), ("sm_90a",), True),
        ((8, 0), (), False),
    ],
)
def test_which_card_runs_which_build(capability: tuple[int, int], arches: tuple[str, ...], runs: bool) -> None:
    assert runs_on(capability, arches) is runs


def test_a_card_that_computes_is_fine() -> None:
    found = check_device("auto", A100, "bfloat16")
    assert found.state == "ok"
    assert "NVIDIA A100 (sm_80)" in found.found
    assert "bfloat16" in found.found


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_a_blackwell_card_on_an_older_build_is_told_the_base_image_to_use(asked: str) -> None:
    found = check_device(asked, RTX_5090, "bfloat16")
    assert (found.state, found.code) == ("failed", 78)
    assert "RTX 5090 (sm_120, Blackwell)" in found.found
    assert "--build-arg BASE_IMAGE=pytorch/pytorch:2.7.1-cuda12.8-cudnn9-runtime" in found.todo
    assert ("training.device=cpu" in found.todo) is (asked == "auto")


def test_an_old_card_on_a_new_build_is_told_the_older_base_image() -> None:
    old = replace(A100, name="GTX 1080", capability=(6, 1), arches=CU128, cuda="12.8", kernel_error=NO_IMAGE)
    found = check_device("cuda", old, "float16")
    assert found.state == "failed"
    assert "too old" in found.found
    assert "BASE_IMAGE=pytorch/pytorch:2.5.1-cuda12.1" in found.todo


def test_a_card_that_fails_for_another_reason_is_not_sent_to_another_image() -> None:
    found = check_device("cuda", replace(A100, kernel_error="CUDA error: uncorrectable ECC error"), "bfloat16")
    assert found.state == "failed"
    assert "ECC" in found.found
    assert "BASE_IMAGE" not in found.line


def test_no_device_is_a_note_unless_cuda_is_asked_for_or_one_is_in_sight() -> None:
    assert check_device("auto", NOTHING, "float32").state == "note"
    assert check_device("cpu", IN_SIGHT, "float32").state == "note"
    for asked, facts in (("cuda", NOTHING), ("auto", IN_SIGHT), ("cuda", IN_SIGHT)):
        found = check_device(asked, facts, "float32")
        assert (found.state, found.code) == ("failed", 78)
        assert "--gpus all" in found.todo


def test_a_driver_too_old_for_torch_to_see_a_device_is_named() -> None:
    found = check_device("cuda", replace(IN_SIGHT, driver="470.82.01"), "float32")
    assert "driver is 470.82.01 and CUDA 12.1 needs 525" in found.found
    assert "update the driver" in found.todo
    assert "without CUDA" in check_device("cuda", replace(IN_SIGHT, cuda=None), "float32").found


@pytest.mark.parametrize(
    ("cuda", "driver", "state"),
    [
        ("12.1", "525.60.13", "ok"),
        ("12.8", "535.0", "ok"),
        ("12.1", "515.65.01", "warning"),
        ("13.0", "575.57.08", "warning"),
        ("13.0", "580.65.06", "ok"),
        ("12.1", None, "note"),
    ],
)
def test_drivers(cuda: str, driver: str | None, state: str) -> None:
    assert check_driver(replace(A100, cuda=cuda, driver=driver)).state == state


def test_the_drivers_version_is_read_from_the_kernels_file(tmp_path: Path) -> None:
    file = tmp_path / "version"
    assert driver_version(file) is None
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\nGCC version: gcc 12.3.0\n")
    assert driver_version(file) == "535.104.05"
    file.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build\n")
    assert driver_version(file) == "570.86.10"


def test_video_memory_against_a_row() -> None:
    fine = check_video_memory(A100, SIZES)
    assert fine.state == "ok"
    assert "room for about 5 rows" in fine.found
    small = check_video_memory(replace(A100, free=7 * GIB, total=8 * GIB), replace(SIZES, row=9 * GIB))
    assert (small.state, small.code) == ("failed", 78)
    assert "gradient_checkpointing" in small.todo
    taken = check_video_memory(replace(A100, free=5 * GIB), SIZES)
    assert taken.state == "warning"
    assert "what else runs" in taken.todo
    assert check_video_memory(A100, replace(SIZES, row=None)).state == "ok"


def test_neighbours_are_seen_by_name_or_by_their_memory() -> None:
    assert check_neighbours(A100, [], own_bytes=2 * GIB).state == "ok"
    named = check_neighbours(A100, [GpuProcess(7, "python3", 900)], 0)
    assert named.state == "warning"
    assert "python3 (7)" in named.found
    assert check_neighbours(replace(A100, free=20 * GIB), [], 0).state == "warning"


def test_what_nvidia_smi_lists_is_read(tmp_path: Path) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho '12, /usr/bin/python3, 900'\necho '13, a,b, [N/A]'\necho 'No processes'\n")
    command.chmod(0o755)
    found = [GpuProcess(12, "python3", 900), GpuProcess(13, "a,b", None)]
    assert gpu_processes(1, None, str(command)) == found
    assert gpu_processes(12, "GPU-1", str(command)) == found[1:]
    command.write_text("#!/bin/sh\nexit 9\n")
    assert gpu_processes(1, None, str(command)) == []
    assert gpu_processes(1, None, "no-such-command") == []
