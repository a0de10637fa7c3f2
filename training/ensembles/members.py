"""The members of an ensemble: runs opened, and refused where they do not belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.artifact import MANIFEST, open_artifact
from backend.errors import BadDataError, ConfigError, UsageError
from backend.files import sha256_of
from training.ensembles.spec import Spec
from training.leaks.members import FILE as SPLIT_FILE
from training.leaks.members import Membership, read_membership
from training.publish import model_of
from training.run import Run, resolve_run
from training.subject import Subject

TASK = "landmarks"


@dataclass(frozen=True)
class EnsembleMember:
    """One trained model, and what it was trained and selected on where that is known."""

    run: Run
    subject: Subject
    model_id: str  # of the checkpoint's content
    learned: Membership | None

    @property
    def label(self) -> str:
        """For people."""
        return self.run.run_id

    @property
    def names(self) -> list[str]:
        """Of the points."""
        return list(self.subject.facts["landmark_set"]["names"])


def open_members(output: Path, spec: Spec) -> list[EnsembleMember]:
    """The members of ``spec``, sound and fit to be averaged.

    Raises:
        UsageError: a name that is no run's, a run of another task, one model twice.
        BadDataError: a damaged checkpoint, or members that find other points.
        ConfigError: members that see an image in other ways, or in another than is claimed.
    """
    members = [_opened(output, name) for name in spec.members]
    _check_different(members, spec.members)
    first = members[0]
    for member in members[1:]:
        if member.names != first.names:
            raise BadDataError(
                f"{member.label} finds other points ({_points(member.names)}) than {first.label} "
                f"({_points(first.names)}); only models of the same points can be averaged"
            )
        other = _differences(*(one.subject.preprocessing["landmarks"] for one in (first, member)))
        if other:
            raise ConfigError(
                f"{member.label} and {first.label} see images in different ways ({'; '.join(other)}); an ensemble's "
                "members share their preprocessing"
            )
    _check_claims(first, spec.claims or {})
    return members


def _opened(output: Path, name: str) -> EnsembleMember:
    run = resolve_run(output, name)
    if run.metadata.get("task") != TASK:
        raise UsageError(f"{name}: a run of {run.metadata.get('task')}; ensembles are made of {TASK} runs")
    artifact = open_artifact(model_of(run, Path(name)))
    split = run.path(SPLIT_FILE)
    return EnsembleMember(
        run=run,
        subject=Subject.of_artifact(artifact),
        model_id=sha256_of(artifact.folder / MANIFEST),
        learned=read_membership(split) if split.is_file() else None,
    )


def _check_different(members: Sequence[EnsembleMember], names: Sequence[str]) -> None:
    known: dict[str, str] = {}
    for member, name in zip(members, names, strict=True):
        if member.model_id in known:
            raise UsageError(f"{name} and {known[member.model_id]} are the same model; name it once, with a weight")
        known[member.model_id] = name


def _points(names: Sequence[str]) -> str:
    return f"{len(names)}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    keys = dict.fromkeys([*one, *other])
    return [f"{key} {other.get(key)}, not {one.get(key)}" for key in keys if one.get(key) != other.get(key)]


def _check_claims(member: EnsembleMember, claims: Mapping[str, Any]) -> None:
    """`--clahe` and the like change nothing: a member sees images as it was trained to. What they say must be so."""
    stored = member.subject.preprocessing["landmarks"]
    for key, claimed in claims.items():
        if stored.get(key) != claimed:
            raise ConfigError(
                f"{key} is said to be {claimed}, but the members were trained with {stored.get(key)}, and so they see "
                "images; leave it out, or train members with it"
            )
