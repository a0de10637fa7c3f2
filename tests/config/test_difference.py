"""In which settings a configuration differs from its preset."""

from __future__ import annotations

from pathlib import Path

from training.config import dump_yaml, load_config
from training.config.compare import from_preset


def test_a_preset_differs_from_itself_in_nothing() -> None:
    assert from_preset(load_config("convlstm", preset_or_file="sample"), "sample") == {"preset": "sample", "keys": {}}


def test_what_was_set_is_told_with_both_values() -> None:
    loaded = load_config("convlstm", preset_or_file="sample", sets=["training.epochs=3", "model.hidden_dims=[8]"])
    keys = {"training.epochs": [12, 3], "model.hidden_dims": [[24, 24], [8]]}
    assert from_preset(loaded, "sample") == {"preset": "sample", "keys": keys}


def test_a_saved_configuration_is_held_against_the_preset_that_its_run_was_made_from(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(dump_yaml(load_config("convlstm", preset_or_file="sample").config))
    saved = load_config("convlstm", preset_or_file=str(file), sets=["training.epochs=3"])
    assert from_preset(saved, "sample")["keys"] == {"training.epochs": [12, 3]}
    other = from_preset(saved, None)
    assert other["preset"] == "default"
    assert other["keys"]["training.epochs"] == [50, 3]
