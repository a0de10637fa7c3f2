"""An ensemble's numbers for people: tables and lines that fit a terminal."""

from __future__ import annotations

import io
import re
import shutil
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from training.ensembles.scored import PLAIN, TTA
from training.scores.landmarks import SCALES

FEW = 10  # images; fewer say little, whatever the interval
HEADS = {PLAIN: "plain", TTA: "with TTA"}
_STAMP = re.compile(r"^\d{8}_\d{6}_")
_SIGN = "*"
_WORDS = (
    "worth: how much larger the error is without that member; below 0 the others do better without it. "
    "mean shape: the training images' mean points, said to every image alike."
)


def wide() -> int:
    """Columns to write in."""
    return min(110, max(60, shutil.get_terminal_size((110, 24)).columns))


def counted(count: int, what: str = "image") -> str:
    """``1 image``, ``2 images``."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def wrapped(text: str, indent: str = "  ") -> str:
    """``text`` in lines that fit, the later ones indented."""
    return textwrap.fill(text, wide(), subsequent_indent=indent, break_on_hyphens=False)


def short_names(names: Sequence[str]) -> list[str]:
    """Run ids without the time in front, where that still tells them apart."""
    short = [_STAMP.sub("", name) for name in names]
    counts = Counter(short)
    return [one if counts[one] == 1 else name for one, name in zip(short, names, strict=True)]


def warning_of_few(count: int) -> list[str]:
    """A line where there are too few images to conclude from."""
    if count >= FEW:
        return []
    return [f"warning: {counted(count)} {'says' if count == 1 else 'say'} little about others, however small the error"]


def part_of(told: Mapping[str, Any], ways: Sequence[str], title: str, marked: bool = False) -> str:
    """One part of what is told, under ``title``; each number of a ``marked`` one carries a sign."""
    sign = _SIGN if marked else ""
    return "\n".join(
        [wrapped(title), "", _table(told, ways, sign), "", *map(wrapped, _notes(told, ways[-1], sign)), *_few(told)]
    )


def _few(told: Mapping[str, Any]) -> list[str]:
    return list(map(wrapped, warning_of_few(told["images"])))


def _table(told: Mapping[str, Any], ways: Sequence[str], sign: str) -> str:
    """The members, their mean and the mean shape; mean errors in pixels at 224 and in native ones."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("mean error in pixels", overflow="fold", min_width=12)
    for way in ways:
        table.add_column(f"{HEADS[way]}\nat 224", justify="right", no_wrap=True)
        table.add_column("\nnative", justify="right", no_wrap=True)
    table.add_column("worth\nat 224", justify="right", no_wrap=True)
    for row in _member_rows(told, ways, sign):
        table.add_row(*row)
    table.add_section()
    table.add_row("together", *_cells(told["ensemble"], ways, sign), "")
    shape = dict.fromkeys(ways, told["mean_shape"])
    table.add_row("mean shape", *_cells(shape, ways, sign), "")
    return as_text(table)


def _member_rows(told: Mapping[str, Any], ways: Sequence[str], sign: str) -> list[list[str]]:
    members = told["members"]
    weighted = len({member["weight"] for member in members}) > 1
    names = short_names([member["run"] for member in members])
    return [
        [
            escape(name + (f" (weight {member['weight']:g})" if weighted else "")),
            *_cells(member, ways, sign),
            "–" if worth is None else f"{worth:+.2f}{sign}",
        ]
        for name, member, worth in zip(names, members, told["worth_px_224"][ways[-1]], strict=True)
    ]


def _cells(told: Mapping[str, Any], ways: Sequence[str], sign: str) -> list[str]:
    return [f"{told[way][f'px_{scale}']['mean']:.2f}{sign}" for way in ways for scale in SCALES]


def _notes(told: Mapping[str, Any], way: str, sign: str) -> list[str]:
    """What the words of the table mean, and what stands behind the mean of the members' mean."""
    found = told["ensemble"][way]["px_224"]
    spread = ", ".join(f"{name} {found[name]:.2f}{sign}" for name in ("median", "std", "p75", "p90", "p95"))
    rates = ", ".join(
        f"{100 * value:.1f} %{sign} within {name.removeprefix('found_').removesuffix('px')} px"
        for name, value in found.items()
        if name.startswith("found_")
    )
    classes = ", ".join(
        f"{name} {one['mean']:.2f}{sign} ({one['count']})" for name, one in found["per_category"].items()
    )
    return [
        f"Together {HEADS[way]}, px at 224: {_mean(found, sign)}; {spread}.",
        f"Points found: {rates}.",
        f"By class, px at 224 (images): {classes}.",
        _WORDS,
    ]


def _mean(found: Mapping[str, Any], sign: str) -> str:
    mean, ends = f"mean {found['mean']:.2f}{sign}", found["interval_95"]
    return mean if ends is None else f"{mean}, 95 % interval {ends[0]:.2f}{sign} to {ends[1]:.2f}{sign}"


def as_text(table: Table) -> str:
    """``table`` in lines that fit, without colours."""
    text = io.StringIO()
    Console(file=text, width=wide(), no_color=True).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().strip("\n").splitlines())
