"""Files that are whole or not there, and the records in them: JSON and YAML in and out."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
from pathlib import Path

import pytest

from backend.errors import UsageError
from backend.files import replacing, sha256_of, write_atomic
from training.files import JsonLines, read_json, read_json_lines, write_json
from training.yaml_core import parse_yaml, read_yaml, write_yaml


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomic(path, "ä" * 9)
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a"]
    assert sha256_of(path) == hashlib.sha256(b"new").hexdigest()


def test_what_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomic(path, "old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_full_disk_at_fsync_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert (path.read_text(), names(tmp_path)) == ("old", ["a"])


def test_a_torn_last_line_is_cut_off_and_never_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"step": 1}\n{"st')
    assert read_json_lines(path) == [{"step": 1}]
    lines = JsonLines(path)
    lines.append({"step": 2}, durable=True)
    lines.close()
    assert read_json_lines(path) == [{"step": 1}, {"step": 2}]
    assert read_json_lines(tmp_path / "none") == []


RECORD = {
    "text": "2010-08-26",
    "word": "1e5",
    "lines": "a\nb: c",
    "unseen": "\u2028\x07",
    "none": None,
    "number": 1e-05,
    "list": [1, {"a": [], "b": {}}, "yes"],
    "nested": {"é": True},
}


@pytest.mark.parametrize(("read", "write"), [(read_json, write_json), (read_yaml, write_yaml)])
def test_a_record_comes_back_as_it_was(tmp_path: Path, read, write) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path / "a", RECORD)
    assert read(tmp_path / "a") == RECORD
    assert list(read(tmp_path / "a")) == list(RECORD)


def test_words_stay_words_for_readers_of_older_yaml(tmp_path: Path) -> None:
    words = {"a": "off", "b": "2007-10-01T15:32:07Z", "c": "20100826_0000", "d": "gap", "e": 1e-05, "f": "12:30"}
    write_yaml(tmp_path / "a", words)
    assert (tmp_path / "a").read_text() == (
        "a: 'off'\nb: '2007-10-01T15:32:07Z'\nc: '20100826_0000'\nd: gap\ne: 1e-05\nf: '12:30'\n"
    )


@pytest.mark.parametrize("read", [read_json, read_yaml])
@pytest.mark.parametrize("content", [b"[1", b"[1]", b"\xff\xfe", None])
def test_what_is_no_record_is_named(tmp_path: Path, read, content: bytes | None) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "a"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=str(path)) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_yaml_is_that_of_version_1_2() -> None:
    text = "a: 1e-4\nb: [yes, no, on, 010, 0o17, 20100826_0000, 2010-08-26, 12:30:00, ~, .5, '3']\nc:\n"
    assert parse_yaml(text, "x") == {
        "a": 1e-4,
        "b": ["yes", "no", "on", 10, 15, "20100826_0000", "2010-08-26", "12:30:00", None, 0.5, "3"],
        "c": None,
    }


def test_a_line_that_the_disk_took_half_of_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    lines = JsonLines(path)
    lines.append({"step": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 4, before[1]))
    try:
        with pytest.raises(OSError, match="No space left"):
            lines.append({"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    lines.append({"step": 3})
    lines.close()
    assert read_json_lines(path) == [{"step": 1}, {"step": 3}]
    assert read_json_lines(path, only='"step": 3') == [{"step": 3}]
