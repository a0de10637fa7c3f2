"""TensorBoard event files: a mirror of `metrics.jsonl` that may fail without any harm to the training."""

from __future__ import annotations

import math
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

TRAIN_SCALARS = ("loss", "lr", "grad_norm", "items_per_second", "data_wait")
FLUSH_SECONDS = 10.0


class TensorBoardLog:
    """Writes scalars ``train/*`` and ``val/*`` and figures under the run's `tensorboard/`.

    Uses TensorBoard's own records directly: `torch.utils.tensorboard` takes a second to import and writes from a
    thread, which prints a traceback when the disk is full.

    Args:
        folder: where the event files go.
        resumed_at: the step that the run continues from, 0 for a new one. What an earlier process wrote beyond it
            is purged, so that no step stands there twice.
        say: receives the one warning when the package is absent or the disk refuses.
    """

    def __init__(self, folder: Path, resumed_at: int, say: Callable[[str], None]) -> None:
        self._say = say
        self._events: _EventFile | None = None
        try:
            self._events = _EventFile(folder)
        except Exception as error:
            self._give_up(error)
        self._guarded(lambda events: events.purge_from(resumed_at + 1))

    def write(self, record: Mapping[str, Any]) -> None:
        """A line of `metrics.jsonl`, of either kind."""
        self._guarded(lambda events: events.scalars(scalars(record), record["step"], flush=record["kind"] != "train"))

    def figure(self, name: str, png: Path, step: int) -> None:
        """A picture file."""
        self._guarded(lambda events: events.image(name, png.read_bytes(), step))

    def close(self) -> None:
        """Flush and close; what is written afterwards is ignored."""
        self._guarded(lambda events: events.close())
        self._events = None

    def _guarded(self, action: Callable[[_EventFile], None]) -> None:
        """Do ``action`` while the mirror lives; its first failure, of whatever kind, ends the mirror with one line."""
        if self._events is None:
            return
        try:
            action(self._events)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        events, self._events = self._events, None
        if events is not None:
            with suppress(Exception):
                events.close()
        reason = " ".join(str(error).split())
        self._say(f"warning: no TensorBoard events from here on ({type(error).__name__}: {reason})")


class _EventFile:
    """One event file, buffered, on disk every `FLUSH_SECONDS` at the latest when something is written."""

    def __init__(self, folder: Path) -> None:
        # Imported here: preparing, evaluating and serving do without TensorBoard.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._session, self._summary = Event, SessionLog, Summary
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._records = RecordWriter((folder / name).open("xb"))
        self._flush_at = 0.0
        self._add(file_version="brain.Event:2")

    def purge_from(self, step: int) -> None:
        """Readers drop what older files say about ``step`` and later ones."""
        self._add(step=step, session_log=self._session(status=self._session.START))

    def scalars(self, values: Mapping[str, float], step: int, flush: bool) -> None:
        points = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(step=step, summary=self._summary(value=points), flush=flush)

    def image(self, name: str, png: bytes, step: int) -> None:
        width, height = struct.unpack(">II", png[16:24])
        image = self._summary.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
        self._add(step=step, summary=self._summary(value=[self._summary.Value(tag=name, image=image)]), flush=True)

    def close(self) -> None:
        self._records.close()

    def _add(self, flush: bool = False, **content: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **content).SerializeToString())
        if flush or time.monotonic() >= self._flush_at:
            self._flush_at = time.monotonic() + FLUSH_SECONDS
            self._records.flush()


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a line of `metrics.jsonl` under TensorBoard's names."""
    if record["kind"] == "train":
        named = {f"train/{name}": record.get(name) for name in TRAIN_SCALARS}
        named |= {f"train/{name}": value for name, value in record.get("terms", {}).items()}
    else:
        named = {"val/train_loss": record.get("train_loss"), **record.get("metrics", {})}
    return {name: value for name, value in named.items() if isinstance(value, int | float) and math.isfinite(value)}
