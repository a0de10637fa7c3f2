"""Tables of values as Markdown, LaTeX and CSV, and how a value is written in them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

NOTHING = "–"
_HASH = re.compile(r"[0-9a-f]{32,64}")
_HASH_DIGITS = 12
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def shown(value: Any) -> str:
    """A value as people read it: five digits, twelve of a hash, words of YAML, a dash for nothing."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and _HASH.fullmatch(value):
        return value[:_HASH_DIGITS]
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def markdown(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as in GitHub's Markdown; all but the first column to the right."""
    lines = [list(head), ["---", *["---:"] * (len(head) - 1)], *[list(map(shown, row)) for row in rows]]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def latex(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A ``tabular`` with the rules of booktabs."""

    def line(cells: Sequence[Any]) -> str:
        return " & ".join(escaped(shown(cell)) for cell in cells) + r" \\"

    body = "\n".join(map(line, rows))
    columns = "l" + "r" * (len(head) - 1)
    return (
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{line(head)}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"
    )


def escaped(text: str) -> str:
    """``text`` with what means something to LaTeX escaped."""
    return "".join(_LATEX.get(character, character) for character in text)


def csv_text(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Comma-separated values with every digit; nothing is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([head, *rows])
    return text.getvalue()
