"""The command `report`: pages of finished and unfinished runs written anew from their folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from backend.errors import UsageError
from training.reporting.index_page import write_index
from training.reporting.model_card import write_model_card
from training.reporting.report import write_report
from training.run import METADATA, resolve_run


def write_anew(output: Path, named: str | None, every: bool) -> Iterator[Path]:
    """Write report and model card of the run that is ``named``, or of ``every`` run, then the list of all runs.

    Yields what was written, as it is written.

    Raises:
        UsageError: none is named, or one beside ``every``, or nothing answers to the name.
    """
    if (named is None) != every:
        raise UsageError("report: name a run (its id, its beginning, or its folder), or give --all")
    folders = [resolve_run(output, named).folder] if named is not None else _all(output)
    for folder in folders:
        yield write_report(folder)
        card = write_model_card(folder)
        if card is not None:
            yield card
    if every or folders[0].resolve().is_relative_to(output.resolve()):  # else the run lies somewhere by itself
        yield write_index(output)


def _all(output: Path) -> list[Path]:
    found = sorted(path.parent for path in output.glob(f"*/*/{METADATA}") if not path.parent.name.startswith("."))
    if not found:
        raise UsageError(f"{output}: holds no run; name another folder with --output")
    return found
