"""What the tests of syncing share: stores in temporary places."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from fsspec.implementations.memory import MemoryFileSystem

from training.sync.stores import Store, open_store

STAND_IN = Path(__file__).with_name("stand_in_rclone.py")


@pytest.fixture
def rclone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the stand-in for rclone serves as ``there:``."""
    program = tmp_path / "bin" / "rclone"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {STAND_IN} "$@"\n')
    program.chmod(0o755)
    (tmp_path / "served").mkdir()
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setenv("STAND_IN_ROOT", str(tmp_path / "served"))
    return tmp_path / "served"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """S3 on loopback, with a bucket named ``bucket``."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    given = {"ACCESS_KEY_ID": "id", "SECRET_ACCESS_KEY": "hidden", "DEFAULT_REGION": "us-east-1"}
    for name, value in {**given, "ENDPOINT_URL": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    requests.post(f"http://{host}:{port}/moto-api/reset", timeout=10).raise_for_status()  # of what earlier tests left
    pytest.importorskip("s3fs").S3FileSystem(skip_instance_cache=True).mkdir("bucket")
    yield
    server.stop()


@pytest.fixture(params=["file", "memory", "rclone", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "rclone":
        request.getfixturevalue("rclone")
        return open_store("there:runs")
    if request.param == "s3":
        request.getfixturevalue("s3")
        return open_store("s3://bucket/runs")
    if request.param == "memory":
        MemoryFileSystem.store.clear()
        MemoryFileSystem.pseudo_dirs[:] = [""]
        return open_store("memory://runs")
    return open_store(f"file://{tmp_path}/runs")
