"""A disk that is really full, a small one in memory: told in one line, nothing lost, and the same command goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.artifact import checkpoints, verify
from backend.errors import IO_ERROR, DiskError
from tests.fetching.fake_drive import File, web_in
from tests.fetching.world import DRIVE_ID, Place, contents, tar_gz
from tests.runs import register_tiny, run_of, train
from tests.small_disk import small_disk
from training.engine.checkpoint import CheckpointStore

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path, "120m") as place:
        yield place


def fill(disk: Path, spare: int = 0) -> Path:
    """Somebody else's file, which leaves ``spare`` bytes."""
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - spare))
    return filler


def test_while_a_checkpoint_is_saved(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register_tiny(monkeypatch)
    save, calls = CheckpointStore.save, []

    def save_third_on_full_disk(store: CheckpointStore, *given: Any) -> Path:
        calls.append(given[0])
        if len(calls) == 3:
            fill(disk)
        return save(store, *given)

    monkeypatch.setattr(CheckpointStore, "save", save_third_on_full_disk)
    assert train(disk, "tiny") == IO_ERROR
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "free space" in line
    published = checkpoints(run_of(disk, "tiny") / "checkpoints")
    assert len(published) == 2
    for folder in published:
        verify(folder)
    (disk / "filler").unlink()
    assert train(disk, "tiny") == 0


@pytest.mark.parametrize("source", [{"gdrive": DRIVE_ID}, {"https": "https://files.example/events.tar.gz"}])
def test_while_a_dataset_is_downloaded(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: dict[str, str]
) -> None:
    """The host tells no size, so that nobody can know before.

    What came is judged by what lies on the disk: how much a host has sent is up to the buffers in between.
    """
    place, room, size = Place(disk), 5 * MIB, 20 * MIB
    content = tar_gz({"a.nc": os.urandom(size)})
    with web_in(tmp_path) as web:
        web.enter(monkeypatch)
        file = web.files[DRIVE_ID] = web.files["/events.tar.gz"] = File(content, chunked=True)
        filler = fill(disk, spare=room)
        with pytest.raises(DiskError, match=r"No space left on device.*--datasets"):
            place.fetch(place.manifest(source))
        (part,) = place.downloads.rglob("*.part")
        came = part.stat().st_size
        assert room / 2 < came <= room
        assert content.startswith(part.read_bytes())
        assert len(file.asked) == 1  # not tried again: nothing would be better
        filler.unlink()
        assert len(contents(place.fetch(place.manifest(source)))["a.nc"]) == size
        assert f"bytes={came}-" in file.asked[1:]
