"""What the tests of fetching share: one web, and nothing written to HOME."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fetching.fake_drive import Web, web_in


@pytest.fixture(scope="module")
def shared_web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with web_in(tmp_path_factory.mktemp("web")) as web:
        yield web


@pytest.fixture
def web(shared_web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Web]:
    shared_web.enter(monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    yield shared_web
    shared_web.reset()
    assert not (tmp_path / "nowhere").exists(), "something was written to HOME"
