"""The run's lines for people: on the terminal, and in `train.log` for whoever follows it with ``tail -f``."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from training.clock import now_utc


class _Terminal(Console):
    """A console whose reader may go away (``train | head``) without ending the training."""

    def on_broken_pipe(self) -> None:
        """Say nothing more; rich would end the process here."""
        self.quiet = True


class RunLog:
    """Says lines. Neither a full disk nor a closed terminal ever fails the training: one warning, then silence.

    Args:
        path: the log file, appended to and flushed line by line; None writes to the terminal alone.
        console: where people read; by default the standard output. A live `Progress` on the same console stays
            below the lines.
    """

    def __init__(self, path: Path | None, console: Console | None = None) -> None:
        self.path = path
        self.console = console or _Terminal(highlight=False, markup=False, emoji=False)
        self._warned = False

    def say(self, line: str) -> None:
        """One line to the terminal and to the file."""
        self._show(line)
        self.note(line)

    def note(self, line: str) -> None:
        """One line to the file alone."""
        if self.path is None:
            return
        try:
            # Opened for each line, so that a log that was moved away or a disk that came back does no harm.
            with self.path.open("ab", buffering=0) as file:
                file.write(_stamped(line))
        except OSError as error:
            self._warn_once(error)

    def printable(self, text: str) -> str:
        """``text`` with a question mark for what the terminal's encoding has not."""
        return text.encode(self.console.encoding, "replace").decode(self.console.encoding)

    def _show(self, line: str) -> None:
        try:
            self.console.print(self.printable(line), soft_wrap=True, markup=False, highlight=False)
        except OSError:
            self.console.quiet = True

    def _warn_once(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            self._show(f"warning: {self.path} cannot be written ({error.strerror}); the run goes on without that log")


def _stamped(text: str) -> bytes:
    """The lines of ``text``, the first with the time (UTC) in front and the others aligned under it."""
    time = now_utc()
    first, *others = text.splitlines() or [""]
    lines = [f"{time}  {first}", *(f"{'':{len(time)}}  {other}" for other in others)]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
