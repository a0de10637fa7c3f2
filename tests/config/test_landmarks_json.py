"""The flat JSON of the lung-contour system as `--config`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backend.errors import ConfigError
from training.config import config_hash, dump_yaml, load_config

BASE = {
    "batch_size": 8,
    "phase1_epochs": 7,
    "phase2_epochs": 90,
    "phase1_lr": 0.002,
    "phase2_backbone_lr": 3e-5,
    "phase2_head_lr": 3e-4,
    "phase1_patience": 4,
    "phase2_patience": 12,
    "flip_prob": 0.25,
    "rotation": 7,
    "clahe": True,
    "clahe_clip": 3.0,
    "clahe_tile": 8,
    "loss": "wing",
    "coord_attention": False,
    "deep_head": False,
    "hidden_dim": 128,
    "dropout": 0.2,
    "tta": False,
    "num_workers": 3,
    "seed": 5,
    "split_seed": 6,
    "deterministic": True,
}
HERE = {
    "training": {
        "batch_size": 8,
        "epochs": 90,
        "learning_rate": 3e-4,
        "trunk_learning_rate": 3e-5,
        "patience": 12,
        "seed": 5,
        "split_seed": 6,
        "deterministic": True,
        "num_workers": 3,
    },
    "frozen": {"epochs": 7, "learning_rate": 0.002, "patience": 4},
    "augmentation": {"flip": 0.25, "rotation": 7},
    "data": {"clahe": True, "clahe_clip": 3.0, "clahe_tile": 8},
    "model": {"coordinate_attention": False, "head": "shallow", "hidden_dim": 128, "dropout": 0.2},
    "loss": {"kind": "wing"},
    "evaluation": {"tta": False},
}


def load(tmp_path: Path, content: dict[str, Any], *sets: str) -> Any:
    path = tmp_path / "base.json"
    path.write_text(json.dumps(content))
    return load_config("landmarks", preset_or_file=str(path), sets=list(sets)).config


def test_every_key_has_its_place(tmp_path: Path) -> None:
    config = load(tmp_path, BASE).model_dump()
    for section, keys in HERE.items():
        assert {key: config[section][key] for key in keys} == keys
    (tmp_path / "here.yaml").write_text(json.dumps(HERE))
    same = load_config("landmarks", preset_or_file=str(tmp_path / "here.yaml")).config
    assert config_hash(load(tmp_path, BASE)) == config_hash(same)


def test_the_command_line_stands_over_it_and_what_is_saved_loads_again(tmp_path: Path) -> None:
    config = load(tmp_path, BASE, "training.epochs=3")
    assert config.training.epochs == 3
    (tmp_path / "saved.yaml").write_text(dump_yaml(config))
    assert load_config("landmarks", preset_or_file=str(tmp_path / "saved.yaml")).config == config


def test_what_had_no_effect_there_is_left_out(tmp_path: Path) -> None:
    idle = {"clahe": False, "clahe_clip": 3.0, "clahe_tile": 8, "central_weight": 2.0, "weight_strategy": "custom"}
    config = load(tmp_path, {**idle, "loss": "wing", "covid_weight": 3.0})
    assert config_hash(config) == config_hash(load(tmp_path, {"clahe": False, "loss": "wing"}))
    assert not config.loss.class_weights
    assert load(tmp_path, {"loss": "combined", "central_weight": 2.0}).loss.central_weight == 2.0
    assert load(tmp_path, {"loss": "weighted_wing", "weight_strategy": "custom"}).loss.point_weights == "custom"


def test_class_weights_are_that_programs_where_the_file_says_none(tmp_path: Path) -> None:
    found = load(tmp_path, {"category_weights": True, "covid_weight": 3.0, "seed": 1}).loss.class_weights
    assert found == {"COVID": 3.0, "Normal": 1.0, "Viral_Pneumonia": 1.2}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"csv_path": "x"}, "csv_path is a place, not a setting: --data FOLDER names the dataset"),
        ({"phase2_epoch": 1}, "phase2_epoch is no setting of the flat form; did you mean phase2_epochs?"),
        ({"deep_head": "false"}, "model.head is 'false'"),
        ({"phase2_epochs": 0}, "training.epochs is 0"),
    ],
)
def test_what_is_wrong_is_told_by_name(tmp_path: Path, content: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, {"seed": 1, **content})
    assert "base.json" in str(refused.value)
    assert words in str(refused.value)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, {"seed": 1, "save_dir": "x", "rotatoin": 1})
    assert "save_dir" in str(refused.value)
    assert "did you mean rotation?" in str(refused.value)
