"""What the container tests share: one image, and the sample made once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.container.docker import Place, build, has_engine


@pytest.fixture(scope="session")
def image() -> str:
    """The image under test: the one named by CONTAINER_IMAGE, or one built now."""
    if not has_engine():
        pytest.skip("no Docker engine")
    return os.environ.get("CONTAINER_IMAGE") or build("convlstm-training:test")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.make(tmp_path)
