"""The members of an ensemble: runs opened, and refused where they do not belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from backend.artifact import best_checkpoint, is_checkpoint, open_checkpoint, read_identity
from backend.errors import BadDataError, ConfigError, UsageError
from training.ensembles.spec import Spec
from training.leaks.members import FILE as SPLIT_FILE
from training.leaks.members import Membership, read_membership
from training.runs.publish import model_of
from training.runs.run import Run, resolve_run

TASK = "landmarks"


@dataclass(frozen=True)
class EnsembleMember:
    """One trained model, and what it was trained and selected on where that is known."""

    named: str  # as the user did
    label: str  # for people: the run's id, with the checkpoint where several of one run are members
    run: Run
    checkpoint: Path
    state: Mapping[str, Any]
    model_id: str  # of the checkpoint's content
    weights_id: str  # of the weights alone
    learned: Membership | None

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the model was built by."""
        facts: Mapping[str, Any] = self.state["facts"]
        return facts

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """How it sees an image."""
        preprocessing: Mapping[str, Any] = self.state["preprocessing"]["landmarks"]
        return preprocessing

    @property
    def points(self) -> list[str]:
        """Their names."""
        return list(self.facts["landmark_set"]["names"])

    def weights(self) -> dict[str, Tensor]:
        """Read and verified only now: whoever was asked before needs none. Raises BadDataError, DiskError."""
        return open_checkpoint(self.checkpoint).weights


def open_members(output: Path, spec: Spec) -> list[EnsembleMember]:
    """The members of ``spec``, fit to be averaged.

    Raises:
        UsageError: a name that is no run's, a run of another task, one model twice.
        BadDataError: a damaged checkpoint, or members that find other points.
        ConfigError: members that see an image in other ways, or in another than is claimed.
    """
    members = _told_apart([_opened(output, name) for name in spec.members])
    _check_different(members)
    for member in members[1:]:
        _check_alike(members[0], member)
    _check_claims(members[0], spec.claims)
    return members


def other_origins(members: Sequence[EnsembleMember]) -> list[str]:
    """A line for each member that was trained on other images than the first one."""
    first = members[0]
    return [
        f"note: {member.label} was trained on {_images_of(member)}, {first.label} on {_images_of(first)}"
        for member in members[1:]
        if _images_of(member) != _images_of(first)
    ]


def _images_of(member: EnsembleMember) -> str:
    """The images that it was trained on, whatever their split, in words."""
    if member.state["dataset"]["is_sample"]:
        return "the built-in sample"
    return f"dataset {str(member.facts.get('cache', 'unknown'))[:8]}"


def _opened(output: Path, name: str) -> EnsembleMember:
    run = resolve_run(output, name)
    if run.metadata.get("task") != TASK:
        raise UsageError(f"{name}: a run of {run.metadata.get('task')}; ensembles are made of {TASK} runs")
    folder = model_of(run, Path(name))
    checkpoint = folder if is_checkpoint(folder) else best_checkpoint(folder)
    identity = read_identity(checkpoint)
    split = run.path(SPLIT_FILE)
    return EnsembleMember(
        named=name,
        label=run.run_id,
        run=run,
        checkpoint=checkpoint,
        state=identity.state,
        model_id=identity.checkpoint_id,
        weights_id=identity.weights_id,
        learned=read_membership(split) if split.is_file() else None,
    )


def _told_apart(members: Sequence[EnsembleMember]) -> list[EnsembleMember]:
    """Two checkpoints of one run are two models, and are called so."""
    counts = Counter(member.label for member in members)
    return [
        replace(member, label=f"{member.label}/{member.checkpoint.name}") if counts[member.label] > 1 else member
        for member in members
    ]


def _check_different(members: Sequence[EnsembleMember]) -> None:
    known: dict[str, str] = {}
    for member in members:
        if member.weights_id in known:
            raise UsageError(
                f"{member.named} and {known[member.weights_id]} are the same model, weight for weight; name it once "
                "(--weights lets it count for more)"
            )
        known[member.weights_id] = member.named


def _check_alike(first: EnsembleMember, member: EnsembleMember) -> None:
    if member.points != first.points:
        raise BadDataError(
            f"{member.label} finds other points ({_listed(member.points)}) than {first.label} "
            f"({_listed(first.points)}); only models of the same points can be averaged"
        )
    if other := _differences(first.preprocessing, member.preprocessing):
        raise ConfigError(
            f"{member.label} and {first.label} see images in different ways ({'; '.join(other)}); an ensemble's "
            "members share their preprocessing"
        )


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    keys = dict.fromkeys([*one, *other])
    return [f"{key} {other.get(key)}, not {one.get(key)}" for key in keys if one.get(key) != other.get(key)]


def _check_claims(member: EnsembleMember, claims: Mapping[str, Any]) -> None:
    """`--clahe` and the like change nothing: a member sees images as it was trained to. What they say must be so."""
    stored = member.preprocessing
    for key, claimed in claims.items():
        if stored.get(key) != claimed:
            raise ConfigError(
                f"{key} is said to be {claimed}, but the members were trained with {stored.get(key)}, and so they see "
                "images; leave it out, or train members with it"
            )
