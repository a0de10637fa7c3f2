"""Every task on a GPU: in deterministic mode two trainings are one, and the CPU comes to the same answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backend.artifact import open_artifact
from tests.runs import ALL_TASKS, places, register_tiny, run_of, train
from training.cli import main
from training.files import read_json
from training.runs.run import read_yaml

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
ON_GPU = ("training.device=cuda", "training.deterministic=true", "training.amp=off")


@pytest.fixture(params=ALL_TASKS)
def task(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    register_tiny(monkeypatch)
    if request.param == "landmarks":
        pytest.importorskip("torchvision")
    return str(request.param)


def test_two_deterministic_trainings_give_the_same_weights(task: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert train(tmp_path / name, task, sets=ON_GPU) == 0
    one, two = (run_of(tmp_path / name, task) for name in ("one", "two"))
    assert read_yaml(one / "metadata.yaml")["determinism"] == {"asked": True, "not_deterministic": []}
    first, second = open_artifact(one).weights, open_artifact(two).weights
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_cpu_scores_a_gpus_model_alike(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(tmp_path, task, sets=ON_GPU) == 0
    run = run_of(tmp_path, task)
    found = read_json(run / "evaluations" / "val" / "metrics.json")["metrics"]
    monkeypatch.setenv("TRAIN_WORKER_TRAINING__DEVICE", "cpu")
    assert main(["evaluate", str(run), *places(tmp_path)]) == 0
    again = read_json(run / "evaluations" / "val" / "metrics.json")["metrics"]
    assert again == pytest.approx(found, rel=1e-2, abs=1e-3)
