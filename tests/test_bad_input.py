"""Everything that can be wrong with what a user gives: one clear line, the right exit code, no traceback."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import torch
import xarray as xr

from backend.artifact import open_artifact
from tests.data.conftest import CADENCE, START, write_event, write_volume
from tests.runs import SHORT, SMALL, places, run_of, train
from training.cli import main
from training.tasks.convlstm import ConvLSTMTask

ALIKE = (*SHORT["convlstm"], "training.max_steps=1", "data.downsample_size=[8, 8]", "data.stride=2")
ODD_TIME = START + 86400 + 3 * CADENCE
ODD = Path("sample", "day1", "996.nc")  # the file that is harmed, of that time

Data = Callable[[], Path]
Refusal = Callable[..., str]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound") / "radar"
    for day in range(3):
        write_event(root, f"day{day}", START + day * 86400, 6)
    return root


@pytest.fixture
def data(sound: Path, tmp_path: Path) -> Path:
    """Three events of six volumes, to be harmed."""
    return Path(shutil.copytree(sound, tmp_path / "radar"))


@pytest.fixture
def refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """``refusal(data, code, "key=value", …, words=[…])``: the one line on stderr of a training that must end so."""

    def refused(data: Path | str, code: int, *sets: str, words: tuple[str, ...] = ()) -> str:
        capsys.readouterr()
        found = train(tmp_path, "convlstm", *words, sets=(*ALIKE, *sets), data=str(data))
        said = capsys.readouterr()
        assert found == code, said
        assert "Traceback" not in said.out + said.err
        lines = said.err.strip().splitlines()
        assert len(lines) == 1, lines
        return lines[0]

    return refused


def test_what_is_harmed_below_is_sound(data: Path, tmp_path: Path) -> None:
    assert train(tmp_path, "convlstm", sets=ALIKE, data=str(data)) == 0


# --- files ------------------------------------------------------------------------------------------------------------


def edited(change: Callable[[netCDF4.Dataset], Any]) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        with netCDF4.Dataset(path, "a") as dataset:
            dataset.set_auto_maskandscale(False)
            change(dataset)

    return harm


def rebuilt(change: Callable[[xr.Dataset], xr.Dataset]) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        with xr.open_dataset(path, decode_cf=False) as file:
            content = file.load()
        change(content).to_netcdf(path, format="NETCDF3_CLASSIC")

    return harm


def set_value(name: str, value: float) -> Callable[[Path], None]:
    return edited(lambda dataset: dataset[name].__setitem__(0, value))


def renamed(**names: str) -> Callable[[Path], None]:
    return rebuilt(lambda content: content.rename(names))


def broken_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/996.nc")


def no_file(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: path.write_text("no volume"), "is not a NetCDF file (begins with b'no v')"),
        (lambda path: path.write_bytes(b""), "is not a NetCDF file (is empty)"),
        (lambda path: path.write_bytes(path.read_bytes()[:-60]), "is a truncated or damaged NetCDF file; copy it"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "is a truncated or damaged NetCDF file; copy it"),
        (renamed(DBZ="VEL"), "has no variable 'DBZ'; it has"),
        (rebuilt(lambda content: content.isel(y0=0, drop=True)), "has no y dimension among its dimensions"),
        (renamed(y0="rows"), "has a dimension 'rows' that is none of time, z, y and x"),
        (rebuilt(lambda content: content.drop_vars("x0")), "has a dimension 'x0' without a coordinate variable"),
        (rebuilt(lambda content: content.isel(time=0, drop=True)), "has no time; expected a variable 'time'"),
        (set_value("time", np.nan), "is no time; expected a number with CF units"),
        (edited(lambda dataset: dataset["time"].setncattr("units", "fortnights")), "units 'fortnights' is no time"),
        (set_value("x0", np.nan), "coordinate 'x0' has NaN, infinite or missing values, expected a number"),
        (set_value("y0", np.inf), "coordinate 'y0' has NaN, infinite or missing values, expected a number"),
        (set_value("z0", -np.inf), "coordinate 'z0' has NaN, infinite or missing values, expected a number"),
        (edited(lambda d: d["DBZ"].setncattr("add_offset", np.float32(-999))), "expected dBZ between -150 and 150"),
        (edited(lambda d: d["DBZ"].setncattr("scale_factor", np.float32(1e30))), "expected dBZ between -150 and 150"),
        (broken_link, "cannot be read (No such file or directory); mend or remove it"),
    ],
)
def test_a_file_that_is_no_volume(data: Path, refusal: Refusal, harm: Callable[[Path], None], words: str) -> None:
    harm(data / ODD)
    line = refusal(data, 65)
    assert f"{ODD}: " in line
    assert words in line


def test_a_volume_of_nothing_but_fill(data: Path, tmp_path: Path, refusal: Refusal) -> None:
    write_volume(data / ODD, ODD_TIME, np.full((2, 12, 10), -128, np.int8))
    line = refusal(data, 65, "data.fill_means=no_data")
    assert f"{ODD}: every value is fill" in line
    assert "data.fill_means" in line
    assert train(tmp_path, "convlstm", sets=ALIKE, data=str(data)) == 0  # a clear sky


def test_a_grid_that_changes_inside_an_event(data: Path, refusal: Refusal) -> None:
    write_volume(data / ODD, ODD_TIME, shape=(2, 12, 11))
    line = refusal(data, 65)
    assert f"{ODD} has 12x11 cells" in line
    assert "994.nc has 12x10 cells" in line


def test_levels_that_change_inside_an_event(data: Path, refusal: Refusal) -> None:
    write_volume(data / ODD, ODD_TIME, shape=(3, 12, 10))
    assert f"{ODD} has 3 levels" in refusal(data, 65)


def test_two_files_with_the_same_time(data: Path, refusal: Refusal) -> None:
    shutil.copy(data / ODD, data / ODD.with_name("twin.nc"))
    line = refusal(data, 65)
    assert f"{ODD} and twin.nc" in line
    assert "same time" in line


def test_two_events_with_another_frame_at_the_same_time(data: Path, refusal: Refusal) -> None:
    write_volume(data / "sample" / "other" / "x.nc", ODD_TIME, seed=9)
    line = refusal(data, 65)
    assert str(ODD) in line
    assert "other/x.nc" in line


def test_events_on_different_grids(data: Path, refusal: Refusal) -> None:
    write_event(data, "wide", START + 9 * 86400, 6, shape=(2, 12, 14))
    line = refusal(data, 65)
    assert "day0: 12x10 cells" in line
    assert "wide: 12x14 cells" in line
    assert "data.grid=crop" in line


# --- folders ----------------------------------------------------------------------------------------------------------


def test_no_such_folder_and_an_empty_one(tmp_path: Path, data: Path, refusal: Refusal) -> None:
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path / 'nowhere'}: no such folder" in refusal(tmp_path / "nowhere", 65)
    assert f"{tmp_path / 'empty'}: holds nothing" in refusal(tmp_path / "empty", 65)
    assert f"{data / ODD}: is no folder" in refusal(data / ODD, 65)


def test_a_folder_without_volumes(tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("none")
    line = refusal(tmp_path / "texts", 65)
    assert f"No event found in {tmp_path / 'texts'}" in line
    assert "expected one folder for each event" in line


@pytest.mark.parametrize("make", [lambda data: (data / "sample" / "day9").mkdir(), lambda data: no_file(data / ODD)])
def test_an_empty_event(data: Path, refusal: Refusal, make: Callable[[Path], None]) -> None:
    make(data)
    assert f"Empty folder: {data / 'sample'}" in refusal(data, 65)


def test_files_outside_event_folders(data: Path, refusal: Refusal) -> None:
    shutil.copy(data / ODD, data / "sample" / "lost.nc")
    line = refusal(data, 65)
    assert f"Files outside event folders: {data / 'sample'} holds .nc files" in line


def test_too_few_events_for_the_split(data: Path, refusal: Refusal) -> None:
    for day in ("day1", "day2"):
        shutil.rmtree(data / "sample" / day)
    line = refusal(data, 65)
    assert "Too few events for the split: 1 windows of 5 frames" in line


def test_no_window_at_all(data: Path, refusal: Refusal) -> None:
    line = refusal(data, 65, "data.input_steps=18", "data.prediction_steps=7")
    assert "No event yields a window of 25 frames" in line
    assert "6 frames (day0" in line


# --- places -----------------------------------------------------------------------------------------------------------


def test_an_output_that_cannot_be_written(data: Path, tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "file").write_text("in the way")
    for output in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing")):
        line = refusal(data, 74, words=("--output", str(output)))
        assert str(output) in line
        assert "--output" in line


def test_a_cache_that_cannot_be_written(data: Path, tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "file").write_text("in the way")
    line = refusal(data, 74, f"data.cache_dir={tmp_path / 'file'}")
    assert str(tmp_path / "file") in line
    assert "data.cache_dir" in line


def test_the_sample_is_made_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConvLSTMTask, "make_sample", SMALL["convlstm"])
    (tmp_path / "file").write_text("in the way")
    sets = [word for text in ALIKE for word in ("--set", text)]
    for datasets in ("/proc/nothing", str(tmp_path / "file")):
        assert main(["prepare", *places(tmp_path), "--datasets", datasets, "--data", "sample", *sets]) == 0
    assert list((tmp_path / "out" / ".samples" / "convlstm").iterdir())


def test_a_datasets_folder_in_which_nothing_can_be_made(data: Path, tmp_path: Path) -> None:
    assert train(tmp_path, "convlstm", "--datasets", "/proc/nothing", sets=ALIKE, data=str(data)) == 0
    assert list((tmp_path / "out" / ".prepared" / "convlstm").iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_datasets_folder_that_is_read_only(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "datasets"
    shutil.move(data, folder / "convlstm")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        words = ["--set", "training.epochs=1", *(word for text in ALIKE for word in ("--set", text))]
        assert main(["train", "--task", "convlstm", *places(tmp_path), *words]) == 0
    finally:
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
    assert list((tmp_path / "out" / ".prepared" / "convlstm").iterdir())


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("training.epoch=3", "there is no setting training.epoch; did you mean training.epochs?"),
        ("data.strid=1", "did you mean data.stride?"),
        ("lr=1", "did you mean training.learning_rate?"),
        ("training.epochs=ten", "training.epochs is 'ten' (text), expected a whole number >= 1"),
        ("training.epochs=1.5", "training.epochs is 1.5 (a number), expected a whole number >= 1"),
        ("training.epochs", "expected key=value"),
        ("training.deterministic=1", "training.deterministic is 1 (a whole number), expected true or false"),
        ("data.stride=-1", "data.stride is -1 (a whole number), expected a whole number >= 1"),
        ("data.stride=0", "data.stride is 0"),
        ("training.epochs=0", "training.epochs is 0"),
        ("training.max_steps=0", "training.max_steps is 0"),
        ("training.batch_size=0", "training.batch_size is 0"),
        ("data.input_steps=0", "data.input_steps is 0"),
        ("data.prediction_steps=-7", "data.prediction_steps is -7"),
        ("training.learning_rate=.inf", "training.learning_rate is inf, expected a number > 0, finite"),
        ("data.split.fractions=[0.5, 0.6, 0.1]", "data.split.fractions is [0.5, 0.6, 0.1] (a list), expected three"),
        ("data.split.fractions=[1.0, 0.0, 0.0]", "expected three positive numbers that sum to 1"),
        ("data.split.method=random", "data.split.method is 'random' (text), expected one of gap, day or cut"),
        ("data.min_dbz=70", "expected more than data.min_dbz, which is 70"),
        ("data.max_dbz=-29", "data.max_dbz is -29"),
        ("data.downsample_size=[0, 5]", "expected two positive integers, rows and columns, or null"),
        ("data.downsample_size=[50, 50]", "downsample_size is 50x50, larger than the source of 12x10"),
        ("data.levels=[7]", "data.levels asks for level 7, but event day0 has levels 0 to 1"),
        ("loss.ssim_weight=2", "loss.ssim_weight is 2"),
        ("loss.ssim_window=9", "loss.ssim_window is 9, but frames are only 8x8"),
        ("evaluation.thresholds_dbz=[100.0]", "found 100"),
        ("selection.metric=test/loss", "selection.metric is 'test/loss' (text), expected text matching ^val/"),
        ("model.kernel_size=2", "model.kernel_size"),
        ("model.hidden_dims=[0]", "hidden_dims"),
        ("training.micro_batch_size=0", "training.micro_batch_size is 0 (a whole number), expected auto or at least 1"),
        ("training.num_workers=-2", "training.num_workers is -2 (a whole number), expected auto or at least 0"),
        ("loss.high_threshold=2", "loss.high_threshold is 2"),
        ("goals={test/csi_35_lead_1: nonsense}", "expected a condition such as '>0.4'"),
        ("training.lr_step_epochs=3", "has no effect here: it needs training.schedule to be 'step'"),
        ("data.split={method: day, min_gap_hours: 3}", "data.split.min_gap_hours has no effect here"),
    ],
)
def test_a_setting_that_is_wrong(sound: Path, refusal: Refusal, given: str, words: str) -> None:
    assert words in refusal(sound, 78, given)


def test_everything_wrong_is_told_at_once(sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "convlstm", sets=("data.strid=1", "training.epochs=ten"), data=str(sound)) == 78
    said = capsys.readouterr().err
    assert "2 settings are wrong" in said
    assert "data.stride?" in said
    assert "training.epochs is 'ten'" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training: {epochs: 3\n  bad", "line 2, column 6: no valid YAML"),
        ("- 1\n- 2\n", "the file is a list, expected settings as `key: value`"),
        ("training:\n  epoch: 3\n", "there is no setting training.epoch; did you mean training.epochs?"),
        ("training:\n  learning_rate: fast\n", "training.learning_rate is 'fast' (text), expected a number > 0"),
        ("training:\n  schedule: cosine\n  lr_patience: 2\n", "training.lr_patience has no effect here"),
    ],
)
def test_a_config_file_that_is_wrong(sound: Path, tmp_path: Path, refusal: Refusal, text: str, words: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    line = refusal(sound, 78, words=("--config", str(file)))
    assert str(file) in line
    assert words in line


def test_a_config_that_does_not_exist(sound: Path, refusal: Refusal) -> None:
    line = refusal(sound, 78, words=("--config", "nowhere.yaml"))
    assert "--config nowhere.yaml: no such file" in line


def test_the_environment_is_checked_alike(sound: Path, refusal: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAIN_WORKER_TRAINING__EPOCHZ", "3")
    assert "did you mean TRAIN_WORKER_TRAINING__EPOCHS?" in refusal(sound, 78)


def test_an_unknown_task(sound: Path, refusal: Refusal) -> None:
    line = refusal(sound, 2, words=("--task", "convlstn"))
    assert "there is no task 'convlstn'; did you mean convlstm?" in line


# --- weights to start from --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best_model.pth of a short run."""
    place = tmp_path_factory.mktemp("source")
    assert train(place, "convlstm", "--seed", "1", sets=ALIKE, data=str(sound)) == 0
    return run_of(place, "convlstm") / "best_model.pth"


def test_a_run_starts_from_another_s_weights(sound: Path, weights: Path, tmp_path: Path) -> None:
    sets = (*ALIKE, "training.learning_rate=1e-12", f"model.init_from={weights}")
    assert train(tmp_path, "convlstm", sets=sets, data=str(sound)) == 0
    theirs = open_artifact(weights.parent).weights
    mine = open_artifact(run_of(tmp_path, "convlstm")).weights
    assert all(torch.allclose(mine[name], theirs[name], atol=1e-9) for name in theirs)


def test_weights_of_another_model(sound: Path, weights: Path, refusal: Refusal) -> None:
    line = refusal(sound, 78, f"model.init_from={weights}", "model.hidden_dims=[5]")
    assert f"{weights}: its weights are of another model" in line
    assert "layers.0.cell.conv.weight" in line


def test_weights_that_are_missing_or_damaged(sound: Path, weights: Path, tmp_path: Path, refusal: Refusal) -> None:
    damaged, text = tmp_path / "damaged.pth", tmp_path / "text.pth"
    content = bytearray(weights.read_bytes())
    damaged.write_bytes(content[: len(content) // 2])
    text.write_text("no weights")
    for path, words in [
        (tmp_path / "nowhere.pth", "there is no such file"),
        (damaged, "damaged"),
        (text, "not a weight file"),
        (weights.parent, "cannot be read"),
    ]:
        line = refusal(sound, 65, f"model.init_from={path}")
        assert f"{path}: " in line
        assert words in line
