"""The command `report`: pages of finished and unfinished runs written anew from their folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from backend.errors import BadDataError, UsageError, WorkerError
from training.registry.names import run_folder
from training.reporting.index_page import write_index
from training.reporting.model_card import write_model_card
from training.reporting.report import write_report
from training.runs.run import METADATA


def write_anew(output: Path, named: str | None, every: bool) -> Iterator[Path]:
    """Write report and model card of the run that is ``named``, or of ``every`` run, then the list of all runs.

    Yields what was written, as it is written.

    Raises:
        UsageError: none is named, or one beside ``every``, or nothing answers to the name.
        BadDataError: some of ``every`` run could not be reported; the others are.
    """
    if (named is None) != every:
        raise UsageError("report: name a run (its id, its beginning, or its folder), or give --all")
    if named is not None:
        folder = run_folder(output, named)
        yield from _pages(folder)
        if folder.resolve().is_relative_to(output.resolve()):  # else the run lies somewhere by itself
            yield write_index(output)
        return
    failed = []
    for folder in _all(output):
        try:
            yield from _pages(folder)
        except Exception as error:  # what one run's records are like is nothing to the others
            failed.append(f"{folder.name} ({error if isinstance(error, WorkerError) else repr(error)})")
    yield write_index(output)
    if failed:
        raise BadDataError(f"{len(failed)} of the runs could not be reported: {'; '.join(failed[:4])}")


def _pages(folder: Path) -> Iterator[Path]:
    yield write_report(folder)
    card = write_model_card(folder)
    if card is not None:
        yield card


def _all(output: Path) -> list[Path]:
    found = sorted(path.parent for path in output.glob(f"*/*/{METADATA}") if not path.parent.name.startswith("."))
    if not found:
        raise UsageError(f"{output}: holds no run; name another folder with --output")
    return found
