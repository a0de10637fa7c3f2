"""A command that goes on when its terminal is closed: the same command line in a session of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import typer

from backend.errors import DONE, DiskError, UsageError
from training.shown import without_secrets

FLAG = "--detach"
_LOOK_SECONDS = 5.0  # what fails at once is told at once; imports alone take two
_ENTRY = Path(__file__).parents[1] / "train_worker.py"


def detach(argv: Sequence[str], output: Path) -> int:
    """Start ``argv`` without its ``--detach`` in the background, and say how to follow and stop it.

    The exit code: of the command where it has ended within a few seconds, and what it said is said here.

    Raises:
        UsageError: in a container, which ends with its first process.
        DiskError: nothing can be written to ``output``.
    """
    if _is_first_in_container():
        raise UsageError(f"{FLAG}: a container ends with its first process; start the container with `docker run -d`")
    command = [word for word in argv if word != FLAG]
    log = _log_file(output, command)
    process = _start(command, log)
    try:
        code = process.wait(_LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        process.returncode = DONE  # left to itself from here on: nobody waits for it
        _tell(process.pid, command, log)
        return DONE
    typer.echo(log.read_text("utf-8", errors="replace"), nl=False, err=code != DONE)
    return code


def _is_first_in_container() -> bool:
    """Whether this process is the container's first, or what the image's tini started."""
    return os.getpid() == 1 or ("TRAIN_WORKER_IMAGE" in os.environ and os.getppid() == 1)


def _start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, str(_ENTRY), *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _log_file(output: Path, command: Sequence[str]) -> Path:
    """A new file."""
    folder = output / "logs"
    stamp = datetime.now(UTC).strftime("%Y%m%d_%H%M%S_%f")
    log = folder / f"{stamp}_{command[0] if command and command[0].isalpha() else 'train'}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log.touch(exist_ok=False)
    except OSError as error:
        raise DiskError(f"{folder}: cannot be written ({error.strerror}); choose another --output") from error
    return log


def _tell(pid: int, command: Sequence[str], log: Path) -> None:
    typer.echo(f"started in the background: {shlex.join(map(without_secrets, command))}")
    typer.echo(f"follow it:  tail -f {shlex.quote(str(log))}")
    typer.echo(f"stop it:    kill {pid}      (its work is saved; the same command goes on)")
