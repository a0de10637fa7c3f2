"""`report.html`: a run on one self-contained page, made from its folder alone."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from backend.files import write_atomic
from training.reporting import report_parts as parts
from training.reporting.figure_words import describe, is_drawing, title_of
from training.reporting.overfitting import parting
from training.reporting.report_scores import evaluation_part
from training.reporting.report_story import speed, story
from training.reporting.run_folder import RunFolder
from training.reporting.template import TEMPLATES, environment


def write_report(run_dir: Path) -> Path:
    """Write the report of a run, finished or not; sections appear where their data is there.

    Args:
        run_dir: the run folder; the formats are in `docs/architecture.md`.

    Returns:
        The page's path. It needs nothing beside it: figures are inside, and nothing is fetched.

    Raises:
        OSError: the page cannot be written.
    """
    page = run_dir / "report.html"
    write_atomic(page, render_report(RunFolder(run_dir)))
    return page


def render_report(run: RunFolder) -> str:
    """The page's HTML."""
    return environment().get_template("report.html.j2").render(**_context(run))


def _context(run: RunFolder) -> dict[str, Any]:
    figures = {path.stem: _figure(run, path) for path in run.figures}
    evaluations = [
        evaluation_part(run, place) | {"figure": figures.pop(f"skill_{place}", None)} for place in run.evaluations
    ]
    curves = [figures.pop("curves", None), *(part["figure"] for part in evaluations[:1])]
    return {
        "style": (TEMPLATES / "page.css").read_text("utf-8") + (TEMPLATES / "report.css").read_text("utf-8"),
        "heading": parts.heading(run),
        "evaluations": evaluations,
        "goals": parts.goals(run),
        "parting": parting(run.validations),
        "curves": [figure for figure in curves if figure],
        "examples": list(figures.values()),
        "dataset": parts.dataset(run),
        "audit": parts.audit(run),
        "story": story(run),
        "speed": speed(run),
        "settings": parts.settings(run),
        "differences": parts.differences(run),
        "made_with": parts.made_with(run),
        "repeat": parts.repeat(run),
        "files": parts.files(run),
    }


def _figure(run: RunFolder, png: Path) -> dict[str, Any]:
    """The figure as a data address: the SVG where it is the smaller file, else the PNG."""
    svg = png.with_suffix(".svg")
    path, kind = (svg, "svg+xml") if svg.exists() and svg.stat().st_size < png.stat().st_size else (png, "png")
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    return {
        "title": title_of(run, png.stem),
        "words": describe(run, png.stem),
        "source": f"data:image/{kind};base64,{content}",
        "is_drawing": is_drawing(png.stem),
        "files": [file.relative_to(run.path).as_posix() for file in (svg, png) if file.exists()],
    }
