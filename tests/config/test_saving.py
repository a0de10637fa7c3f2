"""A saved configuration is the same configuration, and the hash knows results from conveniences."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import ConfigError
from tests.config.small import DataSection, SmallConfig, load, training
from training.config import canonical, config_hash, dump_yaml, name_of_task
from training.schemas.shared import RunConfig

_SETS = st.lists(
    st.sampled_from(
        [
            "training.schedule=cosine",
            "training.schedule=step",
            "training.learning_rate=1e-05",
            "training.learning_rate=3",
            "training.seed=0",
            "training.patience=4",
            "training.amp=off",
            "training.num_workers=2",
            "data.size=null",
            "data.size=[3, 4]",
            "data.cache_dir='010'",
            "data.cache_dir='yes: #x'",
            "data.cache_dir='null'",
            "data.cache_dir='1e5'",
            "data.split.method=cut",
            "goals={test/csi_35: '>0.4'}",
            "selection.metric=val/csi",
        ]
    ),
    max_size=6,
    unique=True,
)


@settings(deadline=None)
@given(_SETS, st.booleans())
def test_a_saved_config_loads_into_an_equal_one_with_an_equal_hash(sets: list[str], comments: bool) -> None:
    config = load(None, *sets).config
    again = load(dump_yaml(config, comments=comments))
    assert again.config == config
    assert config_hash(again.config) == config_hash(config)
    assert again.notes == ()
    assert dump_yaml(again.config) == dump_yaml(config)


@settings(deadline=None)
@given(st.text(max_size=30).filter(lambda text: "\x00" not in text))
def test_any_text_survives_saving(text: str) -> None:
    config = SmallConfig(task="small", data=DataSection(cache_dir=text))
    try:
        again = load(dump_yaml(config)).config
    except ConfigError as error:  # characters that YAML does not know at all
        assert "no valid YAML" in str(error)
        return
    assert again == config


def test_file_with_overrides_and_saved_file_have_the_same_hash() -> None:
    first = load(
        "training: {epochs: 3, schedule: cosine}", "training.seed=9", environ={"TRAIN_WORKER_DATA__SIZE": "null"}
    )
    assert config_hash(load(dump_yaml(first.config)).config) == config_hash(first.config)


def test_a_saved_config_can_be_changed_on_the_command_line() -> None:
    saved = dump_yaml(load(None, "training.lr_patience=9").config)
    loaded = load(saved, "training.schedule=cosine")
    assert training(loaded).schedule == "cosine"
    assert "lr_patience" not in dump_yaml(loaded.config)


def test_the_hash_knows_results_from_conveniences() -> None:
    plain = config_hash(load().config)
    for same in ("training.num_workers=3", "training.micro_batch_size=1", "data.cache_dir=x", "goals={a: '>1'}"):
        assert config_hash(load(None, same).config) == plain, same
    for other in ("training.seed=1", "training.learning_rate=1e-5", "data.size=null", "selection.mode=max"):
        assert config_hash(load(None, other).config) != plain, other


def test_the_hash_does_not_change_from_process_to_process_or_by_accident() -> None:
    code = "import training.config as c, training.schemas.shared as s; print(c.config_hash(s.RunConfig(task='t')))"
    root = Path(__file__).parent.parent.parent
    environ = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(root)}
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
    assert printed.stdout.strip() == config_hash(RunConfig(task="t"))


def test_canonical_is_plain_json_without_neutral_keys() -> None:
    tree = canonical(load().config)
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree
    assert "num_workers" not in tree["training"]
    assert "goals" not in tree
    assert "lr_step_epochs" not in tree["training"]
    assert math.isclose(tree["training"]["learning_rate"], 0.5)


def test_comments_say_what_each_key_means() -> None:
    text = dump_yaml(load().config, comments=True)
    assert "  # Seed of initialisation, order and augmentation.\n  seed: 42\n" in text
    assert "    # How groups are made.\n    method: gap\n" in text
    assert "size: [250, 250]" in text
    assert "cache_dir: null\n" in text


def test_the_task_of_a_config_file_is_found() -> None:
    Path("my.yaml").write_text("task: small\n")
    assert name_of_task(None, "my.yaml") == "small"
    assert name_of_task("convlstm", "my.yaml") == "convlstm"
    assert name_of_task(None) == name_of_task(None, "default") == "convlstm"
