"""`train --seeds`: the same training from several seeds, one after another, on one split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import typer

from backend.errors import DONE, DivergedError, UsageError
from training.requests import TrainRequest


def parse_seeds(text: str) -> tuple[int, ...]:
    """``"111,222"`` as numbers. Raises UsageError for anything else, or a seed that stands twice."""
    try:
        seeds = tuple(int(word) for word in text.split(","))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0:
        raise UsageError(f"--seeds {text}: expected whole numbers from 0 with commas between them, such as 111,222,333")
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds {text}: a seed stands twice, and would give the same run twice")
    return seeds


def train_seeds(request: TrainRequest, seeds: Sequence[int]) -> int:
    """Train a run for each seed; the same command continues where it was interrupted, and leaves finished runs alone.

    A seed that diverges is told and does not keep the others from being trained. Whatever else ends a run ends all.

    Raises:
        WorkerError: with the exit code that says whether running again helps.
    """
    from training import pipeline

    if request.seed is not None or request.resume not in ("auto", "never"):
        raise UsageError("--seeds stands beside neither --seed nor --resume RUN: it trains a run of its own for each")
    code = DONE
    for number, seed in enumerate(seeds, start=1):
        typer.echo(f"--- seed {seed} ({number} of {len(seeds)})")
        last = number == len(seeds)  # only then may the machine be given back
        name = f"{request.run_name}_seed{seed}" if request.run_name else f"seed{seed}"
        one = replace(request, seed=seed, run_name=name, on_finish=request.on_finish if last else "none")
        try:
            pipeline.train(one)
        except DivergedError as error:
            typer.echo(f"error: seed {seed}: {error}", err=True)
            code = error.exit_code
    return code
