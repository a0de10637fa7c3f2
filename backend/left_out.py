"""How a prediction ends that could not use all of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from backend.errors import BadDataError

_SHOWN = 10


def tell_left_out(left_out: Sequence[str], inputs: int, out: Path | None) -> None:
    """Say what was damaged, and that the others are done and where; nothing where all ``inputs`` were sound.

    Args:
        left_out: a line for each damaged file.
        inputs: how many files there were.
        out: where the others' results are; None where there are none.

    Raises:
        BadDataError: something was left out.
    """
    if not left_out:
        return
    others = "" if out is None else f"; the result of the rest is in {out}"
    if len(left_out) == 1:
        raise BadDataError(f"{left_out[0]}{others}")
    more = [f"… and {len(left_out) - _SHOWN} more"] if len(left_out) > _SHOWN else []
    first = f"{len(left_out)} of {inputs} files are damaged{others}:"
    raise BadDataError("\n  ".join([first, *left_out[:_SHOWN], *more]))
