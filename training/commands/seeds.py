"""`train --seeds`: the same training from several seeds, one after another, on one split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import typer

from backend.errors import DONE, DivergedError, UsageError
from training.engine.interruption import StopRequest
from training.heartbeat import beat
from training.requests import WORKER, TrainRequest

SEED = "training.seed"
MEMBERS_TASK = "landmarks"  # whose runs can be averaged


def requests_by_seed(request: TrainRequest, text: str) -> list[TrainRequest]:
    """One request for each seed of ``text`` (``111,222``); they differ in seed and run name alone.

    Only the last one that finishes ends a rented instance: until then there is more to do. A spent budget ends it too.

    Raises:
        UsageError: ``text`` holds something else or a seed twice, or the request names a seed or a run of its own.
    """
    seeds = _parsed(text)
    if request.seed is not None or any(word.partition("=")[0].strip() == SEED for word in request.sets):
        raise UsageError(f"--seeds {text!r}: the seed is named a second time; drop --seed and --set {SEED}")
    if request.resume not in ("auto", "never"):
        raise UsageError(f"--seeds {text!r}: trains a run of its own for each seed; drop --resume {request.resume}")
    stem = f"{request.run_name}_" if request.run_name else ""
    last = seeds[-1]
    return [replace(request, seed=seed, run_name=f"{stem}seed{seed}", more_follow=seed != last) for seed in seeds]


def _parsed(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdecimal() for word in words):
        raise UsageError(
            f"--seeds {text!r}: expected whole numbers from 0 with commas between them, such as 111,222,333"
        )
    seeds = [int(word) for word in words]
    if twice := [seed for seed, count in Counter(seeds).items() if count > 1]:
        raise UsageError(f"--seeds {text!r}: {twice[0]} stands twice, and would give the same run twice")
    return seeds


def train_each(requests: Sequence[TrainRequest]) -> int:
    """Train a run for each request; the same command continues where it was interrupted, and leaves finished ones.

    One that diverges is told and does not keep the others from being trained. Whatever else ends one ends all.

    Raises:
        WorkerError: with the exit code that says whether running again helps.
    """
    from training.commands import train as pipeline

    code, trained = DONE, []
    with StopRequest(beat) as stop:  # also between two trainings, each of which heeds signals by itself
        for number, request in enumerate(requests, start=1):
            stop.check()
            typer.echo(f"--- seed {request.seed} ({number} of {len(requests)})")
            try:
                trained.append(pipeline.trained_run(request).run_id)
            except DivergedError as error:
                typer.echo(f"error: seed {request.seed}: {error}", err=True)
                code = error.exit_code
    _say_next(requests[0].task, trained)
    return code


def _say_next(task: str, runs: Sequence[str]) -> None:
    """Which runs there are, and what is done with them."""
    typer.echo(f"--- {len(runs)} trained: {' '.join(runs)}")
    if len(runs) < 2:
        return
    command = "ensemble" if task == MEMBERS_TASK else "runs compare"
    typer.echo(f"next: {WORKER} {command} {' '.join(runs)}")
