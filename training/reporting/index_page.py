"""`index.html` of an output folder: all its runs in one table, to sort and to filter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from backend.files import write_atomic
from training.clock import now_utc
from training.reporting.run_index import RunRow, index_rows
from training.reporting.template import TEMPLATES, environment


def write_index(output: Path) -> Path:
    """Write the list of the runs under ``output`` anew, which links to each report; no file of a run is changed.

    Raises:
        OSError: the page cannot be written.
    """
    page = output / "index.html"
    write_atomic(page, render_index(index_rows(output), now_utc()))
    return page


def render_index(rows: Sequence[RunRow], made: str) -> str:
    """The page's HTML; it needs nothing beside it and works without its script."""
    made_environment = environment()
    made_environment.filters["address"] = quote
    return made_environment.get_template("index.html.j2").render(
        style="".join((TEMPLATES / name).read_text("utf-8") for name in ("page.css", "index.css")),
        script=(TEMPLATES / "index.js").read_text("utf-8"),
        rows=rows,
        tasks=sorted({row.task for row in rows}),
        states=sorted({row.state for row in rows}),
        made=made,
    )
