"""`predict` as a user meets it: from a run and a folder to a file, and every reason why there is none."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from backend.artifact import best_checkpoint, checkpoints, open_artifact
from backend.errors import BadDataError
from backend.preprocessing.radar_netcdf import read_header
from tests.runs import places, register_tiny, run_of, train
from training.cli import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a short run on the built-in sample."""
    place = tmp_path_factory.mktemp("trained")
    assert train(place, "convlstm") == 0
    return place


@pytest.fixture
def forecast_with(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """``forecast_with(run, inputs…)``: the exit code of `predict` and the last line that it printed."""

    def command(run: Path | str, *inputs: Path, out: Path | None = None) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["predict", str(run), *map(str, inputs), "--out", str(out or tmp_path / "out"), *places(trained)])
        said = capsys.readouterr()
        lines = (said.err if code else said.out).strip().splitlines()
        assert len(lines) == 1, said
        return code, lines[0]

    return command


def sample_event(trained: Path) -> Path:
    return min((trained / "datasets" / ".samples" / "convlstm").iterdir())


# --- the command ------------------------------------------------------------------------------------------------------


def test_a_run_forecasts_a_folder(trained: Path, forecast_with: Callable[..., tuple[int, str]]) -> None:
    run, event = run_of(trained, "convlstm"), sample_event(trained)
    code, printed = forecast_with(run.name, event)
    assert code == 0
    newest = max(map(read_header, event.glob("*.nc")), key=lambda header: header.time)
    with xr.open_dataset(printed) as forecast:
        assert forecast["DBZ"].dims == ("time", "z0", "y0", "x0")
        assert forecast["DBZ"].shape == (2, 1, 64, 64)
        assert forecast["DBZ"].attrs["units"] == "dBZ"
        assert forecast["DBZ"].attrs["standard_name"] == "equivalent_reflectivity_factor"
        assert -29 <= float(forecast["DBZ"].min()) <= float(forecast["DBZ"].max()) <= 65
        assert forecast.attrs["Conventions"].startswith("CF-")
        assert run.name in forecast.attrs["source"]
        assert "sample" in forecast.attrs["comment"]
        seconds = forecast["time"].values.astype("datetime64[s]").astype(float)
        assert np.allclose(seconds - newest.time, forecast["lead_time"] * 60)
        assert (seconds > newest.time).all()
        assert forecast["forecast_reference_time"].values.astype("datetime64[s]").astype(float) == newest.time
    assert Path(printed).name == f"{np.datetime64(int(newest.time), 's').item():%Y%m%d_%H%M%S}_forecast.nc"


def test_a_checkpoint_folder_forecasts_as_its_run_does(
    trained: Path, tmp_path: Path, forecast_with: Callable[..., tuple[int, str]]
) -> None:
    run, event = run_of(trained, "convlstm"), sample_event(trained)
    _, one = forecast_with(run, event, out=tmp_path / "run")
    code, other = forecast_with(best_checkpoint(run), event, out=tmp_path / "checkpoint")
    assert code == 0
    with xr.open_dataset(one) as a, xr.open_dataset(other) as b:
        xr.testing.assert_identical(a.drop_attrs(), b.drop_attrs())


def test_inputs_that_are_no_volumes(
    trained: Path, tmp_path: Path, forecast_with: Callable[..., tuple[int, str]]
) -> None:
    run = run_of(trained, "convlstm")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.nc").write_text("no volume")
    for given, code, words in [
        (tmp_path / "nowhere", 65, "nowhere: no such file or folder"),
        (tmp_path / "empty", 65, "empty: holds no .nc files"),
        (sample_event(trained).parent, 65, "convlstm: holds no .nc files"),
        (tmp_path / "text.nc", 65, "text.nc: is not a NetCDF file"),
    ]:
        found, line = forecast_with(run, given)
        assert (found, words in line) == (code, True), line


# --- which model ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run_copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_of(trained, "convlstm"), tmp_path / "copy"))


def test_a_run_without_checkpoint(trained: Path, run_copy: Path, forecast_with: Callable[..., tuple[int, str]]) -> None:
    shutil.rmtree(run_copy / "checkpoints")
    code, line = forecast_with(run_copy, sample_event(trained))
    assert code == 65
    assert f"{run_copy}: holds no checkpoint" in line


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: flip_a_bit(folder / "model.safetensors"), "model.safetensors: its content is not what"),
        (lambda folder: flip_a_bit(folder / "state.json"), "state.json: its content is not what"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: missing"),
        (lambda folder: os.truncate(folder / "model.safetensors", 100), "model.safetensors: has 100 bytes"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json: missing or unreadable"),
        (lambda folder: (folder / "manifest.json").write_text('{"files": {}}'), "manifest.json: lists no state.json"),
        (lambda folder: (folder / "manifest.json").write_text('{"files": ['), "manifest.json: missing or unreadable"),
    ],
)
def test_a_damaged_checkpoint(
    trained: Path,
    run_copy: Path,
    forecast_with: Callable[..., tuple[int, str]],
    harm: Callable[[Path], None],
    words: str,
) -> None:
    harm(best_checkpoint(run_copy))
    code, line = forecast_with(run_copy, sample_event(trained))
    assert code == 65
    assert words in line
    assert "checkpoint" in line


def test_a_checkpoint_that_is_named_and_incomplete_is_not_replaced_by_another(
    trained: Path, run_copy: Path, forecast_with: Callable[..., tuple[int, str]]
) -> None:
    best = best_checkpoint(run_copy)
    other = copied(best, 2)
    (other / "manifest.json").unlink()
    code, line = forecast_with(other, sample_event(trained))
    assert code == 65
    assert f"{other / 'manifest.json'}: missing" in line


def test_another_task_s_run(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forecast_with: Callable[..., tuple[int, str]]
) -> None:
    register_tiny(monkeypatch)
    assert train(tmp_path, "tiny") == 0
    code, line = forecast_with(run_of(tmp_path, "tiny"), sample_event(trained))
    assert code == 2
    assert "a model of the task tiny" in line


def test_a_checkpoint_of_another_version(run_copy: Path) -> None:
    folder = best_checkpoint(run_copy)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"format": 99}))
    manifest = json.loads((folder / "manifest.json").read_text())
    from backend.artifact import sha256_of

    manifest["files"]["state.json"] = {
        "size": (folder / "state.json").stat().st_size,
        "sha256": sha256_of(folder / "state.json"),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadDataError, match=r"is of format 99, this version reads format 1"):
        open_artifact(run_copy)


def copied(folder: Path, step: int) -> Path:
    return Path(shutil.copytree(folder, folder.with_name(f"step-{step:08d}")))


@pytest.mark.parametrize("hint", [None, "", "..", "step-00000999", "\x00\x01"])
def test_a_lost_hint_is_made_good_by_the_newest_checkpoint(run_copy: Path, hint: str | None) -> None:
    best = best_checkpoint(run_copy)
    (run_copy / "checkpoints" / "best").unlink()
    if hint is not None:
        (run_copy / "checkpoints" / "best").write_text(hint)
    assert best_checkpoint(run_copy) == best
    copied(best, 12)
    assert best_checkpoint(run_copy).name == "step-00000012"  # nothing was validated before it was saved
    (run_copy / "checkpoints" / "best").write_text(best.name)
    assert best_checkpoint(run_copy) == best


def test_checkpoints_are_ordered_by_step_and_others_are_no_checkpoints(tmp_path: Path) -> None:
    for name in ("step-00000010", "step-9", "step-100000000", "step-x", "step-²", ".tmp-step-00000011-1"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000012").write_text("a file")
    assert [folder.name for folder in checkpoints(tmp_path)] == ["step-9", "step-00000010", "step-100000000"]


# --- where to ---------------------------------------------------------------------------------------------------------


def test_out_must_not_be_an_input(trained: Path, forecast_with: Callable[..., tuple[int, str]]) -> None:
    event = sample_event(trained)
    code, line = forecast_with(run_of(trained, "convlstm"), event, out=event)
    assert code == 2
    assert "--out" in line


def test_a_place_that_cannot_be_written(
    trained: Path, tmp_path: Path, forecast_with: Callable[..., tuple[int, str]]
) -> None:
    (tmp_path / "file").write_text("in the way")
    code, line = forecast_with(run_of(trained, "convlstm"), sample_event(trained), out=tmp_path / "file" / "out")
    assert code == 74
    assert "--out" in line
