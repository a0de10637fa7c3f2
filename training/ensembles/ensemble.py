"""`ensemble`: the mean of several landmark models, on images that none of them has learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from backend.errors import DONE, VerificationError
from backend.files import write_atomic
from training.clock import now_utc
from training.engine.interruption import StopRequest
from training.ensembles.answers import ask_all
from training.ensembles.audit import Contamination, contamination
from training.ensembles.bench import ALL, DataBench
from training.ensembles.kept import RESULT, as_json, check_out, keep, look_at
from training.ensembles.members import EnsembleMember, open_members, other_origins
from training.ensembles.scored import TTA, Scored
from training.ensembles.told import counted, looks_line, part_of, say_all
from training.heartbeat import beat
from training.reporting.log import RunLog
from training.reporting.progress import Progress
from training.requests import EnsembleRequest

TEST = "test"
MARK = "NOT INDEPENDENT"


def ensemble(request: EnsembleRequest) -> int:
    """Audit, ask every member, average, tell; the exit code.

    Raises:
        VerificationError: no image is clean, and `--allow-leaks` does not say to go on.
        InterruptedRunError: a stop was asked for; what was said until then is kept.
        WorkerError: the members cannot be averaged, or the data cannot be read.
    """
    check_out(request.out)
    log = RunLog(None)
    log.console.quiet = request.as_json
    with StopRequest(beat) as stop, Progress(log) as display:
        members = open_members(request.output, request.spec)
        data = DataBench.open(members[0], request, stop, log, display)
        say_all(log, other_origins(members))
        images = data.images(request.split)
        found = contamination(members, images.members, request.split)
        say_all(log, found.lines(data.described(request.split)))
        _check_clean(found, request)
        said = ask_all(members, images.contents, data)
        scored = Scored.of(members, images, said, data, request.spec)
        told = _told(request, members, scored, found, data)
    _publish(request, told, scored, found)
    return DONE


def _check_clean(found: Contamination, request: EnsembleRequest) -> None:
    if found.clean or request.allow_leaks:
        return
    known = "name members that share a split (train --seeds 1,2,3), or other images (--data)"
    if found.unknown:
        known = "import them with --split-known where their split is known, or name other members"
    raise VerificationError(
        "no image is known to be clean, so any number would say how well the members remember, not how well they see; "
        f"{known}; --allow-leaks goes on and marks every number"
    )


def _told(
    request: EnsembleRequest,
    members: Sequence[EnsembleMember],
    scored: Scored,
    found: Contamination,
    data: DataBench,
) -> dict[str, Any]:
    """The headline is the clean part; everything else stands under a name that says what it is."""
    clean = scored.part(found.clean).to_json() if found.clean else None
    told: dict[str, Any] = {
        "format": 1,
        "name": request.spec.name,
        "time": now_utc(),
        "is_sample": data.work.source.is_sample,
        "images": {"split": request.split, "of": data.described(request.split), **_counts(found)},
        "ensemble_info": _info(members, scored),
        "audit": [None if leaks is None else leaks.to_json() for leaks in found.by_member],
        "splits_taken_on_trust": list(found.taken_on_trust),
    }
    if clean is not None:
        told |= {**headline(clean, scored.ways[-1]), "clean": clean}
    if len(found.clean) < len(found.examined):
        told["not_independent"] = scored.to_json()
    if request.split in (TEST, ALL):
        told |= look_at(request.output, data.images(TEST).contents)
    return told


def _counts(found: Contamination) -> dict[str, int]:
    return {"n": len(found.examined), "clean": len(found.clean), "contaminated": len(found.tainted)}


def _info(members: Sequence[EnsembleMember], scored: Scored) -> dict[str, Any]:
    preprocessing = dict(members[0].preprocessing)
    return {
        "n_models": len(members),
        "runs": [member.label for member in members],
        "checkpoints": [str(member.checkpoint) for member in members],
        "weights": list(scored.weights),
        "tta_enabled": TTA in scored.ways,
        "clahe_enabled": preprocessing["clahe"],
        "preprocessing": preprocessing,
    }


def headline(clean: Mapping[str, Any], way: str) -> dict[str, Any]:
    """The clean part's numbers at 224 under the names that programs of the field read."""
    found = clean["ensemble"][way]["px_224"]
    names = ("mean", "std", "median", "per_landmark", "per_category")
    percentiles = {"p50": found["median"], **{name: found[name] for name in ("p75", "p90", "p95")}}
    return {"scale": "px at 224", "way": way, **{name: found[name] for name in names}, "percentiles": percentiles}


def _publish(request: EnsembleRequest, told: Mapping[str, Any], scored: Scored, found: Contamination) -> None:
    """Keep everything, write `--out`, and show it."""
    text = _text(told, scored.ways)
    tainted = set(found.tainted)
    contaminated = [True if i in tainted else None if found.unknown else False for i in range(len(found.examined))]
    rows = scored.frame(contaminated).to_csv(index=False)
    folder = keep(request.output, request.spec.name, {"table.txt": text, "images.csv": rows, RESULT: as_json(told)})
    if request.out is not None:
        write_atomic(request.out, as_json(told))
    if request.as_json:
        typer.echo(as_json(told), nl=False)
        return
    typer.echo(f"\n{text}")
    if folder is not None:
        typer.echo(f"every image: {folder / 'images.csv'}\nresults: {folder / RESULT}")


def _text(told: Mapping[str, Any], ways: Sequence[str]) -> str:
    images, models = told["images"], counted(told["ensemble_info"]["n_models"], "model")
    what, clean = images["of"], images["clean"]
    parts = []
    if clean:
        parts.append(part_of(told["clean"], ways, f"{counted(clean, 'clean image')} of {what}, {models}"))
    if "not_independent" in told:
        rest = images["n"] - clean
        why = f"{rest} of them contaminated" if images["contaminated"] else "and nobody knows which are clean"
        title = f"{MARK} (*): all {counted(images['n'])} of {what}, {why}. No number here measures new images"
        parts.append(part_of(told["not_independent"], ways, title, marked=True))
    return "\n\n".join(parts) + f"\n{looks_line(told)}"
