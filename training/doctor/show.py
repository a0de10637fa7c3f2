"""The checks as a table for people, growing while they run."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.table import Table
from rich.text import Text

from training.doctor.finding import Finding, State, worst_state
from training.reporting.units import duration

_STYLE: dict[State, str] = {"ok": "green", "note": "cyan", "warning": "yellow", "failed": "bold red"}
_SAID: dict[State, str] = {"ok": "ok", "note": "note", "warning": "warning", "failed": "FAILED"}
_VERDICT: dict[State, str] = {
    "ok": "ready to train",
    "note": "ready to train",
    "warning": "can train, but look at the warnings",
    "failed": "not ready to train",
}
_NAMES = 17  # the width of the longest name that is not a path


class Shown:
    """Prints each finding as it comes: state, name, what was found, and under it what to do.

    Args:
        quiet: print nothing.
        console: where people read; by default the standard output.
    """

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, markup=False, emoji=False, quiet=quiet)
        self._waiting = self._console.status("checking")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._waiting.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._waiting.stop()

    def add(self, finding: Finding) -> None:
        """One more line of the table."""
        style = _STYLE[finding.state]
        told = Text(finding.found)
        if finding.todo:
            told.append(f"\n-> {finding.todo}", style="bold" if finding.state == "failed" else "dim")
        row = Table.grid(padding=(0, 2))
        row.add_column(width=7)
        row.add_column(width=_NAMES, overflow="fold")
        row.add_column(overflow="fold", ratio=1)
        row.add_row(Text(_SAID[finding.state], style=style), finding.name, told)
        self._console.print(row)

    def finish(self, findings: Sequence[Finding], seconds: float) -> None:
        """The verdict under the table."""
        worst = worst_state(findings)
        self._console.print()
        self._console.print(Text(f"{_VERDICT[worst]} ({len(findings)} checks in {duration(seconds)})", _STYLE[worst]))
