"""Makes a filesystem's new content durable while more of it is being written."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

_ROUND_BYTES = 128 << 20
_POLL_SECONDS = 0.25


class Durable:
    """Everything written to the filesystem of ``folder`` within the block is on the disk after `finish`.

    One call for the filesystem (Linux's syncfs) instead of one a file: those are what takes long with many small
    files. A thread makes the call each time that ``_ROUND_BYTES`` have been written, so that the disk works while the
    archive is read, and little is left to wait for at the end or when asked to stop.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._written = 0
        self._round: threading.Thread | None = None
        self._error: OSError | None = None

    def __enter__(self) -> Durable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._round is not None and error is None:  # else the files are about to be deleted, which no one waits for
            self._round.join()
        os.close(self._descriptor)

    def wrote(self, count: int) -> None:
        """``count`` more bytes were written. Raises OSError when an earlier round failed."""
        self._written += count
        if self._written >= _ROUND_BYTES and (self._round is None or not self._round.is_alive()):
            self._begin_round()

    def finish(self, check_stop: Callable[[], None]) -> None:
        """Wait until all is on the disk. Raises OSError when it cannot be brought there."""
        self._wait(check_stop)
        self._begin_round()
        self._wait(check_stop)
        self._raise()

    def _begin_round(self) -> None:
        self._raise()
        self._written = 0
        self._round = threading.Thread(target=self._sync, name="syncfs", daemon=True)
        self._round.start()

    def _wait(self, check_stop: Callable[[], None]) -> None:
        while self._round is not None and self._round.is_alive():
            self._round.join(_POLL_SECONDS)
            check_stop()

    def _sync(self) -> None:
        try:
            _sync_filesystem(self._descriptor)
        except OSError as error:
            self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


def _sync_filesystem(descriptor: int) -> None:
    call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if call is None:  # not Linux
        os.sync()
    elif call(descriptor):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
