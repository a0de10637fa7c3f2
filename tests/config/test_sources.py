"""Where settings come from, and which source wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.small import SmallConfig, load, refused, training


def test_nothing_given_is_the_schemas_defaults() -> None:
    loaded = load()
    assert training(loaded).epochs == 7
    assert loaded.config == SmallConfig(task="small")
    assert (loaded.user_set, loaded.preset, loaded.notes) == ({}, None, ())


def test_each_source_wins_over_the_one_before() -> None:
    key = "training.seed"
    steps = [load("training: {seed: 1}")]
    environ = {"TRAIN_WORKER_TRAINING__SEED": "2"}
    steps.append(load("training: {seed: 1}", environ=environ))
    steps.append(load("training: {seed: 1}", f"{key}=3", environ=environ))
    steps.append(load("training: {seed: 1}", f"{key}=3", environ=environ, flags={key: 4}))
    assert [training(step).seed for step in steps] == [1, 2, 3, 4]
    origins = ["my.yaml", "environment TRAIN_WORKER_TRAINING__SEED", "--set training.seed", "--seed"]
    assert [step.user_set[key] for step in steps] == origins


def test_a_partial_section_keeps_the_tasks_own_defaults() -> None:
    assert (training(load("training: {seed: 1}")).epochs, training(load("training: {seed: 1}")).learning_rate) == (
        7,
        0.5,
    )


def test_a_preset_by_name_and_the_default_preset(presets: Path) -> None:
    assert training(load(config="quick")).epochs == 1
    assert load(config="quick").preset == "quick"
    assert load().preset == "default"
    assert "training.epochs" not in load(config="quick").user_set


def test_an_unknown_preset_names_the_nearest(presets: Path) -> None:
    message = refused(config="quik")
    assert "did you mean quick?" in message
    assert "default, quick" in message


def test_a_folder_as_config_is_refused(tmp_path: Path) -> None:
    assert "is a folder" in refused(config=str(tmp_path))


def test_flags_that_were_not_given_change_nothing() -> None:
    assert load(flags={"training.seed": None}).user_set == {}


def test_entries_of_an_open_mapping_are_joined() -> None:
    loaded = load("goals: {test/csi_35: '>0.4', test/mae: '<3'}", "goals.test/mae='<2'", "goals.val/x_0.5='>1'")
    assert loaded.config.goals == {"test/csi_35": ">0.4", "test/mae": "<2", "val/x_0.5": ">1"}


def test_a_section_can_be_set_as_a_mapping() -> None:
    assert load(None, "data.split={method: cut, fractions: [0.8, 0.1, 0.1]}").config.data.split.method == "cut"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training:\n  seed: 1\n  seed: 2\n", "my.yaml, line 3, column 3: the key seed stands twice"),
        ("training:\n  seed: 1\ntraining.seed: 2\n", "my.yaml: the key training.seed stands twice"),
        ("training: [1", "my.yaml, line 1"),
        ("a: !!python/object:os.system x\n", "my.yaml, line 1"),
        ("task: small\n---\ntask: small\n", "my.yaml, line 2"),
        ("- 1\n- 2\n", "the file is a list, expected settings"),
        ("training: 5\n", "training is a whole number, expected settings"),
        ("data: {cache_dir: !!set {x}}\n", "data.cache_dir is {'x'}"),
        ("data: {size: &x [*x]}\n", "data.size is [[...]]"),
        ("training: {learning_rate: .inf}\n", "training.learning_rate is inf, expected a number > 0, finite"),
        ("training: {learning_rate: .nan}\n", "finite"),
    ],
)
def test_bad_yaml_is_named_with_its_place(text: str, words: str) -> None:
    assert words in refused(text)


def test_a_file_that_is_no_text_is_named() -> None:
    Path("my.yaml").write_bytes(b"\xff\xfe\x00a")
    assert "my.yaml: no text in UTF-8" in refused(config="my.yaml")


def test_an_empty_file_and_an_empty_section_set_nothing() -> None:
    assert load("").config == load("training:\n").config == SmallConfig(task="small")


def test_the_short_name_of_the_seed_is_a_setting() -> None:
    loaded = load(environ={"TRAIN_WORKER_SEED": "3"})
    assert training(loaded).seed == 3
    assert loaded.user_set == {"training.seed": "environment TRAIN_WORKER_SEED"}
    assert training(load(None, "training.seed=4", environ={"TRAIN_WORKER_SEED": "3"})).seed == 4
    assert "TRAIN_WORKER_SEED: training.seed is 'x' (text)" in refused(environ={"TRAIN_WORKER_SEED": "x"})


def test_two_variables_for_one_setting_must_agree() -> None:
    both = {"TRAIN_WORKER_SEED": "3", "TRAIN_WORKER_TRAINING__SEED": "3"}
    assert training(load(environ=both)).seed == 3
    assert refused(environ={**both, "TRAIN_WORKER_SEED": "5"}, flags={"training.seed": 1}) == (
        "environment TRAIN_WORKER_SEED says 5 and TRAIN_WORKER_TRAINING__SEED says 3, and both mean training.seed; "
        "keep one of them"
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("False", False), ("1e-4", 1e-4), ("3", 3.0), ("0x10", 16.0)],
)
def test_words_of_a_command_are_what_they_look_like(text: str, value: object) -> None:
    key = "training.deterministic" if isinstance(value, bool) else "training.learning_rate"
    for loaded in (
        load(None, f"{key}={text}"),
        load(environ={f"TRAIN_WORKER_{key.upper().replace('.', '__')}": text}),
    ):
        assert getattr(training(loaded), key.rpartition(".")[2]) == value


def test_lists_and_null_come_by_every_source() -> None:
    for loaded in (
        load("data: {size: [3, 4], split: {fractions: [0.8, 0.1, 0.1]}}"),
        load(None, "data.size=[3, 4]", "data.split.fractions=[0.8,0.1,0.1]"),
        load(environ={"TRAIN_WORKER_DATA__SIZE": "[3, 4]", "TRAIN_WORKER_DATA__SPLIT__FRACTIONS": "[0.8, 0.1, 0.1]"}),
    ):
        data = loaded.config.data  # type: ignore[attr-defined]
        assert (data.size, data.split.fractions) == ((3, 4), (0.8, 0.1, 0.1))
    assert load(None, "data.size=null").config.data.size is None  # type: ignore[attr-defined]


def test_overrides_are_what_came_above_preset_and_file() -> None:
    environ = {"TRAIN_WORKER_DATA__SIZE": "null"}
    loaded = load("training: {epochs: 3}", "training.patience=2", environ=environ, flags={"training.seed": 4})
    assert loaded.overrides == {"data.size": None, "training.patience": 2, "training.seed": 4}
