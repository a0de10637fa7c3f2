"""Which data is taken and why, and how the built-in sample comes to its place."""

from __future__ import annotations

import errno
import multiprocessing
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from backend.errors import BAD_DATA, BadDataError, ConfigError
from training.config import layers
from training.config.settle import settle
from training.data.source import DataSource, choose_source, sample_folder
from training.requests import TrainRequest
from training.runs.data import dataset_name
from training.schemas.shared import RunConfig
from training.tasks import TASKS, Places

ID, OTHER_ID = "1aBcDeFgHiJkLmNoPqRsTuVwXyZ", "1zYxWvUtSrQpOnMlKjIhGfEdCbA"


@pytest.fixture(autouse=True)
def in_tmp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def dataset(path: str) -> Path:
    folder = Path(path)
    folder.mkdir(parents=True)
    (folder / "event").mkdir()
    return folder


def choose(
    flag: str | None = None,
    environ: Mapping[str, str] | None = None,
    manifest: str | None = None,
    gpu: bool = False,
    drive_id: str | None = None,
) -> DataSource:
    return choose_source("convlstm", flag, environ or {}, manifest, Path("datasets"), gpu, drive_id)


def refused(*args: Any, **named: Any) -> str:
    with pytest.raises(BadDataError) as caught:
        choose(*args, **named)
    assert caught.value.exit_code == BAD_DATA
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_each_place_wins_over_the_next() -> None:
    a, b, c = dataset("a"), dataset("b"), dataset("datasets/convlstm")
    environ = {"TRAIN_WORKER_DATA": "b"}
    chosen = [choose("a", environ, "m.yaml"), choose(None, environ, "m.yaml"), choose()]
    assert [(source.kind, source.path) for source in chosen] == [("flag", a), ("environment", b), ("datasets", c)]
    assert not any(source.is_sample for source in chosen)
    for source, words in zip(chosen, ["--data", "TRAIN_WORKER_DATA", "datasets/convlstm"], strict=True):
        assert words in source.reason
        assert "\n" not in source.reason


def test_what_is_to_be_fetched_comes_before_what_lies_there() -> None:
    dataset("datasets/convlstm")
    Path("m.yaml").write_text("sources: [{file: a.zip}]\n")
    by_manifest = choose(manifest="m.yaml")
    assert (by_manifest.kind, by_manifest.path) == ("manifest", Path("datasets/m"))
    assert by_manifest.reason == "data: datasets/m (from data.manifest m.yaml)"
    by_flag = choose(None, {"TRAIN_WORKER_DRIVE_ID": ID}, drive_id=OTHER_ID)
    by_environment = choose(None, {"TRAIN_WORKER_DRIVE_ID": ID})
    for source, drive_id, words in [(by_flag, OTHER_ID, "--drive-id"), (by_environment, ID, "TRAIN_WORKER_DRIVE_ID")]:
        assert source.path == Path("datasets/convlstm")
        assert source.manifest is not None
        assert source.manifest.sources[0].address == drive_id
        assert words in source.reason
    assert choose("datasets/convlstm", manifest="m.yaml", drive_id=ID).manifest is None


def test_a_manifest_and_a_drive_id_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match=r"data.manifest \(m.yaml\) and --drive-id .* both say what to fetch"):
        choose(manifest="m.yaml", drive_id=ID)


def test_the_sample_is_taken_when_there_is_nothing_else() -> None:
    source = choose()
    assert (source.path, source.kind, source.is_sample) == (None, "sample", True)
    assert "built-in sample" in source.reason
    assert "--data FOLDER" in source.reason


@pytest.mark.parametrize("gpu", [False, True])
def test_the_sample_can_always_be_asked_for(gpu: bool) -> None:
    dataset("datasets/convlstm")
    assert choose("sample", gpu=gpu).is_sample
    assert choose(None, {"TRAIN_WORKER_DATA": "sample"}, gpu=gpu).is_sample
    dataset("sample")
    assert choose("./sample", gpu=gpu).kind == "flag"


def test_with_a_gpu_the_sample_must_be_asked_for() -> None:
    assert "--data sample" in refused(gpu=True)


def test_readme_and_hidden_files_are_no_dataset() -> None:
    folder = Path("datasets/convlstm")
    folder.mkdir(parents=True)
    for name in ("README.md", ".gitkeep"):
        (folder / name).touch()
        (folder.parent / name).touch()
    (folder.parent / ".prepared").mkdir()
    assert choose().is_sample


def test_the_dataset_of_another_task_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "other", Places("nowhere:Other", "nowhere:OtherConfig"))
    dataset("datasets/other")
    assert choose().is_sample


def test_what_lies_beside_the_tasks_folder_is_named_and_never_taken_for_nothing() -> None:
    dataset("datasets/20100826")
    message = refused()
    assert "datasets holds 20100826" in message
    assert "--data datasets/20100826" in message


@pytest.mark.parametrize("origin", ["--data", "TRAIN_WORKER_DATA"])
def test_a_folder_that_is_missing_a_file_or_empty_is_named(origin: str) -> None:
    Path("file").touch()
    Path("empty").mkdir()
    (Path("empty") / ".hidden").touch()
    for name, words in [("gone", "no such folder"), ("file", "is no folder"), ("empty", "holds nothing")]:
        message = refused(name) if origin == "--data" else refused(None, {origin: name})
        assert message.startswith(f"{origin} {name}: {words}")


def test_a_file_or_a_dead_link_in_the_datasets_place_is_named() -> None:
    Path("datasets").mkdir()
    place = Path("datasets/convlstm")
    place.touch()
    assert "datasets/convlstm: is no folder" in refused()
    place.unlink()
    place.symlink_to("gone")
    assert "datasets/convlstm: is no folder" in refused()


def test_an_empty_variable_is_as_none() -> None:
    assert choose(None, {"TRAIN_WORKER_DATA": ""}).is_sample


# --- the sample's folder --------------------------------------------------------------------------------------------


def write_sample(folder: Path) -> None:
    assert list(folder.iterdir()) == []
    (folder / "event").mkdir()
    (folder / "event" / "frame").write_text("x")


def test_the_sample_is_made_once() -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        write_sample(folder)

    first = sample_folder("convlstm", Path("datasets"), Path("out"), make)
    assert first == sample_folder("convlstm", Path("datasets"), Path("out"), make) == Path("datasets/.samples/convlstm")
    assert len(made) == 1
    assert (first / "event" / "frame").read_text() == "x"
    assert os.access(first, os.R_OK | os.X_OK)
    assert first.stat().st_mode & 0o777 == 0o755
    assert choose().is_sample, "the sample's own folder is no dataset"


def test_a_sample_that_was_interrupted_is_made_anew() -> None:
    def die(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_folder("convlstm", Path("datasets"), Path("out"), die)
    assert not Path("datasets/.samples/convlstm").exists()
    folder = sample_folder("convlstm", Path("datasets"), Path("out"), write_sample)
    assert [entry.name for entry in folder.iterdir()] == ["event"]
    assert list(folder.parent.glob(".convlstm.tmp-*")) == []


def test_where_datasets_cannot_be_written_the_sample_lies_under_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    real = tempfile.mkdtemp

    def read_only(*, prefix: str, **place: Path) -> str:
        if place["dir"].parts[0] == "datasets":
            raise OSError(errno.EROFS, "Read-only file system", str(place["dir"]))
        return real(prefix=prefix, **place)

    monkeypatch.setattr(tempfile, "mkdtemp", read_only)
    folder = sample_folder("convlstm", Path("datasets"), Path("out"), write_sample)
    assert folder == Path("out/.samples/convlstm")
    assert (folder / "event" / "frame").exists()


def test_a_full_disk_is_not_taken_for_a_read_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        sample_folder("convlstm", Path("datasets"), Path("out"), full)
    assert not Path("out").exists()


def slow_sample(folder: Path) -> None:
    write_sample(folder)
    (folder / str(os.getpid())).touch()


def test_processes_that_make_it_at_once_end_with_one_whole_sample() -> None:
    context = multiprocessing.get_context("fork")
    work = [
        context.Process(target=sample_folder, args=("convlstm", Path("datasets"), Path("out"), slow_sample))
        for _ in range(4)
    ]
    for process in work:
        process.start()
    for process in work:
        process.join()
    assert [process.exitcode for process in work] == [0] * 4
    assert len(list(Path("datasets/.samples/convlstm").iterdir())) == 2  # the event and one process' mark


# --- settings and data together -------------------------------------------------------------------------------------


SMALL = Places("nowhere:SmallTask", "training.schemas.shared:RunConfig")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(TASKS, "small", SMALL)
    monkeypatch.setattr(layers, "PRESETS", tmp_path / "configs")
    folder = tmp_path / "configs" / "small"
    folder.mkdir(parents=True)
    (folder / "default.yaml").write_text("training: {epochs: 50}\n")
    (folder / "sample.yaml").write_text("training: {epochs: 2}\n")


@pytest.mark.usefixtures("small")
def test_the_sample_comes_with_its_preset_unless_another_is_asked_for() -> None:
    def settled(**asked: Any) -> tuple[str | None, int, bool]:
        loaded, source = settle(TrainRequest(task="small", **asked), {}, lambda config: False)
        return loaded.preset, loaded.config.training.epochs, source.is_sample

    assert settled() == ("sample", 2, True)
    assert settled(config="default") == ("default", 50, True)
    assert settled(sets=("training.epochs=9",)) == ("sample", 9, True)
    dataset("datasets/small")
    assert settled() == ("default", 50, False)
    assert settled(data="sample") == ("sample", 2, True)


@pytest.mark.usefixtures("small")
def test_whether_a_gpu_is_at_work_is_asked_of_the_settings() -> None:
    def has_gpu(config: RunConfig) -> bool:
        return config.training.device != "cpu"

    with pytest.raises(BadDataError):
        settle(TrainRequest(task="small"), {}, has_gpu)
    assert settle(TrainRequest(task="small", sets=("training.device=cpu",)), {}, has_gpu)[1].is_sample


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("street", "street"),
        ("street/data.yaml", "street"),
        ("street/vehicles.yaml", "vehicles"),
        (None, "built-in sample"),
    ],
)
def test_a_dataset_is_called_as_its_folder_or_its_file(tmp_path: Path, given: str | None, name: str) -> None:
    (tmp_path / "street").mkdir()
    for file in ("data.yaml", "vehicles.yaml"):
        (tmp_path / "street" / file).touch()
    source = DataSource(None if given is None else tmp_path / given, "flag", "as given")
    assert dataset_name(source) == {"name": name, "version": None}
