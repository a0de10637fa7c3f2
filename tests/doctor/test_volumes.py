"""Folders that can or cannot be written, and whether they outlive a container."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from training.doctor import volumes
from training.doctor.volumes import Mount, check_datasets, check_mounted, check_output, mount_of, try_to_write

MOUNTINFO = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 0:40 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/a
30 27 254:1 /home/me/model_output /workspace/model_output rw,relatime - ext4 /dev/vda rw
31 27 254:1 /home/me/my\\040data /workspace/data\\040sets rw - ext4 /dev/vda rw
32 27 0:50 / /scratch rw - tmpfs tmpfs rw
33 30 0:51 / /workspace/model_output/inner rw - tmpfs tmpfs rw
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    file = tmp_path / "mountinfo"
    file.write_text(MOUNTINFO)
    return file


@pytest.mark.parametrize(
    ("folder", "point", "kind", "lasts"),
    [
        ("/workspace/model_output", "/workspace/model_output", "ext4", True),
        ("/workspace/model_output/not/yet", "/workspace/model_output", "ext4", True),
        ("/workspace/model_output2", "/", "overlay", False),
        ("/workspace/data sets/x", "/workspace/data sets", "ext4", True),
        ("/scratch/out", "/scratch", "tmpfs", False),
        ("/workspace/model_output/inner/x", "/workspace/model_output/inner", "tmpfs", False),
    ],
)
def test_the_deepest_mount_that_holds_a_folder(mounts: Path, folder: str, point: str, kind: str, lasts: bool) -> None:
    found = mount_of(Path(folder), mounts)
    assert found == Mount(Path(point), kind)
    assert found.lasts is lasts


def test_the_systems_own_mounts_can_be_read() -> None:
    assert mount_of(Path("/proc/self")).kind == "proc"


def test_an_output_folder_that_is_no_volume_fails_with_the_option_to_add() -> None:
    found = check_mounted("output volume", Path("/workspace/model_output"), Mount(Path("/"), "overlay"), False, True)
    assert (found.state, found.code) == ("failed", 78)
    assert '-v "$PWD/model_output:/workspace/model_output"' in found.todo
    assert "TRAIN_WORKER_UNMOUNTED_OK=1" in found.todo
    for place, allowed, must_last in ((Path("/"), True, True), (Path("/"), False, False)):
        assert check_mounted("x", Path("/w/x"), Mount(place, "overlay"), allowed, must_last).state == "note"
    assert check_mounted("x", Path("/w/x"), Mount(Path("/w"), "ext4"), False, True).state == "ok"
    assert "in memory" in check_mounted("x", Path("/w/x"), Mount(Path("/w"), "tmpfs"), False, True).found


def test_a_writable_folder_is_left_as_it_was(tmp_path: Path) -> None:
    assert check_output(tmp_path / "not" / "yet").state == "ok"
    assert check_datasets(tmp_path, must_write=True).state == "ok"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EIO])
def test_a_folder_that_refuses_is_told_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(path: Path, content: str) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(volumes, "write_atomic", refuse)
    found = check_output(tmp_path)
    assert (found.state, found.code) == ("failed", 74)
    assert os.strerror(number) in found.found
    remedy = {errno.EROFS: ":ro", errno.EACCES: f"this process is {os.getuid()}:", errno.ENOSPC: "free some space"}
    assert remedy.get(number, "sound disk") in found.todo
    assert check_datasets(tmp_path, must_write=False).state == "note"
    assert check_datasets(tmp_path, must_write=True).code == 74


def test_a_file_in_the_folders_place_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    problem = try_to_write(tmp_path / "out")
    assert problem is not None
    assert problem.errno == errno.ENOTDIR


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_of_another_user(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    assert check_output(tmp_path).state == "failed"
