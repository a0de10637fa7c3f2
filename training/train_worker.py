"""The worker's entry point: ``python training/train_worker.py COMMAND …``, from any directory.

What it does, how it is asked and how it ends (exit codes) is in `training/cli.py`. This file only sees to it that the
repository's packages are found: its root is searched first, and this folder not at all, so that `training/data` and
its neighbours shadow nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def import_from_the_repository() -> None:
    """Put the repository's root first on the import path and take this folder off it."""
    others = [entry for entry in sys.path if entry and Path(entry).resolve() not in (HERE, HERE.parent)]
    sys.path[:] = [str(HERE.parent), *others]


def flush_or_forget() -> None:
    """Write out what was printed; where nobody reads it any more, Python would end with a code of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# OpenMP threads that wait spin for a millisecond before they sleep. On processors that others use too, that halves the
# pace of a training (docs/benchmarks.md). It is read when torch is loaded, so it is set before anything is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

if __name__ in ("__main__", "__mp_main__"):  # the second is this file in a loader's process
    import_from_the_repository()

if __name__ == "__main__":
    try:
        from training.cli import main
    except ModuleNotFoundError as missing:
        sys.stderr.write(
            f"error: the package {missing.name} is not installed for {sys.executable}; run `make setup` and call "
            f"{HERE.parent / '.venv/bin/python'}, or use the image\n"
        )
        sys.exit(78)  # backend.errors.CONFIG, which may not be importable here
    code = main()
    flush_or_forget()
    sys.exit(code)
