"""The GPU benchmark runs at toy size anywhere, also without the worker's libraries."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu


@pytest.fixture(autouse=True)
def settings_come_back() -> object:
    before = torch.backends.cudnn.benchmark
    yield
    torch.backends.cudnn.benchmark = before


def test_it_measures_every_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--tiny", "--out", str(tmp_path)]) == 0
    recorded = json.loads((tmp_path / "gpu.json").read_text())
    assert len(recorded["results"]) == sum(len(ways) for _, ways in gpu.cases(tiny=True))
    assert all(line["seconds"] > 0 and line["share"] > 0 for line in recorded["results"])
    assert recorded["loss"] == "weighted Huber and SSIM"
    assert "textbook, fp32" in (tmp_path / "gpu.md").read_text()
    assert "x)" in capsys.readouterr().out


def test_it_does_without_the_workers_libraries(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("training.losses.radar", "training.losses.ssim"):  # to be imported anew
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "pytorch_msssim.ssim", None)
    assert gpu.main(["--tiny", "--minutes", "0"]) == 0
    output = capsys.readouterr().out
    assert "Huber without SSIM (pytorch_msssim" in output
    assert "out of time" in output


def test_rows_are_halved_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def measure(case: gpu.Case, way: gpu.Way, *_: object) -> gpu.Result:
        tried.append(way.micro)
        if way.micro > 2:
            raise torch.OutOfMemoryError
        return gpu.Result(case.name, way.name, way.micro, 1.0)

    monkeypatch.setattr(gpu, "measure", measure)
    case, ways = gpu.cases(tiny=False)[1]
    result = gpu.measure_what_fits(case, ways[0], lambda a, b: a, torch.device("cpu"), 1.0)
    assert tried == [18, 9, 4, 2]
    assert result.micro == 2


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 1
    assert "No CUDA device" in capsys.readouterr().out
