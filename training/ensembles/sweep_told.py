"""A sweep for people: the list of all combinations, and a page with the best of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.markup import escape
from rich.table import Table

from training.ensembles.told import HEADS, as_text, counted, part_of, short_names, warning_of_few, wrapped

LISTING = "combinations.txt"
_SHOWN = 5


def listing(members: Sequence[Sequence[str]], errors: NDArray[Any]) -> str:
    """Every combination by its validation error, the best one first and named once more at the end."""
    order = np.argsort(errors, kind="stable")
    lines = [f"{errors[i]:.4f} px | {' '.join(members[i])}" for i in order]
    return "\n".join(["# mean validation error in px at 224 | members", *lines, f"BEST: {lines[0]}"]) + "\n"


def text_of(told: Mapping[str, Any], ways: Sequence[str], lines: str) -> str:
    """The page: the pool, the best combinations on val, and the best one on test."""
    on, reported = told["chosen_on"], told["reported_on"]["images"]
    what = f"{counted(told['combinations'], 'combination')} of {counted(len(told['pool']), 'model')}"
    head = wrapped(
        f"{what}, by their error on {counted(on['images'], 'clean image')} of val (px at 224, {HEADS[on['way']]})"
    )
    title = f"The best one, once, on {counted(reported, 'clean image')} of test"
    parts = [
        "\n".join([head, *map(wrapped, warning_of_few(on["images"])), "", _pool(told)]),
        "\n".join(_best(told, lines)),
        part_of(told["clean"], ways, title),
    ]
    return "\n\n".join(parts) + "\n"


def _pool(told: Mapping[str, Any]) -> str:
    """Each model by itself, the best first, and what it is worth to the whole pool."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("model", overflow="fold", min_width=12)
    table.add_column("alone", justify="right", no_wrap=True)
    table.add_column("worth in the pool", justify="right", no_wrap=True)
    names = short_names([one["run"] for one in told["pool"]])
    rows = sorted(zip(names, told["pool"], strict=True), key=lambda row: row[1]["val_px_224"])
    for name, one in rows:
        table.add_row(escape(name), f"{one['val_px_224']:.2f}", f"{one['worth_on_val_px_224']:+.2f}")
    return as_text(table)


def _best(told: Mapping[str, Any], lines: str) -> list[str]:
    """The first lines of the list, and the best of each size where there are several."""
    names = [one["run"] for one in told["pool"]]
    short = dict(zip(names, short_names(names), strict=True))
    best, *after = [_shortened(line, short) for line in lines.splitlines()[1:-1][:_SHOWN]]
    sizes = told["best_of_each_size"] if len(told["sizes"]) > 1 else {}
    by_size = [
        f"the best of {size}: {one['val_px_224']:.4f} px | {_joined(one['runs'], short)}" for size, one in sizes.items()
    ]
    found = [f"BEST: {best}", *(f"then: {one}" for one in after), *by_size, *_better_alone(told, short)]
    return [wrapped(line, " " * 6) for line in found]


def _better_alone(told: Mapping[str, Any], short: Mapping[str, str]) -> list[str]:
    alone = min(told["pool"], key=lambda one: one["val_px_224"])
    if alone["val_px_224"] >= told["best"]["val_px_224"]:
        return []
    return [f"note: {short[alone['run']]} alone is better on val: {alone['val_px_224']:.4f} px"]


def _shortened(line: str, short: Mapping[str, str]) -> str:
    error, runs = line.split(" | ")
    return f"{error} | {_joined(runs.split(), short)}"


def _joined(runs: Sequence[str], short: Mapping[str, str]) -> str:
    return " ".join(short[run] for run in runs)
