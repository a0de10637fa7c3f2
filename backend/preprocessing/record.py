"""Preprocessing as a checkpoint records it, read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from backend.errors import BadDataError

Kind = TypeVar("Kind")


def from_record(kind: type[Kind], what: str, found: Mapping[str, Any]) -> Kind:
    """The dataclass ``kind`` with the values in ``found``; ``what`` names it to people, as in "radar".

    Raises:
        BadDataError: keys are missing or unknown.
    """
    expected = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    wrong = [f"lacks {name}" for name in sorted(expected - set(found))]
    wrong += [f"has the unknown {name}" for name in sorted(set(found) - expected)]
    if wrong:
        raise BadDataError(f"the record of {what} preprocessing {', '.join(wrong)}; was it made by another version?")
    return kind(**found)
