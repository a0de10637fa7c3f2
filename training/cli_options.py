"""Options that several commands take, each declared once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from training.tasks import DEFAULT_TASK


class Split(StrEnum):
    """The splits that can be evaluated."""

    VAL = "val"
    TEST = "test"


class Format(StrEnum):
    """What a run's best weights can be exported as."""

    PTH = "pth"
    SAFETENSORS = "safetensors"
    ONNX = "onnx"


class OnFinish(StrEnum):
    """What becomes of a rented instance when the work on it is done."""

    NONE = "none"
    STOP = "stop"
    DESTROY = "destroy"


Task = Annotated[
    str | None, typer.Option("--task", envvar="TASK", help=f"The kind of training job, if not {DEFAULT_TASK}.")
]
Data = Annotated[str | None, typer.Option("--data", metavar="FOLDER|sample", help="The dataset's folder.")]
DriveId = Annotated[
    str | None,
    typer.Option("--drive-id", metavar="ID", help="Fetch this Google Drive file as the dataset."),
]
Config = Annotated[str | None, typer.Option("--config", metavar="PRESET|FILE", help="A preset, or a YAML file.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", "--config-override", metavar="KEY=VALUE", help="A setting, such as training.epochs=10."),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Stands for --set training.seed.")]
Detach = Annotated[bool, typer.Option("--detach", help="Go on in the background; says how to follow and stop it.")]
Output = Annotated[Path, typer.Option("--output", envvar="TRAIN_WORKER_OUTPUT_DIR", help="Where runs are kept.")]
Datasets = Annotated[Path, typer.Option("--datasets", help="Where datasets and prepared caches are kept.")]
SyncTo = Annotated[
    str | None,
    typer.Option(
        "--sync-to",
        metavar="URL|REMOTE:PATH",
        envvar="TRAIN_WORKER_SYNC_TO",
        help="Keep the run there too, and fetch it from there on an empty disk: an fsspec URL or an rclone remote.",
    ),
]
MaxHours = Annotated[
    float | None,
    typer.Option("--max-hours", envvar="TRAIN_WORKER_MAX_HOURS", help="End with 79 when the run has used so many."),
]
MaxCost = Annotated[
    float | None,
    typer.Option("--max-cost", envvar="TRAIN_WORKER_MAX_COST", help="End with 79 when the run has cost so much."),
]
Price = Annotated[
    float | None,
    typer.Option(
        "--price-per-hour", envvar=["TRAIN_WORKER_PRICE_PER_HOUR", "VAST_DPH"], help="What this machine costs."
    ),
]
AtTheEnd = Annotated[
    OnFinish,
    typer.Option(
        "--on-finish",
        envvar="TRAIN_WORKER_ON_FINISH",
        help="When the run is finished or its budget spent, and the copy verified: stop or destroy the instance.",
    ),
]
Run = Annotated[str, typer.Argument(help="A run's id or its unique beginning, its folder, or a checkpoint in it.")]
