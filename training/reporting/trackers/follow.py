"""The training's side of its trackers: a process for each, asked now and then, never waited for while it trains."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from backend.errors import InterruptedRunError
from training.engine.interruption import StopRequest
from training.reporting.trackers.choice import QUIET, asked_for
from training.runs.run import Run

_ROOT = Path(__file__).resolve().parent.parent.parent.parent
SECONDS_AT_THE_END = 60.0  # for what is not there yet; what is left then goes with `runs push`
SECONDS_WHEN_FAILING = 10.0  # a server that is away is not worth more of a rented machine
SECONDS_AFTER_A_STOP = 2.0  # docker stop kills after ten
_POLL_SECONDS = 0.05
_REST = {
    "mlflow": "`runs push` brings the rest",
    "wandb": "`wandb sync` brings the rest out of the run folder's wandb/",  # it keeps what it could not send
}

Say = Callable[[str], None]


class Trackers:
    """All trackers of one run. Use as a context manager around training, scoring and report; never raises."""

    def __init__(self, run: Run, config: Any, stop: StopRequest, say: Say) -> None:
        self._run, self._config, self._stop, self._say = run, config, stop, say
        self._followers: list[_Follower] = []

    def __enter__(self) -> Self:
        for name in asked_for(self._config):
            try:
                follower = _Follower(name, self._run.folder.resolve(), self._config.tracking.wandb)
            except OSError as error:
                self._tell(name, {"event": "tracking failing", "error": str(error)})
            else:
                self._followers.append(follower)
        return self

    def poll(self) -> None:
        """Tell what the trackers had to say since; takes no time."""
        for follower in self._followers:
            for message in follower.messages():
                self._tell(follower.name, message)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped = isinstance(error, InterruptedRunError)
        state = "finished" if error is None else "interrupted" if stopped else "failed"
        for follower in self._followers:
            follower.ask_to_finish(state)
        self._wait(SECONDS_AFTER_A_STOP if error is not None else SECONDS_AT_THE_END)
        cut_short = [follower.name for follower in self._followers if follower.end()]
        self.poll()
        for follower in self._followers:
            follower.close()
        self._followers = []
        for name in cut_short:
            self._say(f"tracking: {name} was not done in time; {_REST[name]}")

    def _wait(self, seconds: float) -> None:
        """For the trackers to be done; shorter for those that fail, and when a stop is asked for meanwhile."""
        started, pressed = time.monotonic(), None
        while at_work := [follower for follower in self._followers if follower.at_work]:
            self.poll()
            now = time.monotonic()
            if pressed is None and self._stop.signal_name is not None:
                pressed = now
            if all(follower.failing for follower in at_work):
                seconds = min(seconds, SECONDS_WHEN_FAILING)
            if now - started > seconds or (pressed is not None and now - pressed > SECONDS_AFTER_A_STOP):
                return
            time.sleep(_POLL_SECONDS)

    def _tell(self, name: str, message: dict[str, Any]) -> None:
        event = str(message.pop("event", ""))
        if event == "tracking failing":
            self._say(f"tracking: {name}: {message.get('error')}; the training goes on, and it is tried again")
        elif event == "tracking works again":
            self._say(f"tracking: {name} works again")
        elif event == "tracked":
            self._say(f"tracking: {name}: {message.get('where')}")
        else:
            return
        with suppress(OSError):  # a full disk is the training's own to tell
            self._run.event(event, tracker=name, **message)


class _Follower:
    """One tracker's process."""

    def __init__(self, name: str, folder: Path, wandb_mode: str) -> None:
        self.name = name
        command = [sys.executable, "-P", "-m", "training.reporting.trackers.live", name, str(folder), wandb_mode]
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={**QUIET, **os.environ, "PYTHONPATH": os.pathsep.join(paths), "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,  # Ctrl-C is meant for the training, and all that it started ends with it
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._torn = b""
        self.failing = False
        self._told_end = False

    @property
    def at_work(self) -> bool:
        return self._process.poll() is None

    def messages(self) -> list[dict[str, Any]]:
        """What it told since; that it ended by itself is one of these."""
        assert self._process.stdout is not None
        ended = not self.at_work  # asked first: what it told before it ended is then there to be read
        *lines, self._torn = (self._torn + (self._process.stdout.read() or b"")).split(b"\n")
        found = []
        for line in lines:
            with suppress(ValueError):
                found.append(json.loads(line))
                self.failing = found[-1].get("event") == "tracking failing"
        if ended and not self._told_end and self._process.returncode != 0:
            self._told_end = True
            found.append({"event": "tracking failing", "error": f"its process ended with {self._process.returncode}"})
        return found

    def ask_to_finish(self, state: str) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(f"{state}\n".encode())
            self._process.stdin.flush()

    def end(self) -> bool:
        """End the process and all that it started; whether it was still at work."""
        at_work = self.at_work
        self._told_end |= at_work
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        return at_work

    def close(self) -> None:
        """Close the pipes; nothing is asked of it any more."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
