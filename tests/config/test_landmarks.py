"""Landmark settings: what has no effect without the first phase, and the flat form of earlier files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.errors import ConfigError
from training.config import load_config


def old_file(folder: Path, **content: object) -> str:
    path = folder / "old.json"
    path.write_text(json.dumps(content))
    return str(path)


@pytest.mark.parametrize("key", ["frozen.learning_rate=0.1", "frozen.patience=2"])
def test_a_setting_of_a_phase_that_is_left_out_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=r"has no effect here: frozen\.epochs is 0"):
        load_config("landmarks", sets=["frozen.epochs=0", key])
    assert load_config("landmarks", sets=["frozen.epochs=1", key]).overrides


@pytest.mark.parametrize(
    ("setting_text", "words"),
    [
        ("data.split.fractions=[1]", "expected a list of 3, each a number"),
        ("evaluation.success_px=[]", "expected a list of 1 or more, each a number"),
    ],
)
def test_how_long_a_list_has_to_be_is_told(setting_text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config("landmarks", sets=[setting_text])


def test_an_old_file_without_the_first_phase_converts(tmp_path: Path) -> None:
    file = old_file(tmp_path, phase1_epochs=0, phase1_lr=0.01, phase1_patience=2, phase2_epochs=7)
    config = load_config("landmarks", preset_or_file=file).config
    assert (config.frozen.epochs, config.training.epochs) == (0, 7)  # type: ignore[attr-defined]
    with_it = load_config("landmarks", preset_or_file=old_file(tmp_path, phase1_lr=0.01)).config
    assert with_it.frozen.learning_rate == 0.01  # type: ignore[attr-defined]
