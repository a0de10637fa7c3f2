"""What a check found, and the exit code that follows from several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from backend.errors import (
    BAD_DATA,
    CONFIG,
    DONE,
    IO_ERROR,
    SOURCE_UNAVAILABLE,
    BadDataError,
    ConfigError,
    DiskError,
    SourceUnavailableError,
    WorkerError,
)

Facts = Mapping[str, Any]
State = Literal["ok", "note", "warning", "failed"]
STATES: tuple[State, ...] = ("ok", "note", "warning", "failed")
_ERRORS: dict[int, type[WorkerError]] = {
    CONFIG: ConfigError,
    IO_ERROR: DiskError,
    BAD_DATA: BadDataError,
    SOURCE_UNAVAILABLE: SourceUnavailableError,
}


@dataclass(frozen=True)
class Finding:
    """One check's result. ``code`` is the exit code of a failed one: 78, 74 (disk), 65 (data) or 69 (source)."""

    name: str
    state: State
    found: str
    todo: str = ""
    code: int = CONFIG
    facts: Facts = field(default_factory=dict)  # for programs; JSON types only

    @property
    def line(self) -> str:
        """What was found and what to do, in one line."""
        return f"{self.found}: {self.todo}" if self.todo else self.found


def ok(name: str, found: str, facts: Facts | None = None) -> Finding:
    """A check that found nothing to mend."""
    return Finding(name, "ok", found, facts=facts or {})


def note(name: str, found: str, todo: str = "", facts: Facts | None = None) -> Finding:
    """Something to know; nothing need be done."""
    return Finding(name, "note", found, todo, facts=facts or {})


def warning(name: str, found: str, todo: str, facts: Facts | None = None) -> Finding:
    """Training can go wrong, or be much slower than it need be."""
    return Finding(name, "warning", found, todo, facts=facts or {})


def failed(name: str, found: str, todo: str, facts: Facts | None = None, code: int = CONFIG) -> Finding:
    """Training would end badly: it must not begin."""
    return Finding(name, "failed", found, todo, code, facts or {})


def worst_state(findings: Sequence[Finding]) -> State:
    """The worst of the states; ok where there is none."""
    return max((finding.state for finding in findings), key=STATES.index, default="ok")


def exit_code(findings: Sequence[Finding]) -> int:
    """0, or the code of the first failed check: what stands first is to be mended first."""
    return next((finding.code for finding in findings if finding.state == "failed"), DONE)


def raise_failed(findings: Sequence[Finding]) -> None:
    """Raise the first failed check as the error that has its exit code: DiskError, BadDataError or ConfigError."""
    for finding in findings:
        if finding.state == "failed":
            raise _ERRORS[finding.code](finding.line)
