"""Damage, full disks, bad sources: what the prepared cache does when something is wrong."""

from __future__ import annotations

import errno
import os
import shutil

import numpy as np
import pytest

from backend.errors import BadDataError, ConfigError, DiskError
from tests.data.raw_dataset import expected, read
from training.data import prepared, prepared_blocks
from training.data.prepared import DamagedCacheError
from training.data.prepared_build import Plan, open_or_build


def test_a_short_file_is_set_aside_and_the_cache_rebuilt(dataset):
    first = dataset.open()
    with (first.folder / "blocks.bin").open("rb+") as file:
        file.truncate(100)
    dataset.made()
    second = dataset.open()
    assert second.folder == first.folder
    assert len(dataset.made()) == 12
    assert len(list(dataset.cache.glob(".damaged-*"))) == 1
    assert any("100 bytes" in line and "set aside" in line for line in dataset.world.said)
    assert np.array_equal(read(second), expected(range(11, -1, -1)))


def test_a_changed_byte_is_found_at_the_first_reading_and_mended_at_the_next_start(dataset):
    cache = dataset.open()
    with (cache.folder / "blocks.bin").open("rb+") as file:
        file.seek(5 * 24 + 7)
        file.write(b"\xee")
    again = dataset.open()
    assert np.array_equal(read(again, 0, 5), expected([11, 10, 9, 8, 7]))
    with pytest.raises(DamagedCacheError, match=f"{cache.folder} is damaged: block 5.*Run the same command again"):
        read(again, 4, 2)
    assert np.array_equal(read(dataset.open()), expected(range(11, -1, -1)))


def test_a_changed_index_or_lookup_is_not_trusted(dataset):
    cache = dataset.open()
    index = cache.folder / "index.json"
    index.write_bytes(index.read_bytes().replace(b'"x":1', b'"x":2'))
    assert dataset.open().extra == {"x": 1}
    (cache.folder / "lookup.json").write_text("{")
    assert dataset.open().extra == {"x": 1}
    assert len(list(dataset.cache.glob(".damaged-*"))) == 2
    (cache.folder / "blocks.bin").unlink()
    assert dataset.open().extra == {"x": 1}


def test_too_little_space_is_told_before_the_work(dataset, monkeypatch):
    usage = shutil.disk_usage(dataset.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(DiskError, match=r"cache has 0.00 GB free, the prepared dataset needs 0.02 GB.*data.cache_dir"):
        dataset.open()
    assert dataset.made() == []


def test_a_full_disk_is_one_line_and_nothing_half_built_is_used(dataset, monkeypatch):
    pwrite, calls = os.pwrite, []

    def full(file, data, offset):
        calls.append(offset)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(file, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskError, match="No space left on device"):
        dataset.open()
    assert prepared.candidates(dataset.cache, dataset.request().key) == []
    monkeypatch.setattr(os, "pwrite", pwrite)
    dataset.made()
    assert np.array_equal(read(dataset.open()), expected(range(11, -1, -1)))
    assert len(dataset.made()) == 8


def test_a_disk_that_cannot_be_read_is_an_io_error(dataset, monkeypatch):
    reader = dataset.open().reader()

    def failing(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", failing)
    with pytest.raises(DiskError, match="Input/output error"):
        reader.read_run(0, np.zeros((2, 1, 3, 4), np.uint8))


def test_short_writes_are_completed(dataset, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: pwrite(file, data[:7], offset))
    assert np.array_equal(read(dataset.open()), expected(range(11, -1, -1)))


def test_an_unwritable_cache_folder_is_named(dataset, tmp_path):
    (tmp_path / "file").write_text("")
    dataset.cache = tmp_path / "file" / "cache"
    with pytest.raises(DiskError, match=r"file/cache: Not a directory.*data.cache_dir"):
        dataset.open()


def test_file_systems_without_reservation(dataset, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert np.array_equal(read(dataset.open()), expected(range(11, -1, -1)))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_source_ends_the_preparation_with_its_own_line(dataset, workers):
    dataset.touch("003", b"bad".ljust(50))
    with pytest.raises(BadDataError, match="003: bad"):
        dataset.open(workers=workers)


def test_a_killed_worker_is_explained(dataset):
    dataset.touch("003", b"die".ljust(50))
    with pytest.raises(ConfigError, match=r"memory ran out.*data.prepare_workers"):
        dataset.open(workers=2)


def test_sources_that_change_or_vanish_while_they_are_prepared(dataset):
    request = dataset.request()
    (dataset.root / "005").write_bytes(b"longer" * 20)
    with pytest.raises(BadDataError, match="005 changed while the dataset was prepared: it had 50 bytes, now 120"):
        open_or_build(dataset.cache, request, dataset.plan, dataset.world.context, 1)
    path = dataset.root / "004"
    with pytest.raises(BadDataError, match="gone cannot be read: No such file"):
        prepared_blocks.hash_source((0, path.with_name("gone")))


def test_a_block_of_another_shape_is_refused(dataset):
    plan = dataset.plan(None)
    odd = Plan((1, 3, 4), "uint8", plan.block_sources, plan.make, {})
    with pytest.raises(BadDataError, match=r"gives uint8 \(2, 3, 4\), the other files uint8 \(1, 3, 4\)"):
        open_or_build(dataset.cache, dataset.request(), lambda pool: odd, dataset.world.context, 1)
