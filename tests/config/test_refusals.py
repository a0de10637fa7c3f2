"""What is wrong in a configuration, told in one line each and all at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backend.errors import UsageError
from tests.config.small import load, refused, training
from training.config import config_hash, load_config, nearest_key
from training.schemas.shared import TrainingSection
from training.yaml_core import parse_yaml


@pytest.mark.parametrize(
    ("setting_text", "words"),
    [
        ("training.learnin_rate=1", "there is no setting training.learnin_rate; did you mean training.learning_rate?"),
        ("seed=1", "there is no setting seed; did you mean training.seed?"),
        ("data.epochs=1", "did you mean training.epochs?"),
        ("model.fractions=1", "did you mean data.split.fractions?"),
        ("zzzz=1", "there is no setting zzzz"),
        ("training.epochs=many", "training.epochs is 'many' (text), expected a whole number >= 1"),
        ("training.epochs=0", "training.epochs is 0 (a whole number), expected a whole number >= 1"),
        ("training.epochs=2.5", "training.epochs is 2.5 (a number), expected a whole number >= 1"),
        ("training.epochs=true", "training.epochs is true (true or false), expected a whole number >= 1"),
        ("training.epochs=[1]", "training.epochs is [1] (a list)"),
        ("training.deterministic=yes", "training.deterministic is 'yes' (text), expected true or false"),
        ("training.lr_factor=1.0", "expected a number > 0 and < 1"),
        ("training.amp=bf", "expected one of auto, off, bf16 or fp16"),
        ("training.micro_batch_size=x", "expected a whole number or auto"),
        ("training.clip_grad_norm=-1", "expected a number or null > 0"),
        ("data.size=[250]", "data.size is [250] (a list), expected a list of 2, each a whole number or null"),
        ("data.size=[250, x]", "data.size is [250, 'x'] (a list)"),
        ("selection.metric=test/loss", "selection.metric is 'test/loss' (text), expected text matching ^val/.+"),
        ("goals={a: 1}", "goals is {'a': 1} (a group of settings), expected a mapping"),
        ("training.seed", "--set training.seed: expected key=value"),
        ("training.seed=", "--set training.seed: no value; write null for none"),
        ("training.seed=[1", "--set training.seed, line 1"),
        ("task=other", "task is 'other', but the task of this command is small"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(setting_text: str, words: str) -> None:
    message = refused(None, setting_text)
    assert words in message
    assert "\n" not in message


def test_everything_wrong_is_told_at_once() -> None:
    message = refused(
        "training: {epochs: -1, nope: 1, amp: 3}",
        "training.seed=x",
        environ={"TRAIN_WORKER_TRAINING__SEEED": "1"},
        flags={"training.patience": "z"},
    )
    first, *lines = message.splitlines()
    assert first == "6 settings are wrong:"
    for words in (
        "training.epochs is",
        "training.nope",
        "training.amp is",
        "training.seed is",
        "TRAIN_WORKER_TRAINING__SEEED",
        "--patience",
    ):
        assert sum(f" {words} " in f"{line} ".replace(":", " ") for line in lines) == 1, words


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(UsageError, match="did you mean convlstm"):
        load_config("convlst")


def test_whole_numbers_stand_for_numbers() -> None:
    loaded = load("training: {learning_rate: 1}")
    assert isinstance(training(loaded).learning_rate, float)
    assert config_hash(loaded.config) == config_hash(load("training: {learning_rate: 1.0}").config)


@pytest.mark.parametrize("name", ["TRAIN_WORKER_SEEDS", "TRAIN_WORKER_TRAINING_SEED", "TRAIN_WORKER_DATE"])
def test_a_variable_of_the_prefix_that_is_no_setting_is_refused(name: str) -> None:
    assert f"environment: {name} is no setting" in refused(environ={name: "1"})


def test_other_variables_and_the_workers_own_words_pass() -> None:
    environ = {"TRAIN_WORKER_DATA": "/x", "TRAIN_WORKER_IMAGE": "1", "SEED": "x", "TRAINING__SEED": "x"}
    assert load(environ=environ).user_set == {}


def test_nearest_key_prefers_the_last_word() -> None:
    paths = ["training.seed", "data.seed", "training.epochs"]
    assert nearest_key("trainin.seed", paths) == "training.seed"
    assert nearest_key("epochs", paths) == "training.epochs"
    assert nearest_key("nothing.alike_at_all", paths) is None
    assert nearest_key("training.lr", [*paths, "training.learning_rate", "training.lr_patience"]) == (
        "training.learning_rate"
    )


@pytest.mark.parametrize(
    ("sets", "key"),
    [
        (["training.schedule=cosine", "training.lr_patience=5"], "training.lr_patience"),
        (["training.schedule=cosine", "training.lr_patience=3"], "training.lr_patience"),  # the default's value
        (["training.min_delta=0.1"], "training.min_delta"),
        (["data.split.method=cut", "data.split.min_gap_hours=3"], "data.split.min_gap_hours"),
        (["data.size=null", "data.reduce=max"], "data.reduce"),
    ],
)
def test_a_setting_without_effect_is_an_error_when_the_user_set_it(sets: list[str], key: str) -> None:
    assert f"--set {key}: {key} has no effect here" in refused(None, *sets)
    tree: dict[str, Any] = {}
    for entry in sets:
        path, _, value = entry.partition("=")
        tree[path] = parse_yaml(value, "")
    assert f"my.yaml: {key} has no effect here" in refused(json.dumps(tree))


def test_the_reason_names_the_other_key() -> None:
    message = refused(None, "training.schedule=cosine", "training.lr_patience=5")
    assert "it needs training.schedule to be 'plateau', which is 'cosine'" in message


def test_nothing_is_called_idle_because_of_a_wrong_value() -> None:
    message = refused(None, "training.schedule=plato", "training.lr_patience=5")
    assert "training.schedule" in message
    assert "lr_patience" not in message


def test_a_presets_leftovers_are_no_error_and_leave_no_trace(presets: Path) -> None:
    loaded = load(None, "training.schedule=cosine", config="quick")
    assert training(loaded).lr_patience == TrainingSection().lr_patience
    assert config_hash(loaded.config) == config_hash(load(None, "training.epochs=1", "training.schedule=cosine").config)


def test_what_the_command_line_makes_idle_in_a_file_is_dropped_and_noted() -> None:
    loaded = load("training: {lr_patience: 9}", "training.schedule=cosine")
    assert training(loaded).lr_patience == TrainingSection().lr_patience
    assert "training.lr_patience" not in loaded.user_set
    assert len(loaded.notes) == 1
    assert loaded.notes[0].startswith("my.yaml: training.lr_patience is dropped")


def test_what_the_command_line_gives_an_effect_is_kept() -> None:
    assert training(load("training: {min_delta: 0.1}", "training.patience=3")).min_delta == 0.1


def test_the_environment_is_the_users_own_word() -> None:
    environ = {"TRAIN_WORKER_TRAINING__LR_PATIENCE": "3"}
    assert "has no effect" in refused(None, "training.schedule=cosine", environ=environ)


@pytest.mark.parametrize(
    "value",
    [
        "https://us:HUSH@host/m.yaml",
        "https://host/m.yaml?token=HUSH",
        "https://us:HUSH@" + "host" * 20,  # too long to be shown whole
        ":s3,secret_access_key=HUSH:bucket/m.yaml",
    ],
)
def test_a_secret_in_a_setting_is_refused_and_not_repeated(value: str) -> None:
    told = [
        refused(None, f"data.cache_dir='{value}'"),
        refused(f"data: {{cache_dir: '{value}'}}"),
        refused(f"goals: {{'val/loss': '{value}'}}"),
        refused(f"goals: {{'{value}': '<1'}}"),
        refused(f"selection: {{metric: '{value}'}}"),  # wrong in another way too
        refused(None, environ={"TRAIN_WORKER_DATA__CACHE_DIR": f"'{value}'"}),
        refused(None, f"training.seed='{value}'"),
        refused(None, f"{value}=1"),
        refused(None, environ={"TRAIN_WORKER_TRAINING__SEED": f"'{value}'", "TRAIN_WORKER_SEED": "3"}),
    ]
    assert not [text for text in told if "HUSH" in text]
    assert all("environment variables or files of the address's own protocol" in text for text in told[:6])
    assert all("\n" not in text for text in told[:6])


@pytest.mark.parametrize("value", ["s3://bucket/runs@v1/x", "/data/a,b", "C:/data", "rclone:bucket/x", "me@host"])
def test_an_address_without_a_secret_is_taken(value: str) -> None:
    assert load(None, f"data.cache_dir='{value}'").config.model_dump()["data"]["cache_dir"] == value
