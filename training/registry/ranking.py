"""Which run is the best of a task: by validation, never by test, and never one on the built-in sample."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from backend.errors import UsageError
from training.registry.entry import BEST, Entry
from training.registry.results import all_metrics

MODES = ("min", "max")


def ranked(entries: Sequence[Entry], task: str, metric: str, mode: str) -> list[Entry]:
    """The finished runs of ``task`` (or sub-task) that have ``metric``, best first; of equals the earliest first.

    Each has the metric's value in ``metrics``. Runs on the built-in sample are left out, and those whose folders are
    gone.

    Raises:
        UsageError: ``metric`` is none that may rank, ``mode`` is none or the wrong one, or no run has the metric.
    """
    if mode not in MODES:
        raise UsageError(f"mode {mode!r}: expected min or max")
    check_ranks(metric)
    candidates = [entry for entry in of_task(entries, task) if may_be_best(entry)]
    if not candidates:
        raise UsageError(nothing_to_rank(entries, task))
    if metric == BEST:
        _check_alike(candidates, mode)
    scored = [entry for entry in (_with(entry, metric) for entry in candidates) if metric in entry["metrics"]]
    if not scored:
        raise UsageError(unknown_metric(candidates, metric))
    return in_order(scored, metric, mode)


def in_order(entries: Sequence[Entry], metric: str, mode: str) -> list[Entry]:
    """Runs that have ``metric``, best first; of equals the earliest, which the later ones did not beat."""
    earliest_first = sorted(entries, key=lambda entry: (entry["timestamp"], entry["run_id"]))
    return sorted(earliest_first, key=lambda entry: entry["metrics"][metric], reverse=mode == "max")


def only_task(entries: Sequence[Entry]) -> str:
    """The task that all runs are of. Raises UsageError where there are several, or no runs."""
    tasks = sorted({entry["task"] for entry in entries})
    if len(tasks) != 1:
        found = f"there are runs of {', '.join(tasks)}; name one with --task" if tasks else "there are no runs to rank"
        raise UsageError(found)
    return tasks[0]


def of_task(entries: Sequence[Entry], task: str) -> list[Entry]:
    """The runs of a task or of a sub-task of that name."""
    return [entry for entry in entries if task in (entry["task"], entry.get("subtask"))]


def may_be_best(entry: Entry) -> bool:
    """Whether a run counts when the best is looked for."""
    return entry["state"] == "finished" and not entry["is_sample"]


def check_ranks(metric: str) -> None:
    """Raise UsageError for what no run may be chosen by."""
    if metric.startswith("test/"):
        raise UsageError(
            f"{metric}: runs are ranked by validation alone, because what was chosen by test has no honest test score "
            f"any more; take val/{metric.removeprefix('test/')}"
        )


def own_metric(entries: Sequence[Entry], task: str) -> tuple[str, str]:
    """The metric and mode by which the runs of ``task`` chose their own checkpoints.

    Raises:
        UsageError: they differ in it, or there is none.
    """
    candidates = [entry for entry in of_task(entries, task) if may_be_best(entry)]
    if not candidates:
        raise UsageError(nothing_to_rank(entries, task))
    found = {(entry["selection"].get("metric"), entry["selection"].get("mode")) for entry in candidates}
    known = sorted((metric, mode) for metric, mode in found if isinstance(metric, str) and mode in MODES)
    if len(known) != 1:
        told = ", ".join(f"{metric} ({mode})" for metric, mode in known) or "nothing that is known"
        raise UsageError(f"the runs of {task} were chosen by {told}; name one with --metric and --mode")
    return known[0]


def own_mode(entries: Sequence[Entry], task: str, metric: str) -> str | None:
    """The mode in which runs of ``task`` chose their own checkpoints by ``metric``; None where none did."""
    chosen = [entry["selection"] for entry in of_task(entries, task) if entry["selection"].get("metric") == metric]
    modes = {selection.get("mode") for selection in chosen} & set(MODES)
    return modes.pop() if len(modes) == 1 else None


def datasets_of(entries: Sequence[Entry]) -> set[str | None]:
    """The datasets that runs were validated on."""
    return {entry["dataset_fingerprint"] for entry in entries}


def losses_of(entries: Sequence[Entry], metric: str) -> set[str | None]:
    """The losses that ``metric`` stands for in runs; none for a score, which compares in any case."""
    is_loss = metric.partition("/")[2].split("_")[0] == "loss"
    return {entry.get("loss_hash") for entry in entries} if is_loss else set()


def unknown_metric(entries: Sequence[Entry], metric: str) -> str:
    """The line about a metric that no run has, with the nearest that one has."""
    known = sorted({name for entry in entries for name in entry["metrics"] if not name.startswith("test/")})
    near = get_close_matches(metric, known, n=1, cutoff=0.5) or [n for n in known if n.partition("/")[2] == metric]
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known[:5]) or 'none yet'}"
    return f"{metric}: no run has such a metric; {hint}"


def nothing_to_rank(entries: Sequence[Entry], task: str) -> str:
    """The line that says why no run of a task can be the best."""
    found = of_task(entries, task)
    if not found:
        tasks = sorted({name for entry in entries for name in (entry["task"], entry.get("subtask")) if name})
        return f"{task}: no runs; there are runs of {', '.join(tasks) or 'no task yet'}"
    if all(entry["is_sample"] for entry in found):
        return f"{task}: all {len(found)} runs are on the built-in sample, which never counts as best"
    return f"{task}: none of {len(found)} runs is finished, on data of your own, and where it was registered"


def _with(entry: Entry, metric: str) -> Entry:
    """``entry`` with a metric that only its folder has."""
    if metric in entry["metrics"]:
        return entry
    value = all_metrics(entry).get(metric)
    return entry if value is None else {**entry, "metrics": {**entry["metrics"], metric: value}}


def _check_alike(entries: Sequence[Entry], mode: str) -> None:
    """``best_val_metric`` stands for a metric that each run's settings name: comparable only where that is one."""
    names = {(entry["selection"].get("metric"), entry["selection"].get("mode")) for entry in entries}
    if len(names) > 1:
        told = ", ".join(sorted(f"{metric} ({found})" for metric, found in names))
        raise UsageError(f"{BEST} is not the same in these runs: {told}; name one of them")
    ((metric, found),) = names
    if found != mode:
        raise UsageError(f"{BEST} of these runs is {metric}, whose mode is {found}, not {mode}")
