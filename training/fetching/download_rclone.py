"""Downloads from an rclone remote, through the rclone program and its own configuration."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from training.fetching.download import Job, Received, SourceError, Voice, without_secrets
from training.fetching.download_stream import Opened, blocks, receive

_NOT_FOUND = {3, 4}  # rclone's exit codes: directory, file
_TEMPORARY = {1, 2, 5}  # uncategorised, and what a retry might mend


def download(job: Job, voice: Voice) -> Received:
    """The file at ``remote:path``. Raises SourceError, and OSError when the disk fails."""
    program = shutil.which("rclone")
    if program is None:
        raise SourceError("the program rclone is not installed (https://rclone.org/install)")
    options = [
        "--contimeout",
        f"{job.connect:g}s",
        "--timeout",
        f"{job.read:g}s",
        "--retries",
        "1",
        "--ask-password=false",
    ]

    @contextmanager
    def open_from(offset: int, validator: str | None) -> Iterator[Opened]:
        facts = _facts([program, "lsjson", "--stat", *options, "--", job.address], job)
        size, mark = int(facts["Size"]), f"{facts.get('ModTime')} {facts['Size']}"
        start = offset if validator == mark and offset <= size else 0
        command = [program, "cat", "--offset", str(start), *options, "--", job.address]
        with (
            tempfile.TemporaryFile() as said,
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said) as running,
        ):
            try:
                yield Opened(_output(running, said, job), start, size if size >= 0 else None, mark)
            finally:
                running.kill()

    return receive(job, open_from, voice)


def _facts(command: list[str], job: Job) -> dict[str, Any]:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        raise _fault(done.returncode, done.stderr, job)
    facts = json.loads(done.stdout)
    if not isinstance(facts, dict) or facts.get("IsDir") or "Size" not in facts:
        raise SourceError("it is a folder, expected one archive file")
    return facts


def _output(running: subprocess.Popen[bytes], said: IO[bytes], job: Job) -> Iterator[bytes]:
    assert running.stdout is not None
    yield from blocks(running.stdout)
    if code := running.wait():
        said.seek(0)
        raise _fault(code, said.read(), job)


def _fault(code: int, said: bytes, job: Job) -> SourceError:
    if code in _NOT_FOUND:
        return SourceError("rclone finds no such file: it was deleted or moved, or the path is wrong")
    last = (said.decode("utf-8", "replace").strip().splitlines() or ["no word"])[-1]
    return SourceError(f"rclone fails ({code}): {without_secrets(last, job.address)}", retry=code in _TEMPORARY)
