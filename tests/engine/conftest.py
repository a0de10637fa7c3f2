"""Closes what the engine tests opened."""

from collections.abc import Iterator

import pytest

from tests.engine import assembly


@pytest.fixture(autouse=True)
def close_logs() -> Iterator[None]:
    yield
    while assembly.OPENED:
        assembly.OPENED.pop().close()
