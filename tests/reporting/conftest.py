"""Finished runs, and a browser to look at their pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.reporting.browser import chromium
from tests.reporting.made_run import make_output, make_run
from training.reporting.curves import draw_curves
from training.reporting.index_page import write_index
from training.reporting.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(autouse=True)
def blank_pictures() -> None:
    """Here figures are rendered."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with figures; not to be changed."""
    run = make_run(tmp_path_factory.mktemp("finished"))
    draw_curves(run)
    return run


@pytest.fixture
def finished(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return shutil.copytree(made, tmp_path / made.name)


@pytest.fixture(scope="session")
def report_page(made: Path) -> Path:
    return write_report(made)


@pytest.fixture(scope="session")
def index_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The list of a folder of runs of two tasks; each has a report."""
    output = make_output(tmp_path_factory.mktemp("output"))
    for metadata in output.glob("*/*/metadata.yaml"):
        write_report(metadata.parent)
    return write_index(output)
