"""The files of a dataset's folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files_below(folder: Path) -> Iterator[Path]:
    """All files in ``folder`` at any depth, in the order of their paths; hidden ones are left out."""
    seen: set[str] = set()  # a link to a folder above it must not lead round for ever
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(place)
        yield from (here / name for name in sorted(names) if not name.startswith("."))
