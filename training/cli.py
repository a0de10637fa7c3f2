"""The command line: what can be asked, and the exit code that every end has.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from backend.errors import BUG, CONFIG, DONE, IO_ERROR, USAGE, BadDataError, InterruptedRunError, WorkerError
from training.cli_options import (
    AtTheEnd,
    Config,
    Data,
    Datasets,
    Detach,
    DriveId,
    Format,
    MaxCost,
    MaxHours,
    OnFinish,
    Output,
    Price,
    Run,
    Seed,
    Sets,
    Split,
    SyncTo,
    Task,
)
from training.commands.config import config_app
from training.commands.runs import runs_app
from training.ensembles.cli import ensemble, sweep
from training.requests import (
    DATASETS,
    OUTPUT,
    AuditRequest,
    DoctorRequest,
    EvaluateRequest,
    ExportRequest,
    ImportRequest,
    PredictRequest,
    PrepareRequest,
    TrainRequest,
)
from training.shown import without_secrets
from training.tasks import DEFAULT_TASK

INTERRUPTED_BY_KEYBOARD = 130
_DISK_ERRORS = {
    errno.ENOSPC: "free some space or choose another --output",
    errno.EDQUOT: "free some of your quota or choose another --output",
    errno.EROFS: "choose a writable --output",
    errno.EACCES: "give this user the right, or choose another --output",
    errno.EPERM: "give this user the right, or choose another --output",
    errno.EIO: "the disk is failing; choose another --output",
}

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Trains a task on a folder of raw files, through every interruption, and reports what the model can do.\n\n"
    "No command means train.",
    epilog="Exit codes: 0 done, 1 verification failed, 2 usage, 65 bad data, 69 dataset source unavailable, 70 bug, "
    "74 disk, 75 interrupted with a checkpoint saved (run me again), 76 diverged, 78 config, 79 budget spent.",
)
app.add_typer(config_app, name="config")
app.add_typer(runs_app, name="runs")
app.command()(ensemble)
app.command()(sweep)


@app.command()
def train(
    context: typer.Context,
    task: Task = None,
    data: Data = None,
    drive_id: DriveId = None,
    config: Config = None,
    sets: Sets = None,
    run_name: Annotated[str | None, typer.Option("--run-name", help="Becomes part of the run's id.")] = None,
    seed: Seed = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", metavar="N,N,…", help="A run for each seed, one after another, on one split."),
    ] = None,
    output: Output = OUTPUT,
    datasets: Datasets = DATASETS,
    resume: Annotated[
        str, typer.Option("--resume", metavar="auto|never|RUN", help="auto continues this command's own run.")
    ] = "auto",
    sync_to: SyncTo = None,
    max_hours: MaxHours = None,
    max_cost: MaxCost = None,
    price_per_hour: Price = None,
    on_finish: AtTheEnd = OnFinish.NONE,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print every setting with what it means, and end.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do everything up to the first step, say what was found, and end.")
    ] = False,
    detach: Detach = False,
) -> int:
    """Prepare the data, train, evaluate and report. The same command continues what was interrupted."""
    from training.commands.seeds import requests_by_seed, train_each
    from training.config import name_of_task

    if detach:
        return _detached(context, output)
    request = TrainRequest(
        task=name_of_task(task, config),
        data=data,
        drive_id=drive_id,
        config=config,
        sets=tuple(sets or ()),
        seed=seed,
        run_name=run_name,
        output=output,
        datasets=datasets,
        resume=resume,
        sync_to=sync_to,
        max_hours=max_hours,
        max_cost=max_cost,
        price_per_hour=price_per_hour,
        on_finish=on_finish.value,
        argv=tuple(map(without_secrets, context.obj or ())),
    )
    wanted = None if seeds is None else requests_by_seed(request, seeds)
    if print_config or dry_run:
        one = wanted[0] if wanted else request
        if wanted:
            typer.echo(f"# of seed {one.seed}; --seeds {seeds}: the others differ in training.seed and the run's name")
        return _shown(one, print_config)
    if wanted is not None:
        return train_each(wanted)
    from training.commands import train as pipeline

    return pipeline.train(request)


@app.command()
def fetch(
    task: Task = None,
    drive_id: DriveId = None,
    config: Config = None,
    sets: Sets = None,
    output: Output = OUTPUT,
    datasets: Datasets = DATASETS,
) -> None:
    """Download and unpack the dataset that data.manifest or a Drive id names; go on where that was interrupted."""
    from training.commands import dataset
    from training.config import name_of_task

    dataset.fetch(
        PrepareRequest(
            task=name_of_task(task, config),
            drive_id=drive_id,
            config=config,
            sets=tuple(sets or ()),
            output=output,
            datasets=datasets,
        )
    )


@app.command()
def prepare(
    task: Task = None,
    data: Data = None,
    drive_id: DriveId = None,
    config: Config = None,
    sets: Sets = None,
    seed: Seed = None,
    prune: Annotated[bool, typer.Option("--prune", help="Then delete the task's other prepared caches.")] = False,
    output: Output = OUTPUT,
    datasets: Datasets = DATASETS,
) -> None:
    """Read, check, split and cache the data, and show what was found."""
    from training.commands import dataset
    from training.config import name_of_task

    dataset.prepare(
        PrepareRequest(
            task=name_of_task(task, config),
            data=data,
            drive_id=drive_id,
            config=config,
            sets=tuple(sets or ()),
            seed=seed,
            prune=prune,
            output=output,
            datasets=datasets,
        )
    )


@app.command()
def doctor(
    task: Task = None,
    data: Data = None,
    config: Config = None,
    sets: Sets = None,
    seed: Seed = None,
    output: Output = OUTPUT,
    datasets: Datasets = DATASETS,
    price_per_hour: Annotated[
        float | None, typer.Option("--price-per-hour", min=0, help="What the machine costs; adds the cost to the end.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs, and nothing else.")] = False,
) -> int:
    """Check machine, disks, data and settings, try a step and a checkpoint, and say how long training would take."""
    from training.config import name_of_task
    from training.doctor.run import doctor as check

    return check(
        DoctorRequest(
            task=name_of_task(task, config),
            data=data,
            config=config,
            sets=tuple(sets or ()),
            seed=seed,
            output=output,
            datasets=datasets,
            price_per_hour=price_per_hour,
            as_json=as_json,
        )
    )


@app.command()
def evaluate(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN…", help="Runs: an id or its unique beginning, a folder, or a checkpoint in one."),
    ] = None,
    split: Annotated[Split, typer.Option("--split", help="Looks at test are counted.")] = Split.VAL,
    data: Data = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every finished run of --task, which may be a sub-task.")
    ] = False,
    task: Task = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Score kept predictions, without the model.")
    ] = None,
    keep_predictions: Annotated[
        bool, typer.Option("--keep-predictions", help="Keep what the model says to each item beside the scores.")
    ] = False,
    verify_config: Annotated[
        bool, typer.Option("--verify-config", help="Warn where the checkpoint's settings are not --config's.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="With --verify-config: a difference is an error.")] = False,
    config: Config = None,
    sets: Sets = None,
    check_goals: Annotated[
        bool, typer.Option("--check-goals", help="End with 1 where a goal about the split is missed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs, and nothing else.")] = False,
    output: Output = OUTPUT,
    datasets: Datasets = DATASETS,
) -> int:
    """Score the best weights of one run or more: metrics as JSON and as a table, kept in the run's folder."""
    from training.commands.evaluate import evaluate as score

    if (config or strict or (sets and predictions is None)) and not verify_config:
        raise typer.BadParameter(
            "--config, --set and --strict are about --verify-config: add it; other settings of evaluation are scored "
            "from kept predictions, with --predictions"
        )
    return score(
        EvaluateRequest(
            runs=tuple(runs or ()),
            all_of=(task or DEFAULT_TASK) if every else None,
            predictions=predictions,
            split=split.value,
            data=data,
            config=config,
            sets=tuple(sets or ()),
            verify_config=verify_config,
            strict=strict,
            check_goals=check_goals,
            keep_predictions=keep_predictions,
            as_json=as_json,
            output=output,
            datasets=datasets,
        )
    )


@app.command()
def predict(
    run: Run,
    inputs: Annotated[list[Path], typer.Argument(help="Raw files, or a folder of them.")],
    out: Annotated[Path, typer.Option("--out", help="The folder for the results.")],
    confidence: Annotated[
        float | None,
        typer.Option("--confidence", min=0, max=1, help="Draw and label boxes that are so sure, if not as configured."),
    ] = None,
    output: Output = OUTPUT,
    datasets: Datasets = DATASETS,
) -> None:
    """Apply a run's best weights to raw files and write the result in the field's own format."""
    from training.commands.predict import predict as apply

    apply(
        PredictRequest(run=run, inputs=tuple(inputs), out=out, confidence=confidence, output=output, datasets=datasets)
    )


@app.command()
def export(
    run: Run,
    kind: Annotated[
        Format, typer.Option("--format", help="onnx is checked by ONNX Runtime, which must answer as PyTorch does.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The file, if not export/model.* in the run.")
    ] = None,
    output: Output = OUTPUT,
    datasets: Datasets = DATASETS,
) -> None:
    """Write a run's best weights as one file for other programs; ends with 1 where ONNX Runtime says something else."""
    from training.commands.export import export as write

    write(ExportRequest(run=run, format=kind.value, out=out, output=output, datasets=datasets))


@app.command(name="import")
def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Weights of another program, or a checkpoint that holds them (.pth).")],
    task: Task = None,
    data: Data = None,
    config: Config = None,
    sets: Sets = None,
    run_name: Annotated[str | None, typer.Option("--run-name", help="Becomes part of the run's id.")] = None,
    split_known: Annotated[
        bool,
        typer.Option("--split-known", help="They were trained on the split that these settings make of these data."),
    ] = False,
    output: Output = OUTPUT,
    datasets: Datasets = DATASETS,
) -> None:
    """Make a run of old weights, without unpickling them; what they do not tell is marked as unknown."""
    from training.commands.import_weights import import_weights
    from training.config import name_of_task

    import_weights(
        ImportRequest(
            file=file,
            task=name_of_task(task, config),
            data=data,
            config=config,
            sets=tuple(sets or ()),
            run_name=run_name,
            split_known=split_known,
            output=output,
            datasets=datasets,
            argv=tuple(map(without_secrets, context.obj or ())),
        )
    )


@app.command()
def audit(
    sides: Annotated[
        list[str],
        typer.Argument(metavar="RUN[:SPLIT] [RUN[:SPLIT]]", help="One run, or two; a split.json may stand for a run."),
    ],
    near_hours: Annotated[
        float | None, typer.Option("--near-hours", min=0, help="What counts as near in time, if not the split's own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs, and nothing else.")] = False,
    output: Output = OUTPUT,
) -> int:
    """Look for leaks: the same item, group or content on both sides of a split, or moments too near each other."""
    from training.leaks.command import audit as look

    if len(sides) > 2:
        raise typer.BadParameter(f"name one run or two, not {len(sides)}")
    return look(AuditRequest(sides=tuple(sides), near_hours=near_hours, as_json=as_json, output=output))


@app.command()
def report(
    run: Annotated[str | None, typer.Argument(help="A run's id or its unique beginning, or its folder.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All runs under --output.")] = False,
    output: Output = OUTPUT,
) -> None:
    """Write report.html and MODEL_CARD.md of a run or of all anew, and index.html, which lists all runs."""
    from training.reporting.anew import write_anew

    for written in write_anew(output, run, every):
        typer.echo(written)


def _detached(context: typer.Context, output: Path) -> int:
    from training.commands.detach import detach

    return detach(context.obj or (), output)
    return DONE


def _shown(request: TrainRequest, print_config: bool) -> int:
    """What would be trained, its settings alone or all of it."""
    if print_config:
        typer.echo(_resolved(request), nl=False)
        return DONE
    from training.commands.dry_run import dry_run

    dry_run(request)
    return DONE


def _resolved(request: TrainRequest) -> str:
    """The configuration that ``request`` would train with, as YAML with comments."""
    from training.config import dump_yaml
    from training.config.settle import load_request, settle
    from training.machine import nvidia_in_sight

    def has_gpu(config: Any) -> bool:
        """As far as it can be told without torch, whose import takes longer than all the rest."""
        return config.training.device != "cpu" and nvidia_in_sight()

    try:
        loaded, _ = settle(request, os.environ, has_gpu)
    except BadDataError:  # the settings can be shown without the data
        loaded = load_request(request, request.config, os.environ)
    head = [f"preset {loaded.preset}"] if loaded.preset else []
    return "".join(f"# {line}\n" for line in [*head, *loaded.notes]) + dump_yaml(loaded.config, comments=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out ``argv`` (without the program's name) and return the exit code. One line on stderr says what failed."""
    given = list(sys.argv[1:] if argv is None else argv)
    asks_for_help = given[:1] in (["-h"], ["--help"])
    command = given if given and (asks_for_help or not given[0].startswith("-")) else ["train", *given]
    try:
        code = app(args=command, prog_name="train_worker.py", standalone_mode=False, obj=given)
        return code if isinstance(code, int) else DONE
    except Exception as error:
        return _failed(error)
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED_BY_KEYBOARD)


def _failed(error: Exception) -> int:
    if isinstance(error, InterruptedRunError):
        return _say(str(error), error.exit_code)
    if isinstance(error, WorkerError):
        return _say(f"error: {error}", error.exit_code)
    if isinstance(error, typer.TyperException):
        return _say(f"error: {getattr(error, 'format_message', lambda: error)()} (--help shows what there is)", USAGE)
    if isinstance(error, typer.Abort):
        return _say("interrupted", INTERRUPTED_BY_KEYBOARD)
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        place = f": {error.filename}" if error.filename else ""
        return _say(f"error: {error.strerror}{place}; {_DISK_ERRORS[error.errno]}", IO_ERROR)
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        return _say("error: PyTorch is not installed here; run `make setup`, or use the image", CONFIG)
    traceback.print_exception(error)
    return _say("error: this is a bug of the worker; please report it with the lines above and your command", BUG)


def _say(line: str, code: int) -> int:
    with suppress(OSError):  # nobody may be reading any more; the exit code still counts
        typer.echo(without_secrets(line), err=True)
    return code
