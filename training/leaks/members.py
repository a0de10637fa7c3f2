"""Who is in a split, as the leak audit sees it, and `split.json`, which keeps it with every run.

Imports no torch: the audit of finished runs needs none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.errors import BadDataError, UsageError
from training.files import read_json

FILE = "split.json"
FORMAT = 1
SPLITS = ("train", "val", "test")
_HASH_DIGITS = 16  # of sha256: enough to tell any two files apart, and short enough to be kept for each


@dataclass(frozen=True, slots=True)
class Member:
    """One item of a split. What a task does not know stays empty, and is not compared."""

    name: str  # the item: unique in its dataset
    group: str | None = None  # what must not stand on two sides: event, patient, video, micrograph
    span: tuple[float, float] | None = None  # first and last moment in it, seconds since 1970-01-01 UTC
    content: tuple[str, ...] = ()  # a short hash of each raw file that it is made of


@dataclass(frozen=True)
class Membership:
    """All splits of one dataset as a run used them."""

    item: str  # what an item is called, plural
    near_seconds: float  # items closer in time than this are not independent
    splits: Mapping[str, Sequence[Member]]


def short_hash(sha256: str) -> str:
    """A file's sha256 as `Member.content` keeps it."""
    return sha256[:_HASH_DIGITS]


def to_json(membership: Membership) -> dict[str, Any]:
    """``membership`` as `split.json` holds it: a list for each fact, empty facts left out."""
    return {
        "format": FORMAT,
        "item": membership.item,
        "near_seconds": membership.near_seconds,
        "splits": {name: _columns(members) for name, members in membership.splits.items()},
    }


def _columns(members: Sequence[Member]) -> dict[str, Any]:
    columns: dict[str, Any] = {"names": [member.name for member in members]}
    if any(member.group is not None for member in members):
        columns["groups"] = [member.group for member in members]
    if any(member.span is not None for member in members):
        columns["spans"] = [member.span and list(member.span) for member in members]
    if any(member.content for member in members):
        columns["content"] = [list(member.content) for member in members]
    return columns


def read_membership(path: Path) -> Membership:
    """The membership in ``path``, a `split.json`.

    Raises:
        BadDataError: it is missing, damaged, or of another version.
    """
    if not path.is_file():
        raise BadDataError(f"{path}: missing; without it nobody knows what was in which split")
    try:
        found = read_json(path)
        if found.get("format") != FORMAT:
            raise BadDataError(
                f"{path}: is of format {found.get('format')}, expected {FORMAT}: it was written by another version of "
                "the worker, or is no split.json"
            )
        splits = {name: _members(columns) for name, columns in found["splits"].items()}
        if other := [name for name in splits if name not in SPLITS]:
            raise BadDataError(f"{path}: has a part called {other[0]}, expected {', '.join(SPLITS)}")
        return Membership(str(found["item"]), float(found["near_seconds"]), splits)
    except (UsageError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadDataError(f"{path}: damaged ({error}); expected the split.json of a run") from error


def _members(columns: Mapping[str, Any]) -> list[Member]:
    names = columns["names"]
    nothing = [None] * len(names)
    rows = zip(
        names,
        columns.get("groups", nothing),
        columns.get("spans", nothing),
        columns.get("content", nothing),
        strict=True,
    )
    return [
        Member(str(name), group, (float(span[0]), float(span[1])) if span else None, tuple(content or ()))
        for name, group, span, content in rows
    ]
