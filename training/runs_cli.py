"""`runs …`: what is done with runs that are there."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from training.requests import OUTPUT

runs_app = typer.Typer(add_completion=False, rich_markup_mode="rich", help="Runs that are there.")


class TrackerName(StrEnum):
    """Where a run's curves can be brought."""

    MLFLOW = "mlflow"
    WANDB = "wandb"


@runs_app.callback()
def _runs() -> None:
    """Keep `push` a command of its own, although there is no other."""


@runs_app.command()
def push(
    run: Annotated[str, typer.Argument(help="A run's id or its unique beginning, or its folder.")],
    to: Annotated[TrackerName, typer.Option("--to", help="Needs training/requirements.trackers.txt installed.")],
    output: Annotated[
        Path, typer.Option("--output", envvar="TRAIN_WORKER_OUTPUT_DIR", help="Where runs are kept.")
    ] = OUTPUT,
) -> None:
    """Bring a run's curves and scores to MLflow or Weights & Biases, each point once."""
    from training.reporting.trackers.push import push as bring
    from training.run import resolve_run

    bring(resolve_run(output, run), to.value, typer.echo)
