"""``runs``: the commands about the list of runs. They need no PyTorch and import what they use when they run."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backend.errors import UsageError
from training.requests import DATASETS, OUTPUT

if TYPE_CHECKING:
    from training.registry.comparison import Comparison
    from training.registry.entry import Entry
    from training.registry.index import Registry

runs_app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    help="List, compare, rank and delete runs. Any of them is named by its id or a unique beginning of it.",
)

Output = Annotated[Path, typer.Option("--output", envvar="TRAIN_WORKER_OUTPUT_DIR", help="Where runs are kept.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's id or its unique beginning, or its folder.")]
Dataset = Annotated[
    str | None, typer.Option("--dataset", metavar="FINGERPRINT", help="Only runs on this dataset; a beginning will do.")
]
AllMetrics = Annotated[bool, typer.Option("--all-metrics", help="Every metric, not only the headlines.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs, and nothing else.")]


class Mode(StrEnum):
    """Which way is better."""

    MIN = "min"
    MAX = "max"


class TrackerName(StrEnum):
    """Where a run's curves can be brought."""

    MLFLOW = "mlflow"
    WANDB = "wandb"


class Format(StrEnum):
    """How a comparison is written."""

    TABLE = "table"
    MARKDOWN = "markdown"
    LATEX = "latex"
    JSON = "json"
    CSV = "csv"


@runs_app.command("list")
def list_runs(
    task: Annotated[str | None, typer.Option("--task", help="Only runs of this task or sub-task.")] = None,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Only runs in this state; may be repeated.")
    ] = None,
    dataset: Dataset = None,
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="METRIC", help="By a val/ metric, lowest first, not newest first.")
    ] = None,
    descending: Annotated[bool, typer.Option("--descending", help="With --sort: highest first.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Show so many at most; 0 for all.")] = 50,
    as_json: AsJson = False,
    output: Output = OUTPUT,
) -> None:
    """List the runs, newest first, with their state and their best validation."""
    from training.registry.display import print_tables, runs_table
    from training.registry.selection import select, sort_by

    found = select(_registry(output).entries(), task, state or (), dataset)
    if sort is not None:
        found = sort_by(found, sort, descending)
    if as_json:
        return _print_json(found)
    shown = found[:limit] if limit else found
    if not found:
        typer.echo("no runs" + (" of that kind" if task or state or dataset else f" under {output}"))
        return None
    print_tables([runs_table(shown, sort)])
    if len(shown) < len(found):
        typer.echo(f"and {len(found) - len(shown):,} more (--limit 0 shows all {len(found):,})")
    return None


@runs_app.command()
def show(run: Run, every: AllMetrics = False, as_json: AsJson = False, output: Output = OUTPUT) -> None:
    """Show one run: where it is, what it was made with, and its scores (as JSON all of them)."""
    from training.registry.display import print_tables, run_tables
    from training.registry.names import named_run
    from training.registry.results import all_metrics

    registry = _registry(output)
    entry = named_run(registry, registry.entries(), run)
    metrics = all_metrics(entry)
    if as_json:
        return _print_json({**entry, "metrics": metrics})
    print_tables(run_tables(entry, metrics if every else entry["metrics"]))
    if hidden := 0 if every else len(set(metrics) - set(entry["metrics"])):
        print(f"{hidden} more metrics: --all-metrics")  # noqa: T201
    return None


@runs_app.command()
def best(
    task: Annotated[str | None, typer.Option("--task", envvar="TASK", help="The task or sub-task.")] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", metavar="val/…", help="By default what the runs chose their best by.")
    ] = None,
    mode: Annotated[
        Mode | None, typer.Option("--mode", help="Which way is better; known of what the runs chose their best by.")
    ] = None,
    dataset: Dataset = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Show so many.")] = 5,
    as_json: AsJson = False,
    output: Output = OUTPUT,
) -> None:
    """Rank the finished runs of a task by a validation metric. Runs on the built-in sample never count."""
    from training.registry.ranking import only_task, ranked
    from training.registry.selection import select

    entries = select(_registry(output).entries(), None, (), dataset)
    task = task or only_task(entries)
    metric, way = _metric_and_mode(entries, task, metric, mode)
    found = ranked(entries, task, metric, way)
    if as_json:
        return _print_json(found[0])
    return _print_ranking(found, metric, way, top)


@runs_app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN…", help="Two runs or more.")],
    metric: Annotated[list[str] | None, typer.Option("--metric", help="Only this metric; may be repeated.")] = None,
    every: AllMetrics = False,
    form: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.TABLE,
    curves: Annotated[
        Path | None, typer.Option("--curves", metavar="FILE", help="Also draw the curves: FILE.png and FILE.svg.")
    ] = None,
    output: Output = OUTPUT,
) -> None:
    """Put runs beside each other: the settings in which they differ, and their scores."""
    from training.registry.comparison import compare as put_together
    from training.registry.names import named_run

    registry = _registry(output)
    known = registry.entries()
    chosen = [named_run(registry, known, run) for run in runs]
    if len({entry["folder"] for entry in chosen}) < 2:
        raise UsageError("compare takes two different runs or more")
    comparison = put_together(chosen, metric or (), every_metric=every)
    _print_comparison(comparison, form)
    if curves is not None:
        _draw_curves(chosen, comparison.runs, metric, curves)


@runs_app.command()
def export(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Without it, to the standard output.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="Only runs of this task or sub-task.")] = None,
    every: AllMetrics = False,
    output: Output = OUTPUT,
) -> None:
    """Write the list as CSV: a row for each run, a column for whatever any of them has."""
    from backend.files import write_atomic
    from training.registry.export import export_csv
    from training.registry.selection import select

    found = select(_registry(output).entries(), task, (), None)
    text = export_csv(found, every_metric=every)
    if file is None:
        typer.echo(text, nl=False)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, text)
    typer.echo(f"{len(found):,} runs: {file}")


@runs_app.command()
def verify(
    run: Run,
    data: Annotated[
        str | None, typer.Option("--data", metavar="FOLDER", help="Where the run's dataset is now.")
    ] = None,
    retrain: Annotated[bool, typer.Option("--retrain", help="Also train its config.yaml again, and compare.")] = False,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance", min=0, help="How far a score may be off, as a share of it (of 0.001 where it is smaller)."
        ),
    ] = 1e-4,
    output: Output = OUTPUT,
    datasets: Annotated[Path, typer.Option("--datasets", help="Where datasets and prepared caches are.")] = DATASETS,
) -> int:
    """Hold a run against its record: files, settings, data, split and scores. Ends with 1 where something is off."""
    from training.commands.verify import verify_run
    from training.requests import VerifyRequest

    return verify_run(
        VerifyRequest(run=run, data=data, retrain=retrain, tolerance=tolerance, output=output, datasets=datasets)
    )


@runs_app.command()
def push(
    run: Run,
    to: Annotated[TrackerName, typer.Option("--to", help="Needs training/requirements.trackers.txt installed.")],
    output: Output = OUTPUT,
) -> None:
    """Bring a run's curves and scores to MLflow or Weights & Biases, each point once."""
    from training.reporting.trackers.push import push as bring
    from training.runs.run import resolve_run

    bring(resolve_run(output, run), to.value, typer.echo)


@runs_app.command()
def rebuild(output: Output = OUTPUT) -> None:
    """Make the registry anew from the run folders."""
    registry = _registry(output)
    count, gone = registry.rebuild()
    typer.echo(f"{registry.path}: {count:,} runs")
    for task, run_id in gone:
        typer.echo(f"{task}/{run_id} is off the list: its folder is gone")


@runs_app.command()
def delete(
    runs: Annotated[list[str], typer.Argument(metavar="RUN…", help="The runs to delete.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    output: Output = OUTPUT,
) -> None:
    """Delete runs, folder and all. One that is being worked on is refused."""
    from training.registry.deletion import delete_run
    from training.registry.names import named_run

    registry = _registry(output)
    known = registry.entries()
    chosen = {entry["folder"]: entry for entry in (named_run(registry, known, run) for run in runs)}
    for entry in chosen.values():
        if not yes and not _confirmed(entry):
            typer.echo(f"{entry['run_id']} stays")
            continue
        delete_run(registry, entry)
        typer.echo(f"{entry['run_id']} is deleted")


def _registry(output: Path) -> Registry:
    from training.registry.index import Registry
    from training.registry.place import registry_place

    return Registry(registry_place(output, os.environ), output, lambda line: typer.echo(line, err=True))


def _metric_and_mode(entries: list[Entry], task: str, metric: str | None, mode: Mode | None) -> tuple[str, str]:
    from training.registry.ranking import check_ranks, own_metric, own_mode

    if metric is None:
        own, way = own_metric(entries, task)
        if mode is not None and mode != way:
            raise UsageError(f"--mode {mode}: {own}, by which these runs were chosen, has the mode {way}")
        return own, way
    check_ranks(metric)
    asked = own_mode(entries, task, metric) if mode is None else mode.value
    if asked is None:
        raise UsageError(f"--metric {metric}: say which way is better with --mode min or --mode max")
    return metric, asked


def _print_ranking(found: list[Entry], metric: str, mode: str, top: int) -> None:
    from training.registry.display import print_tables, runs_table
    from training.registry.entry import BEST
    from training.registry.ranking import datasets_of, losses_of
    from training.registry.tables import shown

    first = found[0]
    print_tables([runs_table(found[:top], metric)])
    if len(datasets_of(found)) > 1:
        typer.echo(
            f"note: these runs were validated on {len(datasets_of(found))} different datasets or splits; --dataset "
            "compares like with like"
        )
    losses = losses_of(found, first["selection"]["metric"] if metric == BEST else metric)
    if len(losses) > 1:
        typer.echo(
            f"note: these runs have {len(losses)} different losses (their settings of loss or its scale differ), so "
            f"their {metric} does not compare; rank by a score with --metric and --mode"
        )
    value = shown(first["metrics"][metric])
    typer.echo(f"best of {len(found):,} by {metric} ({mode}): {first['run_id']} with {value}")
    typer.echo(f"checkpoint: {first['checkpoint_path'] or first['folder']}")


def _print_comparison(comparison: Comparison, form: Format) -> None:
    from training.registry.display import comparison_tables, print_tables, sections
    from training.registry.tables import csv_text, latex, markdown

    if form is Format.JSON:
        return _print_json(comparison.as_json())
    if form is Format.CSV:
        rows = [[what, name, *values] for what, table in sections(comparison) for name, values in table]
        typer.echo(csv_text(["kind", "name", *comparison.runs], rows), nl=False)
    elif form is Format.TABLE:
        print_tables(comparison_tables(comparison))
    else:
        write = markdown if form is Format.MARKDOWN else latex
        parts = [write([what, *comparison.runs], [[n, *v] for n, v in rows]) for what, rows in sections(comparison)]
        typer.echo("\n".join(parts), nl=False)
    for note in comparison.notes:
        typer.echo(f"note: {note}", err=form is not Format.TABLE)
    return None


def _draw_curves(entries: list[Entry], names: list[str], metrics: list[str] | None, file: Path) -> None:
    from training.reporting.compared_curves import draw_compared

    metric = metrics[0] if metrics else entries[0]["selection"].get("metric") or "val/loss"
    runs = [(name, Path(entry["folder"])) for name, entry in zip(names, entries, strict=True)]
    for path in draw_compared(runs, metric, file):
        typer.echo(path, err=True)


def _confirmed(entry: Entry) -> bool:
    from training.registry.deletion import size_of
    from training.registry.ranking import may_be_best

    if not sys.stdin.isatty():
        raise UsageError(f"{entry['run_id']}: nobody is there to ask; --yes deletes without asking")
    folder = Path(entry["folder"])
    what = f"{folder} ({size_of(folder) / 1e6:,.1f} MB, {entry['state']})" if folder.is_dir() else "its entry alone"
    warning = " It is finished, on your own data." if may_be_best(entry) else ""
    return typer.confirm(f"Delete {entry['run_id']}: {what}?{warning}")


def _print_json(value: Any) -> None:
    from training.files import to_json

    typer.echo(to_json(value, indent=1))
