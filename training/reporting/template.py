"""The templates of reports, cards and lists, and how numbers look in them."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from training.reporting.units import hours, moment, percent, significant, times

TEMPLATES = Path(__file__).parent / "templates"


def environment(html: bool = True) -> Environment:
    """A strict environment: a name that does not exist is an error, and in HTML everything is escaped."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(moment=moment, percent=percent, number=significant, hours=hours, times=times)
    made.filters.update(thousands="{:,}".format, cell=_cell)
    return made


def _cell(value: object) -> str:
    """Text inside a cell of a Markdown table."""
    return " ".join(str(value).replace("|", "\\|").split())
