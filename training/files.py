"""Records as files: JSON, one object or one a line. How files are made durable is in `backend/files.py`."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.errors import BadDataError, UsageError
from backend.files import write_atomic


def to_json(value: Any, indent: int | None = None) -> str:
    """Strict JSON (no NaN, no infinity): what other programs can read."""
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> bytes:
    """The one JSON text of ``value``: sorted keys, no spaces, no NaN, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(value: Any) -> str:
    """A short, stable name for a JSON value: 32 hexadecimal digits of the sha256 of its canonical text."""
    return hashlib.sha256(canonical_json(value)).hexdigest()[:32]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UsageError: the file is not one.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}: expected a JSON object")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """A JSON object for people and programs, atomically; the folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, to_json(value, indent=1) + "\n")


class JsonLines:
    """A file of one JSON object a line, appended as written; a torn last line is cut off on opening."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _cut_torn_line(path)
        self._file = path.open("ab", buffering=0)

    def append(self, record: dict[str, Any], durable: bool = False) -> None:
        """Add one record, whole or not at all; ``durable`` means that it is on the disk when this returns.

        Raises OSError as it comes, and where the disk took a part of the record only.
        """
        line = (to_json(record) + "\n").encode("utf-8")
        if self._file.write(line) != len(line):
            _cut_torn_line(self.path)  # else the next record would continue the torn one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        if durable:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_json_lines(path: Path, only: str = "") -> list[dict[str, Any]]:
    """All whole lines of a JSON-lines file, or those that contain the text ``only``; a missing file has none.

    Raises:
        BadDataError: a line inside the file is damaged (a torn last line is not: it was never finished).
    """
    if not path.exists():
        return []
    records, wanted = [], only.encode("utf-8")
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        if wanted not in line:
            continue
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise BadDataError(
                f"{path}, line {number}: damaged, not JSON; delete that line, or the run folder to begin anew"
            ) from error
    return records


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        os.truncate(path, whole)
