"""`audit`: leaks inside the split of a run, or between what two runs saw and were scored on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import typer

from backend.errors import DONE, VERIFICATION_FAILED, BadDataError, UsageError
from training.leaks.find import Leaks, find_leaks
from training.leaks.members import FILE, Membership, read_membership
from training.leaks.own import ORDER
from training.requests import AuditRequest
from training.runs.run import resolve_run


@dataclass(frozen=True)
class Side:
    """One of the things that are compared: all splits of a run, or the one that was named."""

    label: str
    membership: Membership
    split: str | None

    def name(self, split: str) -> str:
        """A split for people, with whose it is."""
        return f"{split} of {self.label}"


def audit(request: AuditRequest) -> int:
    """Compare, show, and return the exit code: 0 where nothing was found in common, 1 otherwise.

    Raises:
        UsageError, BadDataError: nothing answers to a name, or it says nothing about its splits.
    """
    sides = [_side(request.output, name) for name in request.sides]
    near = None if request.near_hours is None else request.near_hours * 3600
    found = [_compare(*pair, near) for pair in _pairs(sides)]
    if not found:
        raise UsageError(
            f"{' '.join(request.sides)}: nothing to compare; name a run, two runs, or one part of each of two"
        )
    if not any(leaks.compared for leaks in found):
        raise BadDataError(f"{' '.join(request.sides)}: {found[0].line()}")
    if request.as_json:
        typer.echo(json.dumps({"format": 1, "leaks": any(found), "pairs": [leaks.to_json() for leaks in found]}))
    else:
        for leaks in found:
            for line in (leaks.line(), *(f"  {example}" for example in leaks.examples())):
                typer.echo(line)
    return VERIFICATION_FAILED if any(found) else DONE


def _side(output: Path, name: str) -> Side:
    """``name`` is a run, a folder or file with a split.json, each with ``:split`` behind it where one is meant."""
    path, split = Path(name), None
    if not path.exists() and name.rpartition(":")[2] in ORDER:
        name, _, split = name.rpartition(":")
        path = Path(name)
    if path.is_file():
        membership, label = read_membership(path), str(path)
    elif (path / FILE).is_file():
        membership, label = read_membership(path / FILE), path.resolve().name
    else:
        run = resolve_run(output, name)
        membership, label = read_membership(run.path(FILE)), run.run_id
    if split is not None and split not in membership.splits:
        raise UsageError(f"{name}: has no split {split}, only {', '.join(membership.splits)}")
    return Side(label, membership, split)


Pair = tuple[Side, str, Side, str]


def _pairs(sides: list[Side]) -> list[Pair]:
    """Every split that was learned from, with every one that is scored."""
    if len(sides) == 1:
        return _across(sides[0], sides[0])
    one, other = sides
    if one.split and other.split:
        return [(one, one.split, other, other.split)]
    return [*_across(one, other), *_across(other, one)]


def _across(one: Side, other: Side) -> list[Pair]:
    return [
        (one, seen, other, examined)
        for seen in _splits(one)
        for examined in _splits(other)
        if ORDER.index(seen) < ORDER.index(examined)
    ]


def _splits(side: Side) -> list[str]:
    return [name for name in ORDER if name in side.membership.splits and side.split in (None, name)]


def _compare(one: Side, seen: str, other: Side, examined: str, near: float | None) -> Leaks:
    if near is None:
        near = max(one.membership.near_seconds, other.membership.near_seconds)
    names = (seen, examined) if one is other else (one.name(seen), other.name(examined))
    same_kind = one.membership.item == other.membership.item
    return find_leaks(one.membership.splits[seen], other.membership.splits[examined], near, names, same_kind=same_kind)
