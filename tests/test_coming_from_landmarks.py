"""The commands of the lung-landmark ensemble, as `docs/coming-from.md` maps them, on a few noisy pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from backend.weights import write_pth
from tests.data.landmark_dataset import lungs
from tests.models.test_landmarks import EarlierNet
from tests.test_coming_from import PAGE, here
from training.cli import main
from training.config import config_hash, load_config
from training.files import read_json
from training.runs.run import read_yaml

BASE = {  # configs/landmarks_train_base.json
    "batch_size": 16,
    "phase1_epochs": 15,
    "phase2_epochs": 100,
    "phase1_lr": 0.001,
    "phase2_backbone_lr": 2e-5,
    "phase2_head_lr": 2e-4,
    "phase1_patience": 5,
    "phase2_patience": 15,
    "flip_prob": 0.5,
    "rotation": 10,
    "clahe": True,
    "clahe_clip": 2.0,
    "clahe_tile": 4,
    "loss": "wing",
    "coord_attention": True,
    "deep_head": True,
    "hidden_dim": 768,
    "dropout": 0.3,
    "tta": True,
    "num_workers": 4,
}
SMALL = BASE | {"hidden_dim": 32, "batch_size": 4, "phase1_epochs": 1, "phase2_epochs": 1, "num_workers": 0}
SHORT = {
    "TRAIN_WORKER_TRAINING__MAX_STEPS": "2",
    "TRAIN_WORKER_DATA__IMAGE_SIZE": "64",
    "TRAIN_WORKER_DATA__PREPARE_WORKERS": "1",
    "TRAIN_WORKER_MODEL__PRETRAINED": "none",
    "TRAIN_WORKER_EVALUATION__BOOTSTRAP": "20",
}
IMPORT = "import FILE --task landmarks --config CONFIG --data FOLDER --set training.split_seed=123 --split-known"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with ``data/``, two seeds on one split, and one by the JSON file on a split of its own."""
    place = tmp_path_factory.mktemp("ensemble")
    lungs(place / "data", count=40)
    (place / "base.json").write_text(json.dumps(SMALL))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name, value in SHORT.items():
            patch.setenv(name, value)
        seeds = here("train --task landmarks --data FOLDER --seeds 333,444", FOLDER="data")
        assert main([*seeds, "--set", "model.hidden_dim=32", "--set", "training.batch_size=4"]) == 0
        words = "train --task landmarks --config FILE --data FOLDER --seed 123 --set training.split_seed=123"
        assert main([*here(words, FILE="base.json", FOLDER="data"), "--run-name", "by_json"]) == 0
    return place


@pytest.fixture
def place(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, as the current folder."""
    monkeypatch.chdir(trained)
    monkeypatch.setenv("TRAIN_WORKER_DATA__IMAGE_SIZE", "64")
    monkeypatch.setenv("TRAIN_WORKER_DATA__PREPARE_WORKERS", "1")
    yield trained


def run_called(name: str) -> Path:
    (run,) = Path("model_output/landmarks").glob(f"*_{name}")
    return run


def test_the_flat_file_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "landmarks_train_base.json"
    path.write_text(json.dumps(BASE))
    assert all(f"`--{key.replace('_', '-')}`" in PAGE for key in BASE)
    of_file, own = (load_config("landmarks", preset_or_file=name).config for name in (str(path), "default"))
    assert config_hash(of_file) == config_hash(own)


@pytest.mark.parametrize(
    "sets",
    [
        ["frozen.epochs=2", "training.epochs=2"],
        ["frozen.epochs=0", "model.init_from=FILE"],
        ["loss.class_weights={COVID: 2.0, Normal: 1.0, Viral_Pneumonia: 1.2}"],
        ["loss.kind=weighted_wing", "loss.point_weights=custom"],
        ["loss.kind=combined", "loss.central_weight=1.0", "loss.symmetry_weight=0.5"],
        ["model.head=shallow", "model.coordinate_attention=false", "data.clahe=false", "evaluation.tta=false"],
    ],
)
def test_flags_are_settings(sets: list[str]) -> None:
    words = [part.strip("{}") for text in sets for part in text.split("=", 1)]
    assert all(word in PAGE for word in words if word not in ("false", "custom"))
    assert len(load_config("landmarks", sets=sets).user_set) == len(sets)


def test_a_run_says_seed_and_split_seed(place: Path) -> None:
    config = read_yaml(run_called("by_json") / "config.yaml")
    assert (config["training"]["seed"], config["training"]["split_seed"]) == (123, 123)
    assert (config["model"]["hidden_dim"], config["frozen"]["epochs"]) == (32, 1)
    seeds = [read_yaml(run_called(f"seed{seed}") / "config.yaml")["training"] for seed in (333, 444)]
    assert [(one["seed"], one["split_seed"]) for one in seeds] == [(333, 42), (444, 42)]
    assert sorted(read_json(run_called("seed333") / "split.json")["splits"]["test"]["names"]) == sorted(
        read_json(run_called("seed444") / "split.json")["splits"]["test"]["names"]
    )


def test_the_ensemble_of_one_split(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "`ensemble RUN RUN RUN RUN --tta --clahe`" in PAGE
    runs = [str(run_called(f"seed{seed}")) for seed in (333, 444)]
    assert main(["ensemble", *runs, "--tta", "--clahe", "-o", "result.json"]) == 0
    out = capsys.readouterr().out
    assert "px at 224" in out and "NOT INDEPENDENT" not in out
    told = read_json(Path("result.json"))
    assert {"n_models", "checkpoints", "tta_enabled", "clahe_enabled"} <= set(told["ensemble_info"])
    assert {"mean", "std", "median", "percentiles", "per_landmark", "per_category"} <= set(told)
    assert set(told["percentiles"]) == {"p50", "p75", "p90", "p95"}
    assert told["mean"] == told["clean"]["ensemble"]["tta"]["px_224"]["mean"]


def test_the_ensemble_of_a_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [run_called(f"seed{seed}").name for seed in (333, 444)]
    Path("best.json").write_text(json.dumps({"name": "best", "models": runs, "tta": True, "clahe": True}))
    assert main(here("ensemble --config FILE", FILE="best.json")) == 0
    assert list(Path("model_output/ensembles").glob("best_*/ensemble.json"))
    assert main(["ensemble", *runs, "--no-clahe"]) == 78
    assert "clahe is said to be False" in capsys.readouterr().err


def test_the_sweep(place: Path) -> None:
    runs = [str(run_called(f"seed{seed}")) for seed in (333, 444)]
    words = here("sweep RUN RUN RUN --k 2 --tta --clahe --out FILE", FILE="combos.txt")
    assert main([word for word in words if word != "RUN"] + runs) == 0
    lines = Path("combos.txt").read_text().splitlines()
    assert " px | " in lines[1] and lines[-1] == f"BEST: {lines[1]}"


def test_members_of_other_splits_are_counted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What made 3.71 and 3.61: a member with a split of its own has learned from the others' test images."""
    assert main(["ensemble", str(run_called("seed333")), str(run_called("by_json"))]) in (0, 1)
    out = capsys.readouterr().out
    assert "are CONTAMINATED" in out
    test = read_json(run_called("seed333") / "split.json")["splits"]["test"]["names"]
    own = read_json(run_called("by_json") / "split.json")["splits"]
    learned = {*own["train"]["names"], *own["val"]["names"]}
    (line,) = [
        line.split() for line in out.splitlines() if "by_json" in line and " of " in line and "asking" not in line
    ]
    assert [int(line[0]), int(line[2])] == [len(learned.intersection(test)), len(test)]


def test_old_weights_with_their_split(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    write_pth(place / "final_model.pt", {"model_state_dict": EarlierNet(True, 32).state_dict(), "history": {}})
    Path("small.json").write_text(json.dumps(SMALL))
    names = {"FILE": "final_model.pt", "CONFIG": "small.json", "FOLDER": "data"}
    assert main([*here(IMPORT, **names), "--run-name", "old123"]) == 0
    old = run_called("old123")
    splits = [read_json(run / "split.json")["splits"] for run in (old, run_called("by_json"))]
    assert splits[0] == splits[1]  # the one that training with this split seed makes
    runs = [str(old), str(run_called("seed333"))]
    capsys.readouterr()
    code = main(["ensemble", *runs, "--split-seed", "42"])
    assert "are CONTAMINATED" in capsys.readouterr().out
    assert main(["ensemble", *runs, "--split-seed", "42", "--allow-leaks"]) == 0
    assert code in (0, 1)
    assert "NOT INDEPENDENT" in capsys.readouterr().out


def test_one_model_alone_and_its_split(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_called("seed444")
    assert main(here("evaluate RUN --split test", RUN=str(run))) == 0
    assert main(here("audit RUN", RUN=str(run))) == 0
    table = (run / "evaluations/test/table.txt").read_text()
    assert "native px" in table and "Viral_Pneumonia" in table
    assert (run / "best_model.pth").is_file() and (run / "training_history.json").is_file()
