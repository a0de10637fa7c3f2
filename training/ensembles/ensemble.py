"""`ensemble`: the mean of several landmark models, on images that none of them has learned from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import typer

from backend.errors import DONE, UsageError, VerificationError
from backend.files import write_atomic
from training.clock import now_utc
from training.engine.interruption import StopRequest
from training.ensembles.answers import Said, what_is_said
from training.ensembles.audit import Contamination, contamination
from training.ensembles.bench import ALL, DataBench, Images, images_of
from training.ensembles.members import EnsembleMember, open_members
from training.ensembles.spec import Spec
from training.ensembles.told import PLAIN, TTA, Scored, contamination_lines, details_of, table_of
from training.files import write_json
from training.heartbeat import beat
from training.reporting.log import RunLog
from training.reporting.progress import Progress
from training.requests import EnsembleRequest
from training.tasks.protocol import Prepared

FOLDER = "ensembles"
MARK = "NOT INDEPENDENT"


def ensemble(request: EnsembleRequest) -> int:
    """Audit, ask every member, average, tell; the exit code.

    Raises:
        VerificationError: no image is clean, and `--allow-leaks` does not say to go on.
        WorkerError: the members cannot be averaged, or the data cannot be read.
    """
    log = RunLog(None)
    log.console.quiet = request.as_json
    with StopRequest(beat) as stop, Progress(log) as display:
        members = open_members(request.output, request.spec)
        data = DataBench(request, request.data, stop, display)
        _, prepared = data.of(members[0], request.spec.split_seed)
        images = images_of(prepared, request.split)
        found = contamination(members, images.members, request.split)
        what = described(request, members, images)
        for line in contamination_lines(found, labels(members), what):
            log.say(line)
        _check_clean(found, request)
        said = ask(members, images, data)
        scored = _scored(request.spec, members, images, said, prepared)
        told = _told(request, members, scored, found, what)
    folder = keep(request, told)
    _show(request, told, scored.ways, folder)
    return DONE


def labels(members: Sequence[EnsembleMember]) -> list[str]:
    """Of the members, for people."""
    return [member.label for member in members]


def described(request: EnsembleRequest, members: Sequence[EnsembleMember], images: Images) -> str:
    """The evaluated images in words: which split, drawn how."""
    whose = members[0].label if request.spec.split_seed is None else f"split seed {request.spec.split_seed}"
    return "all splits" if images.split == ALL else f"{images.split} of {whose}"


def _check_clean(found: Contamination, request: EnsembleRequest) -> None:
    if found.clean or request.allow_leaks:
        return
    raise VerificationError(
        "no image is clean, so that any number would say how well the members remember, not how well they see; name "
        "members that share a split (train --seeds 1,2,3), other images (--data), or add --allow-leaks, which marks "
        "every number"
    )


def ask(members: Sequence[EnsembleMember], images: Images, data: DataBench) -> list[Said]:
    """What each member says to the images."""
    contents = [one.content for one in images.members]
    return [what_is_said(member, contents, data) for member in members]


def _scored(
    spec: Spec, members: Sequence[EnsembleMember], images: Images, said: Sequence[Said], prepared: Prepared
) -> Scored:
    mirrors = all(one.tta is not None for one in said)
    if spec.tta and not mirrors:
        raise UsageError("--tta: the points' mirror pairs are not known, so that no mirror image can be asked for")
    ways = [PLAIN, TTA] if mirrors and spec.tta is not False else [PLAIN]
    weights = spec.weights or (1.0,) * len(members)
    return Scored(
        images=images,
        members=said,
        weights=weights,
        mean_shape=np.array(prepared.facts["mean_shape"]),
        names=labels(members),
        points=members[0].names,
        classes=list(prepared.facts["classes"]),
        ways=ways,
    )


def _told(
    request: EnsembleRequest, members: Sequence[EnsembleMember], scored: Scored, found: Contamination, what: str
) -> dict[str, Any]:
    """The headline is the clean part; everything else stands under a name that says what it is."""
    told: dict[str, Any] = {
        "format": 1,
        "name": request.spec.name,
        "time": now_utc(),
        "images": {"split": request.split, "of": what, "n": found.images, "clean": len(found.clean)},
        "ensemble_info": {
            "n_models": len(members),
            "runs": [member.label for member in members],
            "checkpoints": [member.subject.origin for member in members],
            "weights": list(scored.weights),
            "tta_enabled": TTA in scored.ways,
            "preprocessing": dict(members[0].subject.preprocessing["landmarks"]),
        },
        "audit": [None if leaks is None else leaks.to_json() for leaks in found.by_member],
    }
    if found.clean:
        told["clean"] = scored.part(found.clean).to_json()
    if found.tainted or found.unknown:
        told["not_independent"] = scored.to_json()
    return told


def keep(request: EnsembleRequest, told: Mapping[str, Any]) -> Path:
    """Write the numbers where ensembles are kept, and where `--out` says; the folder."""
    stamp = datetime.now(UTC).strftime("%Y%m%d_%H%M%S")
    folder = request.output / FOLDER / f"{request.spec.name}_{stamp}"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "ensemble.json", dict(told))
    if request.out is not None:
        request.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(request.out, json.dumps(told, indent=1) + "\n")
    return folder


@dataclass(frozen=True)
class _Part:
    """One part of what is told, with what it is called."""

    key: str
    title: str


def _show(request: EnsembleRequest, told: Mapping[str, Any], ways: Sequence[str], folder: Path) -> None:
    if request.as_json:
        typer.echo(json.dumps(told, indent=1))
        return
    texts = []
    n, clean, what = told["images"]["n"], told["images"]["clean"], told["images"]["of"]
    if "clean" in told:
        title = f"{clean} clean images of {what}: mean error of {told['ensemble_info']['n_models']} models"
        texts += [table_of(told["clean"], ways, title), details_of(told["clean"], ways[-1])]
    if "not_independent" in told:
        why = "some are contaminated" if "clean" in told else "none is known to be clean"
        title = f"{MARK}: all {n} images of {what}, {why}; no measure of new images"
        texts.append(table_of(told["not_independent"], ways, title))
    text = "\n\n".join(texts)
    with suppress(OSError):
        write_atomic(folder / "table.txt", text + "\n")
    typer.echo(f"\n{text}\n\nresults: {folder / 'ensemble.json'}")
