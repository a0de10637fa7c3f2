"""What is going on now: a bar on a terminal, a plain line now and then everywhere else and in `train.log`."""

from __future__ import annotations

import atexit
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import torch
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from training.heartbeat import beat
from training.reporting.gpu import GpuMeter
from training.reporting.log import RunLog
from training.reporting.units import amount, duration, percent, significant

REFRESH_SECONDS = 0.5
FIRST_LINES_SECONDS, LATER_LINES_SECONDS, FIRST_LINES_FOR = 10.0, 60.0, 600.0


@dataclass(slots=True)
class _Stage:
    """One thing under way: where it stands and since when."""

    what: str
    total: int | None
    first: int
    began: float
    next_line: float
    done: int = 0
    detail: str = ""
    unit: str = ""
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Of the whole, 0 to 1; 0 where nobody knows how much there is."""
        return self.done / max(self.total, 1) if self.total is not None else 0.0

    @property
    def standing(self) -> str:
        """``3 of 7``, ``1.2 GB of 3.4 GB``; without the whole where nobody knows it."""
        done = amount(self.done, self.unit)
        return done if self.total is None else f"{done} of {amount(self.total, self.unit)}"

    def seconds_left(self, now: float) -> float | None:
        """From the pace since the stage began here, so that what a resumed run had done before does not flatter it."""
        made = self.done - self.first
        if self.total is None:
            return None
        return (now - self.began) / made * (self.total - self.done) if made > 0 else None


class Progress:
    """Shows preparation, training and validation through one call, `update`.

    Cheap enough for a training loop: drawn at most twice a second, from the calling thread alone (a drawing thread
    would hold locks when loader processes are forked). As a context manager it gives the terminal back on errors.

    Args:
        log: says the plain lines; its console shows the bar.
        device: whose use is shown, where it is a GPU.
    """

    def __init__(self, log: RunLog, device: torch.device | None = None) -> None:
        self._log = log
        self._gpu = GpuMeter(device or torch.device("cpu"))
        self._stages: dict[str, _Stage] = {}
        self._live: Live | None = None
        self._next_drawing = 0.0

    def watch(self, device: torch.device) -> None:
        """Show the use of ``device`` from now on."""
        self._gpu = GpuMeter(device)

    def update(
        self,
        what: str,
        done: int,
        total: int | None,
        *,
        detail: str = "",
        unit: str = "",
        loss: float | None = None,
        items_per_second: float | None = None,
        data_wait: float | None = None,
    ) -> None:
        """Stage ``what`` has ``done`` of ``total``; it ends when they are equal.

        Args:
            what: names the stage, such as ``reading volumes``, ``training``, ``validation``.
            done: how much is done; the first call of a stage says where it starts (a resumed run does not at 0).
            total: how much there is; may change; None as long as nobody knows.
            detail: where in the stage, such as ``main, epoch 3 of 50``.
            unit: ``B`` where bytes are counted.
            loss: the newest training loss.
            items_per_second: items trained on per second.
            data_wait: share of the time, 0 to 1, that the loop waited for data.
        """
        beat()
        now = time.monotonic()
        stage = self._stages.get(what)
        if stage is None:
            stage = self._stages[what] = _Stage(what, total, done, now, now + FIRST_LINES_SECONDS)
            self._next_drawing = now
        stage.done, stage.total, stage.detail, stage.unit = done, total, detail, unit
        stage.facts = _facts(loss, items_per_second, data_wait)
        if total is not None and done >= total:
            self.finish(what)
        elif now >= stage.next_line:
            early = now - stage.began < FIRST_LINES_FOR
            stage.next_line = now + (FIRST_LINES_SECONDS if early else LATER_LINES_SECONDS)
            self._write_line(self._line(stage, now))
        if now >= self._next_drawing:
            self._next_drawing = now + REFRESH_SECONDS
            self._draw(now)

    def finish(self, what: str) -> None:
        """Stage ``what`` is over, also before its end; its time goes to the log. Unknown stages are ignored."""
        stage = self._stages.pop(what, None)
        if stage is None:
            return
        now = time.monotonic()
        self._write_line(f"{what}: {stage.standing} in {duration(now - stage.began)}")
        if not self._stages:
            self.close()

    def close(self) -> None:
        """Take the bar off the terminal and give the cursor back. `update` brings it back."""
        live, self._live = self._live, None
        if live is not None:
            atexit.unregister(self.close)
            with suppress(OSError):
                live.update(Text(""))
                live.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write_line(self, line: str) -> None:
        """On a terminal the bar tells the same, so that the line goes to the file alone."""
        if self._log.console.is_terminal:
            self._log.note(line)
        else:
            self._log.say(line)

    def _line(self, stage: _Stage, now: float) -> str:
        share = f"{stage.what}: {stage.standing}" + ("" if stage.total is None else f" ({percent(stage.share)})")
        left = stage.seconds_left(now)
        parts = [share, stage.detail, *self._all_facts(stage), "" if left is None else f"{duration(left)} left"]
        return " | ".join(part for part in parts if part)

    def _all_facts(self, stage: _Stage) -> Iterable[str]:
        yield from (f"{name} {value}" if name else value for name, value in stage.facts.items())
        use = self._gpu.read()
        if use is not None:
            yield str(use)

    def _draw(self, now: float) -> None:
        if not self._log.console.is_terminal or not self._stages:
            return
        try:
            if self._live is None:
                # Should the process end without the context manager, the cursor still comes back.
                atexit.register(self.close)
                self._live = Live(console=self._log.console, auto_refresh=False, transient=True)
                self._live.start()
            self._live.update(self._picture(now), refresh=True)
        except OSError:
            self._log.console.quiet = True

    def _picture(self, now: float) -> RenderableType:
        bars = Table.grid(padding=(0, 1))
        width = max(10, min(40, self._log.console.width - 60))
        for stage in self._stages.values():
            left = stage.seconds_left(now)
            bars.add_row(
                Text(stage.what, style="bold"),
                ProgressBar(total=1.0, completed=stage.share, width=width, pulse=stage.total is None),
                Text("" if stage.total is None else percent(stage.share), justify="right"),
                Text(stage.standing, justify="right"),
                Text("" if left is None else f"{duration(left)} left", style="cyan"),
            )
        return Group(bars, *(line for stage in self._stages.values() for line in self._details(stage)))

    def _details(self, stage: _Stage) -> Iterable[Text]:
        facts = [stage.detail, *self._all_facts(stage)] if stage.facts else [stage.detail]
        if any(facts):
            line = " · ".join(fact for fact in facts if fact)
            yield Text(self._log.printable(f"{stage.what}: {line}"), style="dim", no_wrap=True, overflow="ellipsis")


def _facts(loss: float | None, items_per_second: float | None, data_wait: float | None) -> dict[str, str]:
    facts = {}
    if loss is not None:
        facts["loss"] = significant(loss)
    if items_per_second is not None:
        facts[""] = f"{significant(items_per_second)} items/s"
    if data_wait is not None:
        facts["waiting for data"] = percent(data_wait)
    return facts
