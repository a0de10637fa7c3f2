"""`sweep`: the best combination of landmark models, chosen on validation images and reported once on test.

Both sets hold only images that no model of the pool has trained on. So neither what is chosen nor what is reported can
come from images that a member remembers, and what is reported had no part in choosing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray

from backend.errors import DONE, UsageError, VerificationError
from backend.files import write_atomic
from training.clock import now_utc
from training.engine.interruption import StopRequest
from training.ensembles.answers import Said, ask_all
from training.ensembles.audit import contamination
from training.ensembles.bench import DataBench, Images
from training.ensembles.combine import all_combinations, combination_errors, count_combinations, mean_errors, worth
from training.ensembles.ensemble import headline
from training.ensembles.kept import RESULT, as_json, check_out, keep, look_at
from training.ensembles.members import EnsembleMember, open_members, other_origins
from training.ensembles.scored import Scored, predictions_of, rounded, ways_of
from training.ensembles.sweep_told import LISTING, listing, text_of
from training.ensembles.told import say_all
from training.heartbeat import beat
from training.reporting.log import RunLog
from training.reporting.progress import Progress
from training.requests import WORKER, SweepRequest
from training.runs.run import is_split_told
from training.scores.landmark_errors import PIXELS

_MOST = 2_000_000  # combinations; more would be a list that nobody reads


@dataclass(frozen=True)
class _Side:
    """The clean images of a split, and what each model of the pool says to them."""

    images: Images
    said: Sequence[Said]

    def pixels(self, way: str) -> NDArray[Any]:
        """Predictions [M, N, P, 2] in pixels at 224."""
        return predictions_of(self.said, way) * PIXELS

    @property
    def truth(self) -> NDArray[Any]:
        """[N, P, 2] in pixels at 224."""
        return self.images.points * PIXELS


@dataclass(frozen=True)
class _Search:
    """All combinations with their errors on the clean images of val."""

    request: SweepRequest
    pool: Sequence[EnsembleMember]
    val: _Side
    way: str
    chosen: Sequence[tuple[int, ...]]
    errors: NDArray[Any]

    @cached_property
    def best(self) -> tuple[int, ...]:
        """The pool's indices of the best combination; of equals the first."""
        return self.chosen[int(self.errors.argmin())]

    def names(self, members: Sequence[int]) -> list[str]:
        """What a combination's members are called."""
        return [self.pool[index].label for index in members]

    def told(self) -> dict[str, Any]:
        """What was found, without what it says on test."""
        return {
            "format": 1,
            "name": self.request.spec.name,
            "time": now_utc(),
            "pool": self._pool(),
            "sizes": list(self.request.sizes),
            "combinations": len(self.chosen),
            "chosen_on": {"split": "val", "images": len(self.val.images), "way": self.way, "scale": "px at 224"},
            "best": {"runs": self.names(self.best), "val_px_224": rounded(self.errors.min())},
            "best_of_each_size": {str(size): self._best_of(size) for size in self.request.sizes},
        }

    def _pool(self) -> list[dict[str, Any]]:
        """Each model's error alone, and how much larger that of the whole pool is without it."""
        predictions, truth = self.val.pixels(self.way), self.val.truth
        alone, values = mean_errors(predictions, truth), worth(predictions, truth)
        return [
            {
                "run": member.label,
                "checkpoint": str(member.checkpoint),
                "split_taken_on_trust": is_split_told(member.run),
                "val_px_224": rounded(error),
                "worth_on_val_px_224": rounded(value),
            }
            for member, error, value in zip(self.pool, alone, values, strict=True)
        ]

    def _best_of(self, size: int) -> dict[str, Any]:
        of_size = np.array([len(members) == size for members in self.chosen])
        index = int(np.where(of_size, self.errors, np.inf).argmin())
        return {"runs": self.names(self.chosen[index]), "val_px_224": rounded(self.errors[index])}


def sweep(request: SweepRequest) -> int:
    """Ask every model of the pool once, score all combinations on val, tell the best one's error on test.

    Raises:
        UsageError: a combination would need more models than there are.
        VerificationError: no clean image is left to choose or to report by.
        InterruptedRunError: a stop was asked for; what was said until then is kept.
        WorkerError: the models cannot be averaged, or the data cannot be read.
    """
    _check_sizes(request)
    check_out(request.out)
    log = RunLog(None)
    log.console.quiet = request.as_json
    with StopRequest(beat) as stop, Progress(log) as display:
        pool = open_members(request.output, request.spec)
        data = DataBench.open(pool[0], request, stop, log, display)
        say_all(log, other_origins(pool))
        val, test = (_clean_images(pool, data, split) for split in ("val", "test"))
        search = _search(request, pool, _Side(val, ask_all(pool, val.contents, data)), data)
        scored = _reported(search, test, data)
    _publish(search, scored, data)
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


def _clean_images(pool: Sequence[EnsembleMember], data: DataBench, split: str) -> Images:
    """Those of a split that no model has learned from. Raises VerificationError where there are none."""
    images = data.images(split)
    found = contamination(pool, images.members, split)
    say_all(data.log, found.lines(data.described(split)))
    if not found.clean:
        purpose = "choose by" if split == "val" else "report"
        raise VerificationError(
            f"no image of {split} is clean for the whole pool, so there is nothing to {purpose}; name models that "
            "share a split (train --seeds 1,2,3), or leave out those that the audit names"
        )
    return images.part(found.clean)


def _search(request: SweepRequest, pool: Sequence[EnsembleMember], val: _Side, data: DataBench) -> _Search:
    way = ways_of(val.said, request.spec.tta)[-1]
    chosen = all_combinations(len(pool), request.sizes)

    def progress(done: int, total: int) -> None:
        data.work.stop.check()
        data.work.progress("combinations", done, total)

    errors = combination_errors(val.pixels(way), val.truth, chosen, progress)
    return _Search(request, pool, val, way, chosen, errors)


def _reported(search: _Search, test: Images, data: DataBench) -> Scored:
    """The best combination on test, the one look at it: only its members are asked."""
    members = [search.pool[index] for index in search.best]
    said = ask_all(members, test.contents, data)
    return Scored.of(members, test, said, data, replace(search.request.spec, members=tuple(m.named for m in members)))


def _publish(search: _Search, scored: Scored, data: DataBench) -> None:
    """Keep everything, write `--out`, and show it."""
    request = search.request
    clean = scored.to_json()
    told = {
        **search.told(),
        "reported_on": {"split": "test", "images": len(scored.images)},
        **look_at(request.output, data.images("test").contents),
        **headline(clean, search.way),
        "clean": clean,
    }
    lines = listing([search.names(members) for members in search.chosen], search.errors)
    text = text_of(told, scored.ways, lines)
    folder = keep(request.output, request.spec.name, {"table.txt": text, LISTING: lines, RESULT: as_json(told)})
    if request.out is not None:
        write_atomic(request.out, lines)
    if request.as_json:
        typer.echo(as_json(told), nl=False)
        return
    typer.echo(f"\n{text}")
    places = {"all combinations": request.out or (folder and folder / LISTING), "results": folder and folder / RESULT}
    for what, place in places.items():
        if place is not None:
            typer.echo(f"{what}: {place}")
    typer.echo(f"the same again: {WORKER} ensemble {' '.join(search.pool[index].named for index in search.best)}")
