from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from backend.errors import BadDataError, ConfigError, InterruptedRunError
from backend.preprocessing.radar import RadarPreprocessing
from backend.preprocessing.radar_netcdf import read_volume
from tests.data.conftest import CADENCE, START, write_event, write_volume
from tests.data.world import World
from training.data.radar.plan import radar_preprocessing
from training.data.radar.prepare import prepare_radar
from training.schemas.convlstm import RadarDataSection

SMALL = {"input_steps": 3, "prediction_steps": 2, "stride": 2, "downsample_size": [6, 5]}


def section(**settings) -> RadarDataSection:
    return RadarDataSection.model_validate({**SMALL, **settings})


def prepare(world, **settings):
    return prepare_radar(section(**settings), world.context)


def refused(world, kind=BadDataError, **settings) -> str:
    with pytest.raises(kind) as caught:
        prepare(world, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- settings --------------------------------------------------------------------------------------------------------


def test_defaults_are_the_documented_ones():
    section = RadarDataSection()
    assert (section.variable, section.input_steps, section.prediction_steps, section.stride) == ("DBZ", 18, 7, 5)
    assert (section.downsample_size, section.min_dbz, section.max_dbz, section.pack_bits) == ([250, 250], -29, 65, 8)
    assert (section.split.method, section.split.min_gap_hours) == ("gap", 6)
    assert section.split.fractions == [0.7, 0.15, 0.15]
    radar_preprocessing(section)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"stride": -1}, "stride"),
        ({"stride": 0}, "stride"),
        ({"input_steps": 0}, "input_steps"),
        ({"prediction_steps": 0}, "prediction_steps"),
        ({"gap_tolerance": -0.1}, "gap_tolerance"),
        ({"min_dbz": 70.0}, "expected more than data.min_dbz, which is 70"),
        ({"min_dbz": float("nan")}, "finite"),
        ({"split": {"fractions": [0.7, 0.2, 0.2]}}, "sum to 1"),
        ({"split": {"fractions": [0.8, 0.2, 0.0]}}, "positive"),
        ({"split": {"fractions": [0.8, 0.2]}}, "fractions"),
        ({"split": {"min_gap_hours": 0.0}}, "min_gap_hours"),
        ({"split": {"method": "random"}}, "gap"),
        ({"downsample_size": [250]}, "rows and columns"),
        ({"downsample_size": [250, 0]}, "rows and columns"),
        ({"levels": []}, "levels"),
        ({"levels": [1, 1]}, "levels"),
        ({"levels": [-1]}, "levels"),
        ({"pack_bits": 12}, "pack_bits"),
        ({"prepare_workers": 0}, "at least 1"),
        ({"fill_means": "zero"}, "no_echo"),
    ],
)
def test_impossible_values_are_refused(wrong, words):
    with pytest.raises(ValidationError) as caught:
        RadarDataSection.model_validate(wrong)
    assert words in str(caught.value)


# --- from files to windows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_a_window_holds_its_own_frames_as_serving_would_make_them(world, events, workers):
    world.workers = workers
    prepared = prepare(world)
    preprocessing = RadarPreprocessing.from_dict(prepared.preprocessing["radar"])
    names = [member.name for member in prepared.members["train"]]
    assert names[:2] == ["day0/2010-08-26T00:00:00Z", "day0/2010-08-26T00:06:00Z"]
    assert [len(prepared.splits[name]) for name in ("train", "val", "test")] == [4, 4, 4]
    frames = prepared.splits["train"].item(1, None)["frames"]
    assert (tuple(frames.shape), frames.dtype) == ((2, 5, 6, 5), torch.uint8)
    assert frames.is_contiguous()
    for t in range(5):
        volume = read_volume(events / f"sample/day0/{999 - 2 - t:03d}.nc", "DBZ")
        assert np.array_equal(frames[:, t].numpy(), preprocessing.apply_packed(volume))
    assert prepared.facts["image_size"] == [6, 5]
    assert (world.cache / prepared.facts["cache"] / "blocks.bin").exists()
    assert prepared.facts["levels"] == 2
    assert prepared.facts["cadence_seconds"] == CADENCE
    assert prepared.facts["spacing_km"] == pytest.approx([2, 2])
    json.dumps([prepared.audit, prepared.preprocessing, prepared.facts], allow_nan=False)


def test_sixteen_bits_one_level_and_the_source_grid(world):
    prepared = prepare(world, pack_bits=16, levels=[1], downsample_size=None)
    frames = prepared.splits["val"].item(0, None)["frames"]
    assert (tuple(frames.shape), frames.dtype) == ((1, 5, 12, 10), torch.int16)
    assert tuple(prepare(world, levels="max").splits["val"].item(0, None)["frames"].shape) == (1, 5, 6, 5)


def test_the_split_goes_by_time_whatever_the_names(world, events):
    (events / "sample/day0").rename(events / "sample/zz")
    prepared = prepare(world)
    assert prepared.members["train"][0].name.startswith("zz/2010-08-26")
    assert prepared.members["test"][0].name.startswith("day2/2010-08-28")
    assert prepared.audit["overlaps"] == {"frames": 0, "windows": 0}
    assert any(line.startswith("Split by gap") for line in prepared.summary)


def test_window_and_split_settings_do_not_rebuild_the_frames(world):
    first = prepare(world)
    world.progress.clear()
    others = [prepare(world, stride=1), prepare(world, split={"method": "day"}), prepare(world, gap_tolerance=1.0)]
    assert not world.progress
    assert len({p.fingerprint for p in [first, *others]}) == 4
    assert prepare(world).fingerprint == first.fingerprint
    assert prepare(world, prepare_workers=3).fingerprint == first.fingerprint
    assert prepare(world, min_dbz=-20.0).fingerprint != first.fingerprint
    assert world.progress


def test_sources_pickle_to_little_and_read_the_same(world):
    source = prepare(world).splits["train"]
    expected = source.item(2, None)["frames"]
    pickled = pickle.dumps(source)
    assert len(pickled) < 3000
    assert torch.equal(pickle.loads(pickled).item(2, None)["frames"], expected)  # noqa: S301


def test_frames_of_two_folders_are_used_once_and_the_folders_joined(world, events):
    more = write_event(events, "day0b", START + 9 * CADENCE, 8)
    for i in range(3):
        assert (more / f"{999 - i}.nc").read_bytes() == (events / f"sample/day0/{990 - i}.nc").read_bytes()
    prepared = prepare(world, stride=1)
    assert prepared.audit["duplicates"] == {
        "frames": 3,
        "between": [
            {
                "used": "day0",
                "unused": "day0b",
                "frames": 3,
                "from": "2010-08-26T00:27:00Z",
                "to": "2010-08-26T00:33:00Z",
            }
        ],
    }
    assert prepared.audit["joined"] == [["day0", "day0b"]]
    assert prepared.audit["splits"]["train"]["frames"] == 17
    assert len(prepared.splits["train"]) == 13
    assert prepared.members["train"][-1].name == "day0b/2010-08-26T00:36:00Z"
    assert any("3 frames stand in both day0 and day0b" in line for line in prepared.summary)
    frames = prepared.splits["train"].item(12, None)["frames"]
    last = read_volume(more / "992.nc", "DBZ")
    assert np.array_equal(
        frames[:, -1].numpy(), RadarPreprocessing.from_dict(prepared.preprocessing["radar"]).apply_packed(last)
    )


def test_a_frame_stored_differently_but_with_equal_codes_is_a_duplicate(world, events):
    path = write_volume(events / "sample/day0b/1.nc", START)
    path.write_bytes(path.read_bytes() + b"\0" * 8)
    assert path.read_bytes() != (events / "sample/day0/999.nc").read_bytes()
    assert prepare(world).audit["duplicates"]["frames"] == 1


def test_different_frames_of_the_same_time_are_refused(world, events):
    write_volume(events / "sample/day0b/1.nc", START, seed=5)
    line = refused(world)
    assert "different frames of the same time" in line
    assert "sample/day0/999.nc and sample/day0b/1.nc" in line


def test_short_and_broken_events_are_listed(world, events):
    write_event(events, "day0short", START + 7200, 4)
    (events / "sample/day1/994.nc").unlink()
    prepared = prepare(world, stride=1, split={"fractions": [0.34, 0.33, 0.33]})
    assert prepared.audit["too_short"] == ["day0short: 4 frames, 5 needed"]
    assert "too short: day0short: 4 frames, 5 needed" in prepared.summary
    assert prepared.audit["splits"]["val"]["windows"] == 1 + 2  # 5 and 6 frames around the missing one


def test_no_window_at_all_is_one_clear_error(world):
    line = refused(world, input_steps=18, prediction_steps=7)
    assert "No event yields a window of 25 frames: the longest unbroken stretch has 12 frames" in line
    assert "data.input_steps" in line


def test_too_few_events_for_the_split(tmp_path):
    write_event(tmp_path / "radar", "only", START, 9)
    line = refused(World(tmp_path / "radar", tmp_path / "cache"))
    assert line.startswith("Too few events for the split")


def test_one_long_event_is_cut_and_called_weak(tmp_path):
    write_event(tmp_path / "radar", "only", START, 40)
    prepared = prepare(World(tmp_path / "radar", tmp_path / "cache"), stride=1)
    assert prepared.audit["weak"]
    assert prepared.audit["method_used"] == "cut"
    assert any("This split is weak" in line for line in prepared.summary)


# --- grids and levels ------------------------------------------------------------------------------------------------


@pytest.fixture
def two_grids(tmp_path) -> World:
    root = tmp_path / "radar"
    for day in range(3):
        kind = {"shape": (2, 20, 16), "spacing": 0.5} if day == 1 else {}
        write_event(root, f"day{day}", START + day * 86400, 12, **kind)
    return World(root, tmp_path / "cache")


def test_events_on_different_grids_are_refused_with_their_sizes(two_grids):
    line = refused(two_grids)
    assert "2 different grids: day0: 12x10 cells of 1.00x1.00 km, day1: 20x16 cells of 0.50x0.50 km" in line
    assert "--set data.grid=crop" in line


def test_crop_cuts_all_to_the_common_extent_in_km(two_grids):
    prepared = prepare(two_grids, grid="crop", downsample_size=[5, 4])
    assert prepared.preprocessing["radar"]["crop_km"] == [10.0, 8.0]
    assert any("does not make them show the same place" in line for line in prepared.summary)
    assert prepared.facts["spacing_km"] == pytest.approx([2, 2])
    assert not any("not square" in line for line in prepared.summary)
    coarse = read_volume(two_grids.source / "sample/day0/999.nc", "DBZ")
    codes = RadarPreprocessing.from_dict(prepared.preprocessing["radar"]).apply_packed(coarse)
    assert np.array_equal(prepared.splits["train"].item(0, None)["frames"][:, 0].numpy(), codes)
    line = refused(two_grids, ConfigError, grid="crop", downsample_size=None)
    assert "different numbers of cells" in line and "data.downsample_size" in line


def test_cells_that_are_not_square_are_pointed_out(two_grids):
    prepared = prepare(two_grids, grid="crop", downsample_size=[5, 5])
    assert any("not square (2.00 km high, 1.60 km wide)" in line for line in prepared.summary)


def test_crop_with_one_grid_changes_nothing(world):
    assert prepare(world, grid="crop").preprocessing["radar"]["crop_km"] is None


def test_a_size_larger_than_the_source_is_refused(world):
    line = refused(world, ConfigError, downsample_size=[13, 5])
    assert "day0" in line and "13x5" in line and "12x10" in line


def test_levels_that_are_not_there_or_differ(world, events):
    assert "level 2, but event day0 has levels 0 to 1" in refused(world, ConfigError, levels=[0, 2])
    write_event(events, "day4", START + 4 * 86400, 12, shape=(3, 12, 10))
    assert "day0 has 2, day4 has 3. Set data.levels to max" in refused(world)
    assert len(prepare(world, levels="max").splits["train"])
    assert prepare(world, levels=[0, 1]).facts["levels"] == 2


# --- the cache, as the radar data use it -----------------------------------------------------------------------------


@pytest.mark.parametrize(("told", "stage"), [(0, None), (2, "reading headers"), (20, "preparing")])
def test_a_stop_is_heard_in_every_stage(world, told, stage):
    def stop():
        if len(world.progress) >= told:
            raise InterruptedRunError("stop")

    world.check_stop = stop
    with pytest.raises(InterruptedRunError):
        prepare(world)
    assert (world.progress[-1][0] if world.progress else None) == stage
    world.check_stop = lambda: None
    continued = prepare(world).fingerprint
    shutil.rmtree(world.cache)
    assert prepare(world).fingerprint == continued


def test_an_added_event_makes_a_new_dataset(world, events):
    first = prepare(world)
    write_event(events, "day5", START + 5 * 86400, 12)
    second = prepare(world)
    assert first.fingerprint != second.fingerprint
    assert second.audit["events"] == 4


def test_junk_is_ignored_and_counted(world, events):
    (events / "sample/day0/notes.txt").write_text("")
    assert any("1 files that are not .nc were ignored" in line for line in prepare(world).summary)


@pytest.mark.skipif("REAL_DATA" not in os.environ, reason="REAL_DATA names no folder of real radar data")
@pytest.mark.parametrize(
    ("folder", "settings", "size"),
    [("mdvlike", {}, [250, 250]), ("native", {"grid": "crop", "fill_means": "no_data"}, [250, 250])],
)
def test_real_events(tmp_path, folder, settings, size):
    world = World(Path(os.environ["REAL_DATA"]) / "radar" / folder, tmp_path / "cache", workers=2)
    prepared = prepare_radar(RadarDataSection.model_validate(settings), world.context)
    assert prepared.facts["image_size"] == size
    assert prepared.facts["cadence_seconds"] == 300
    assert [len(prepared.splits[name]) for name in ("train", "val", "test")] == [14, 4, 4]
    assert not prepared.audit["weak"]
    codes = prepared.splits["test"].item(0, None)["frames"]
    assert (codes == 255).any() == (folder == "native")
    assert (codes[codes != 255] > 150).any()
