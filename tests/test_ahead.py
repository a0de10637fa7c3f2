"""Work done ahead in a thread: order, errors, and an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from backend.ahead import ahead


def test_all_items_in_their_order() -> None:
    with ahead(range(100)) as items:
        assert list(items) == list(range(100))
    with ahead(()) as nothing:
        assert list(nothing) == []


def test_it_works_while_the_results_are_used() -> None:
    made: list[int] = []

    def work() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            yield number

    with ahead(work()) as items:
        assert next(items) == 0
        deadline = time.monotonic() + 10
        while len(made) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert made == [0, 1, 2]  # one waits, and one is ready to be handed over


def test_an_error_comes_where_the_items_are_taken() -> None:
    def work() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    taken = []
    with pytest.raises(ValueError, match="no more"), ahead(work()) as items:
        taken.extend(items)
    with ahead(work()) as items:
        assert next(items) == 1


def test_after_the_block_nothing_works_on() -> None:
    closed = threading.Event()

    def work() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="enough"), ahead(work()) as items:
        next(items)
        raise RuntimeError("enough")
    assert closed.is_set()
    assert threading.active_count() == before
