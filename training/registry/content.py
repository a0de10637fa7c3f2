"""What a registry file holds, as text and back: JSON with an entry in each line.

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
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from training.files import to_json
from training.registry.entry import Entry, Key, is_entry, key_of

FORMAT = 1
_TAIL = b"]}\n"


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
    head = _plain_head(rows)
    if head is None or head.get("left_out"):
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


def entry_in(data: bytes, key: Key) -> Entry | None:
    """The sound entry that ``data``, damaged or not, has of a run."""
    start = data.find(b"\n" + _beginning(key)) + 1
    if start:
        return _salvaged(data[start : data.find(b"\n", start)]).entries.get(key)
    if _plain_head([data.partition(b"\n")[0], *data[-4:].split(b"\n")[-2:]]) is not None:
        return None
    try:
        return parse(data).entries.get(key)
    except DamagedRegistryError as damage:
        return damage.content.entries.get(key)


def _plain_head(rows: list[bytes]) -> dict[str, Any] | None:
    """The first line as an object without runs; None where the lines are not of the form that `render` gives."""
    try:
        head = json.loads(rows[0] + _TAIL)
    except ValueError:
        return None
    is_plain = isinstance(head, dict) and head.get("format") == FORMAT and head.get("runs") == []
    return head if is_plain and rows[-2:] == [b"]}", b""] else None


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
