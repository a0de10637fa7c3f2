"""`sweep`: the best combination of landmark models, chosen on validation images and reported once on test.

Both sets hold only images that no model of the pool has trained on. So neither what is chosen nor what is reported can
come from images that a member remembers, and what is reported had no part in choosing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray

from backend.errors import DONE, UsageError, VerificationError
from backend.files import write_atomic
from training.clock import now_utc
from training.engine.interruption import StopRequest
from training.ensembles.answers import Said
from training.ensembles.audit import contamination
from training.ensembles.bench import DataBench, Images, images_of
from training.ensembles.combine import all_combinations, combination_errors, count_combinations, worth
from training.ensembles.ensemble import ask, keep, labels
from training.ensembles.members import EnsembleMember, open_members
from training.ensembles.told import PLAIN, TTA, Scored, contamination_lines, details_of, table_of
from training.heartbeat import beat
from training.reporting.log import RunLog
from training.reporting.progress import Progress
from training.requests import SweepRequest
from training.scores.landmark_errors import PIXELS
from training.tasks.protocol import Prepared

_SHOWN = 5
_MOST = 2_000_000  # combinations; more would be a list that nobody reads


@dataclass(frozen=True)
class _Side:
    """The clean images of a split, and what each model of the pool says to them."""

    images: Images
    said: Sequence[Said]

    def pixels(self, way: str) -> NDArray[np.float32]:
        """Predictions [M, N, P, 2] in pixels at 224."""
        return np.stack([said.plain if way == PLAIN or said.tta is None else said.tta for said in self.said]) * PIXELS


def sweep(request: SweepRequest) -> int:
    """Ask every model of the pool once, score all combinations on val, tell the best one's error on test.

    Raises:
        UsageError: a combination would need more models than there are.
        VerificationError: no clean image is left to choose or to report by.
        WorkerError: the models cannot be averaged, or the data cannot be read.
    """
    _check_sizes(request)
    log = RunLog(None)
    log.console.quiet = request.as_json
    with StopRequest(beat) as stop, Progress(log) as display:
        pool = open_members(request.output, request.spec)
        data = DataBench(request, request.data, stop, display)
        _, prepared = data.of(pool[0], request.spec.split_seed)
        val, test = (_side(pool, images_of(prepared, split), data, log) for split in ("val", "test"))
        way = _way(request, val)
        chosen = all_combinations(len(pool), request.sizes)
        progress = lambda done, total: display.update("combinations", done, total)  # noqa: E731
        errors = combination_errors(val.pixels(way), val.images.points * PIXELS, chosen, progress)
    told = _told(request, pool, prepared, val, test, way, chosen, errors)
    folder = keep(request, told)
    listing = _listing(pool, chosen, errors)
    write_atomic(folder / "combinations.txt", listing)
    if request.out is not None:
        write_atomic(request.out, listing)
    _show(request, told, way, request.out or folder / "combinations.txt", folder)
    return DONE


def _check_sizes(request: SweepRequest) -> None:
    models = len(request.spec.members)
    for size in request.sizes:
        if not 2 <= size <= models:
            raise UsageError(f"--k {size}: expected 2 to {models}, the number of models that are named")
    total = count_combinations(models, request.sizes)
    if total > _MOST:
        raise UsageError(f"{total:,} combinations of {models} models are more than {_MOST:,}; name fewer, or lower --k")
    if request.spec.weights is not None:
        raise UsageError("weights belong to one ensemble; a sweep's combinations weigh their members alike")


def _side(pool: Sequence[EnsembleMember], images: Images, data: DataBench, log: RunLog) -> _Side:
    """Raises VerificationError where no clean image is left."""
    found = contamination(pool, images.members, images.split)
    for line in contamination_lines(found, labels(pool), images.split):
        log.say(line)
    if not found.clean:
        purpose = "choose by" if images.split == "val" else "report"
        raise VerificationError(
            f"no image of {images.split} is clean for the whole pool, so that there is nothing to {purpose}; name "
            "models that share a split (train --seeds 1,2,3), or leave out those that the audit names"
        )
    clean = images.part(found.clean)
    return _Side(clean, ask(pool, clean, data))


def _way(request: SweepRequest, side: _Side) -> str:
    mirrors = all(said.tta is not None for said in side.said)
    if request.spec.tta and not mirrors:
        raise UsageError("--tta: the points' mirror pairs are not known, so that no mirror image can be asked for")
    return TTA if mirrors and request.spec.tta is not False else PLAIN


def _told(
    request: SweepRequest,
    pool: Sequence[EnsembleMember],
    prepared: Prepared,
    val: _Side,
    test: _Side,
    way: str,
    chosen: Sequence[tuple[int, ...]],
    errors: NDArray[Any],
) -> dict[str, Any]:
    best = chosen[int(errors.argmin())]
    members = [pool[index] for index in best]
    scored = Scored(
        images=test.images,
        members=[test.said[index] for index in best],
        weights=(1.0,) * len(best),
        mean_shape=np.array(prepared.facts["mean_shape"]),
        names=labels(members),
        points=pool[0].names,
        classes=list(prepared.facts["classes"]),
        ways=[PLAIN, TTA] if way == TTA else [PLAIN],
    )
    return {
        "format": 1,
        "name": request.spec.name,
        "time": now_utc(),
        "pool": [{"run": one.label, "checkpoint": one.subject.origin} for one in pool],
        "sizes": list(request.sizes),
        "combinations": len(chosen),
        "chosen_on": {"split": "val", "images": len(val.images), "way": way, "scale": "px at 224"},
        "best": {"runs": labels(members), "val_px_224": round(float(errors.min()), 4)},
        "worth_on_val_px_224": dict(
            zip(labels(pool), _worth_in_pool(val.pixels(way), val.images.points * PIXELS), strict=True)
        ),
        "best_of_each_size": {str(size): _best_of(size, pool, chosen, errors) for size in request.sizes},
        "reported_on": {"split": "test", "images": len(test.images)},
        "clean": scored.to_json(),
    }


def _worth_in_pool(predictions: NDArray[Any], truth: NDArray[Any]) -> list[float]:
    return [round(float(value), 4) for value in worth(predictions, truth)]


def _best_of(
    size: int, pool: Sequence[EnsembleMember], chosen: Sequence[tuple[int, ...]], errors: NDArray[Any]
) -> dict[str, Any]:
    of_size = [index for index, members in enumerate(chosen) if len(members) == size]
    index = min(of_size, key=lambda index: errors[index])
    return {"runs": labels([pool[i] for i in chosen[index]]), "val_px_224": round(float(errors[index]), 4)}


def _listing(pool: Sequence[EnsembleMember], chosen: Sequence[tuple[int, ...]], errors: NDArray[Any]) -> str:
    """Every combination by its validation error, the best one first and named once more at the end."""
    names = labels(pool)
    order = np.argsort(errors, kind="stable")
    lines = [f"{errors[i]:.4f} px | {' '.join(names[index] for index in chosen[i])}" for i in order]
    head = "# mean validation error in px at 224 | members"
    return "\n".join([head, *lines, f"BEST: {lines[0]}"]) + "\n"


def _show(request: SweepRequest, told: Mapping[str, Any], way: str, listing: Path, folder: Path) -> None:
    if request.as_json:
        typer.echo(json.dumps(told, indent=1))
        return
    on, best, n = told["chosen_on"], told["best"], told["reported_on"]["images"]
    lines = [
        f"\n{told['combinations']:,} combinations of {len(told['pool'])} models, by {on['images']} clean images of val:"
    ]
    lines += [f"  {line}" for line in islice(listing.read_text("utf-8").splitlines(), 1, 1 + _SHOWN)]
    lines.append(f"BEST: {best['val_px_224']:.2f} px on val | {' '.join(best['runs'])}")
    ways = [PLAIN, TTA] if way == TTA else [PLAIN]
    title = f"The best one, once, on {n} clean images of test"
    texts = ["\n".join(lines), table_of(told["clean"], ways, title), details_of(told["clean"], way)]
    runs = " ".join(best["runs"])
    typer.echo("\n\n".join(texts) + f"\n\nall combinations: {listing}\nresults: {folder / 'ensemble.json'}")
    typer.echo(f"the same again: ensemble {runs}")
