"""Where what was found is kept: a folder of its own for each, under ``<output>/ensembles/``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import typer

from backend.errors import UsageError
from backend.files import writable_folder, write_atomic
from training.registry.folders import has_runs_name

FOLDER = "ensembles"
RESULT = "ensemble.json"


def check_out(out: Path | None) -> None:
    """Asked before the work, so that none is done for nothing.

    Raises:
        UsageError: ``out`` is a folder.
        DiskError: it cannot be written.
    """
    if out is None:
        return
    if out.is_dir():
        raise UsageError(f"--out {out}: is a folder; name a file in it")
    writable_folder(out.parent)


def keep(output: Path, name: str, files: Mapping[str, str]) -> Path | None:
    """Write ``files`` (name -> content) into a new folder; where that cannot be written, a note and None.

    Runs of somebody else may be looked at without a place to keep what is found.
    """
    try:
        folder = _new_folder(output / FOLDER, name)
        for file, content in files.items():
            write_atomic(folder / file, content)
        return folder
    except OSError as error:
        typer.echo(f"note: nothing is kept under {output / FOLDER} ({error.strerror})", err=True)
        return None


def as_json(told: Mapping[str, Any]) -> str:
    """For files and for programs that read the output."""
    return json.dumps(told, indent=1, allow_nan=False) + "\n"


def _new_folder(parent: Path, name: str) -> Path:
    """Called so that nobody takes it for a run."""
    word = re.sub(r"[^\w.-]+", "_", name).strip("._") or "ensemble"
    stem = f"{'of_' if has_runs_name(word + '_') else ''}{word}_{datetime.now(UTC):%Y%m%d_%H%M%S}"
    parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        folder = parent / (stem if number == 1 else f"{stem}_{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            continue
    raise AssertionError("unreachable")
