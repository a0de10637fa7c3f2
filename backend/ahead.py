"""An iteration that works ahead in a thread of its own, while what it has given is used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
_LOOK = 0.1  # seconds between looks at whether anybody still wants more


@contextmanager
def ahead(items: Iterable[T], depth: int = 1) -> Iterator[Iterator[T]]:
    """The same ``items`` in the same order, ``depth`` of them made before they are asked for.

    What the iteration raises is raised where its items are taken. After the block it is stopped and its thread ended.
    """
    ready: queue.Queue[tuple[str, object]] = queue.Queue(depth)
    stop = threading.Event()

    def put(kind: str, content: object) -> None:
        while not stop.is_set():
            try:
                ready.put((kind, content), timeout=_LOOK)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put("item", item)
                if stop.is_set():
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)
        finally:
            if hasattr(items, "close"):
                items.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield _taken(ready, stop)
    finally:
        stop.set()
        thread.join()


def _taken(ready: queue.Queue[tuple[str, object]], stop: threading.Event) -> Iterator[T]:
    while not stop.is_set():
        try:
            kind, content = ready.get(timeout=_LOOK)
        except queue.Empty:
            continue
        if kind == "end":
            return
        if kind == "error":
            assert isinstance(content, BaseException)
            raise content
        yield content  # type: ignore[misc]
