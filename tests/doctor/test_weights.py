"""Published weights that a training would start from: here, damaged, to be had, or out of reach."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from training.doctor import weights
from training.doctor.weights import check_weights

CONTENT = b"weights"
URL = f"https://weights.example/models/net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


@pytest.fixture(autouse=True)
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def found(url: str | None = URL, run: Path | None = None) -> Any:
    return check_weights(SimpleNamespace(task=SimpleNamespace(published_weights=lambda: url), run=run))  # type: ignore[arg-type]


def test_none_are_needed(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints" / "step-00000003").mkdir(parents=True)
    assert found(None) is None
    assert found(run=tmp_path / "run") is None


def test_a_file_that_is_here_is_verified(torch_home: Path) -> None:
    path = torch_home / URL.rpartition("/")[2]
    path.write_bytes(CONTENT)
    assert (found().state, found().found) == ("ok", f"{path}: sound")
    path.write_bytes(b"other")
    assert (found().state, found().code) == ("failed", 65)


def test_a_file_where_training_keeps_it_without_torchs_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / URL.rpartition("/")[2]
    path.write_bytes(CONTENT)
    monkeypatch.setattr(weights, "SPARE", tmp_path, raising=False)
    monkeypatch.setattr(weights.requests, "head", lambda url, **options: pytest.fail("the host was asked"))
    assert (found().state, found().found) == ("ok", f"{path}: sound")


def test_the_host_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = requests.Response()
    answer.status_code, answer.headers["Content-Length"] = 200, "46830571"
    monkeypatch.setattr(weights.requests, "head", lambda url, **options: answer)
    assert (found().state, "weights.example, 46.8 MB" in found().found) == ("ok", True)
    answer.status_code = 404
    assert (found().state, found().code, "answers 404" in found().found) == ("failed", 69, True)


def test_a_host_out_of_reach_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str, **options: object) -> None:
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(weights.requests, "head", fail)
    assert (found().state, found().code) == ("failed", 69)
    assert "model.pretrained=none" in found().line
