"""The registry's file: JSON with an entry in each line, replaced whole, changed by one process at a time.

    {"format": 1, "left_out": [], "runs": [
    {"task": "convlstm", "run_id": "20261125_104249_default", …},
    {"task": "convlstm", "run_id": "20261125_111502_default", …}
    ]}

``left_out`` names runs (``task/run id``) that were taken off the list although their folders are there. Because an
entry is a line, one is changed without understanding the others, which keeps a training's part short however long the
list is; whoever reads the list checks all of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.errors import DiskError
from backend.files import write_atomic
from training.clock import now_utc
from training.files import to_json
from training.registry.entry import Entry, Key, is_entry, key_of

FORMAT = 1
_TAIL = b"]}\n"
_LOCK_SECONDS = 60.0
_FEW = 8


class DamagedRegistryError(Exception):
    """The file is not what was written. ``content`` is what could still be read of it."""

    def __init__(self, reason: str, content: Content) -> None:
        super().__init__(reason)
        self.content = content


@dataclass
class Content:
    """What a registry holds: entries by (task, run id), and the keys of those that are left out."""

    entries: dict[Key, Entry] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)

    def put(self, entry: Entry) -> None:
        """Add or replace an entry; what was left out is back."""
        self.entries[key_of(entry)] = entry
        self.left_out.discard(name_of(key_of(entry)))


def name_of(key: Key) -> str:
    """``task/run id``."""
    return "/".join(key)


class RegistryFile:
    """One registry on disk. ``say`` is told where a damaged one was set aside."""

    def __init__(self, path: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self.path = path
        self._say = say

    def read(self) -> Content:
        """What is in it; a damaged one is set aside, and what can still be read of it is kept.

        Raises:
            DiskError: it cannot be read.
        """
        try:
            return parse(self._bytes())
        except DamagedRegistryError as damage:
            return self._repaired(damage)

    @contextmanager
    def locked(self, seconds: float = _LOCK_SECONDS) -> Iterator[None]:
        """Hold the file for a change.

        Raises:
            DiskError: it cannot be written, or others have held it for ``seconds``.
        """
        from filelock import FileLock, Timeout

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=seconds, poll_interval=0.01):
                yield
        except Timeout:
            raise DiskError(f"{self.path}: other processes have been writing it for {seconds:g} s") from None
        except OSError as error:
            raise DiskError(f"{self.path}: the registry cannot be written ({error.strerror or error})") from error

    def update(self, fresh: Sequence[Entry], seconds: float = _LOCK_SECONDS) -> None:
        """Add or replace entries; one or a few in a time that hardly depends on the others. Raises DiskError."""
        with self.locked(seconds):
            data = self._bytes() if len(fresh) <= _FEW else None
            for entry in fresh if data else ():
                data = spliced(data, entry) if data is not None else None
            if data is not None:
                write_atomic(self.path, data)
                return
            content = self._read_locked()
            for entry in fresh:
                content.put(entry)
            self._write(content)

    def replace(self, known: Content, fresh: Content) -> None:
        """Write ``fresh`` in place of ``known``, and keep what others wrote since that was read. Raises DiskError."""
        with self.locked():
            for key, entry in self._read_locked().entries.items():
                if entry != known.entries.get(key):
                    fresh.put(entry)
            self._write(fresh)

    def remove(self, keys: Iterable[Key], *, leave_out: bool = False) -> None:
        """Take entries off the list; with ``leave_out`` their folders do not bring them back. Raises DiskError."""
        with self.locked():
            content = self._read_locked()
            for key in keys:
                content.entries.pop(key, None)
                content.left_out.discard(name_of(key))
                if leave_out:
                    content.left_out.add(name_of(key))
            self._write(content)

    def _write(self, content: Content) -> None:
        write_atomic(self.path, render(content))

    def _bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return render(Content())
        except OSError as error:
            raise DiskError(f"{self.path}: the registry cannot be read ({error.strerror})") from error

    def _repaired(self, damage: DamagedRegistryError) -> Content:
        """Set aside, unless this user may not write there: then what is told comes from memory alone."""
        try:
            with self.locked(5.0):
                return self._read_locked()
        except DiskError as error:
            self._say(f"warning: {self.path} is damaged ({damage}) and cannot be set aside: {error}")
            return damage.content

    def _read_locked(self) -> Content:
        try:
            return parse(self._bytes())
        except DamagedRegistryError as damage:
            aside = self._set_aside()
            self._write(damage.content)
            self._say(
                f"{self.path} is damaged ({damage}); it is set aside as {aside.name}, and the list is rebuilt from the "
                "run folders"
            )
            return damage.content

    def _set_aside(self) -> Path:
        stamp = now_utc().replace(":", "").replace("-", "")
        number = 1
        while True:
            end = f"-{number}" if number > 1 else ""
            aside = self.path.with_name(f"{self.path.stem}.damaged-{stamp}{end}{self.path.suffix}")
            if not aside.exists():
                self.path.rename(aside)
                return aside
            number += 1


def render(content: Content) -> bytes:
    """The file's bytes."""
    rows = ",\n".join(map(_row, content.entries.values()))
    return _head(content.left_out) + (f"{rows}\n".encode() if rows else b"") + _TAIL


def parse(data: bytes) -> Content:
    """The content of a registry file.

    Raises:
        DamagedRegistryError: with what is wrong, and what can still be read.
    """
    try:
        tree = _loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedRegistryError(f"no valid JSON: {str(error)[:80]}", _salvaged(data)) from None
    if not isinstance(tree, dict):
        raise DamagedRegistryError("expected an object with the list of runs in it", Content())
    if tree.get("format") != FORMAT:
        found = to_json(tree.get("format"))[:20]
        raise DamagedRegistryError(f"it is of format {found}, this version reads format {FORMAT}", Content())
    runs, left_out = tree.get("runs"), tree.get("left_out", [])
    if not isinstance(runs, list) or not isinstance(left_out, list):
        raise DamagedRegistryError("runs or left_out is no list", Content())
    sound = [entry for entry in runs if is_entry(entry)]
    content = Content({key_of(entry): entry for entry in sound}, {str(name) for name in left_out})
    if len(sound) < len(runs):
        raise DamagedRegistryError(f"{len(runs) - len(sound)} of {len(runs)} entries are not what they should", content)
    return content


def spliced(data: bytes, entry: Entry) -> bytes | None:
    """``data`` with one entry put in; None where it has not the form that `render` gives or leaves the run out."""
    rows = data.split(b"\n")
    try:
        head = json.loads(rows[0] + _TAIL)
    except ValueError:
        return None
    is_plain = isinstance(head, dict) and head.get("format") == FORMAT and head.get("runs") == []
    if not is_plain or rows[-2:] != [b"]}", b""] or head.get("left_out"):
        return None
    first, row = _beginning(key_of(entry)), _row(entry).encode()
    old = next((at for at, line in enumerate(rows) if line.startswith(first)), None)
    if old is not None:
        rows[old] = row + (b"," if old < len(rows) - 3 else b"")
    else:
        if len(rows) > 3:
            rows[-3] += b","
        rows.insert(-2, row)
    return b"\n".join(rows)


def _loads(data: bytes) -> Any:
    """Strict JSON: what `to_json` writes, and nothing that it would not write again."""
    return json.loads(data, parse_constant=_refuse)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _head(left_out: Iterable[str]) -> bytes:
    return f'{{"format": {FORMAT}, "left_out": {to_json(sorted(left_out))}, "runs": [\n'.encode()


def _row(entry: Entry) -> str:
    """One line, beginning with what tells which run it is about."""
    return to_json({"task": entry["task"], "run_id": entry["run_id"], **entry})


def _beginning(key: Key) -> bytes:
    return to_json({"task": key[0], "run_id": key[1]})[:-1].encode() + b","


def _salvaged(data: bytes) -> Content:
    """The entries that stand whole in their lines."""
    content = Content()
    for line in data.split(b"\n"):
        with suppress(ValueError, RecursionError):
            entry = _loads(line.removesuffix(b","))
            if is_entry(entry):
                content.put(entry)
    return content
