"""Everything that is wrong with a dataset, told at once."""

from __future__ import annotations

from collections.abc import Sequence

from backend.errors import BadDataError

_SHOWN = 10


def raise_problems(problems: Sequence[str]) -> None:
    """Raises BadDataError with the first ``problems`` and how many there are; nothing where there are none."""
    if not problems:
        return
    if len(problems) == 1:
        raise BadDataError(problems[0])
    more = [f"… and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    raise BadDataError("\n  ".join([f"{len(problems)} things are wrong:", *problems[:_SHOWN], *more]))
