"""What preparation is told about the world, recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from training.tasks.protocol import PrepareContext


class World:
    """A PrepareContext that records what it was told."""

    def __init__(self, source: Path, cache: Path, workers: int = 1) -> None:
        self.said: list[str] = []
        self.progress: list[tuple[str, int, int]] = []
        self.check_stop: Callable[[], None] = lambda: None
        self.source, self.cache, self.workers = source, cache, workers

    @property
    def context(self) -> PrepareContext:
        note = lambda what, done, total: self.progress.append((what, done, total))  # noqa: E731
        return PrepareContext(self.source, self.cache, self.workers, self.said.append, note, lambda: self.check_stop())
