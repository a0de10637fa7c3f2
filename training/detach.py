"""A command that goes on when its terminal is closed: the same command line in a session of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from backend.errors import ConfigError, UsageError

FLAG = "--detach"
_LOOK_SECONDS = 2.0  # what fails at once is told at once
_ENTRY = Path(__file__).parent / "train_worker.py"


def detach(argv: Sequence[str], output: Path) -> None:
    """Start ``argv`` without its ``--detach`` in the background, and say how to follow and stop it.

    Raises:
        UsageError: in a container, which ends with its first process.
        ConfigError: the command ended within two seconds with an error, which is told.
    """
    if os.getpid() == 1:
        raise UsageError(f"{FLAG}: a container ends with its first process; start the container with `docker run -d`")
    command = [word for word in argv if word != FLAG]
    log = _log_file(output, command)
    with log.open("xb") as file:
        process = subprocess.Popen(
            [sys.executable, str(_ENTRY), *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        code = process.wait(_LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        _tell(process.pid, command, log)
        return
    said = log.read_text("utf-8", errors="replace").strip()
    if code != 0:
        raise ConfigError(f"{shlex.join(command)}: ended at once with {code}: {said.removeprefix('error: ')}")
    print(said)  # noqa: T201


def _log_file(output: Path, command: Sequence[str]) -> Path:
    folder = output / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%d_%H%M%S_%f")
    return folder / f"{stamp}_{command[0] if command and command[0].isalpha() else 'train'}.log"


def _tell(pid: int, command: Sequence[str], log: Path) -> None:
    for line in (
        f"started in the background: {shlex.join(command)}",
        f"follow it:  tail -f {shlex.quote(str(log))}",
        f"stop it:    kill {pid}      (its work is saved; the same command goes on)",
    ):
        print(line)  # noqa: T201
