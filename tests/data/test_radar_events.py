from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

from backend.errors import BadDataError
from tests.data.conftest import CADENCE, START, write_event, write_volume
from training.data.radar.events import frames_at_same_time, list_events, scan_events
from training.data.workers import WorkerPool


def scan(listing):
    return scan_events(listing, "DBZ", WorkerPool(1, lambda: None), lambda *_: None)


def refused(root, *words):
    """The one line that refuses ``root``, which holds all ``words``."""
    with pytest.raises(BadDataError) as caught:
        scan(list_events(root))
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line, line
    return line


def test_events_are_the_folders_that_hold_nc_files_at_any_depth(tmp_path):
    write_volume(tmp_path / "sample/a/000500.nc", START)
    write_volume(tmp_path / "sample/2010/b/1.NC", START)
    write_volume(tmp_path / "c/1.nc", START)
    (tmp_path / "sample/a/notes.txt").write_text("x")
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "sample/a/._000500.nc").write_text("left by another system")
    (tmp_path / ".hidden").mkdir()
    listing = list_events(tmp_path)
    assert sorted(listing.folders) == ["2010/b", "a", "c"]
    assert [s.relative for s in listing.sources] == ["c/1.nc", "sample/2010/b/1.NC", "sample/a/000500.nc"]
    assert listing.ignored == 2


@pytest.mark.parametrize("inside", [".", "sample"])
def test_a_folder_of_files_is_one_event_with_the_folders_name(tmp_path, inside):
    root = tmp_path / "storm"
    write_volume(root / inside / "1.nc", START)
    assert list_events(root).folders == ["storm"]


def test_linked_folders_are_followed_once(tmp_path):
    write_volume(tmp_path / "real/1.nc", START)
    root = tmp_path / "root"
    root.mkdir()
    (root / "event").symlink_to(tmp_path / "real")
    (root / "loop").symlink_to(root)
    assert list_events(root).folders == ["event"]


def test_frames_are_ordered_by_time_not_by_name(tmp_path):
    write_event(tmp_path, "e", START, 4)
    listing = list_events(tmp_path)
    assert [s.path.name for s in listing.sources] == ["996.nc", "997.nc", "998.nc", "999.nc"]
    assert scan(listing).times == [START + i * CADENCE for i in (3, 2, 1, 0)]


def test_no_event_at_all(tmp_path):
    refused(tmp_path, "Empty folder", str(tmp_path))
    (tmp_path / "x.txt").write_text("")
    refused(tmp_path, "No event found", str(tmp_path), "expected one folder for each event")
    refused(tmp_path / "nowhere", "nowhere cannot be listed")


def test_an_empty_event_folder_is_named(events):
    (events / "sample/day9").mkdir()
    refused(events, "Empty folder", "sample/day9")


def test_files_outside_event_folders_are_refused(events):
    shutil.copy(next((events / "sample/day0").iterdir()), events / "stray.nc")
    refused(events, "outside event folders", str(events))


def test_two_files_with_the_same_time_in_one_folder(events):
    day = events / "sample/day0"
    shutil.copy(day / "999.nc", day / "copy.nc")
    refused(events, "same time in one folder", "999.nc and copy.nc", "identical content", "2010-08-26T00:00:00Z")
    write_volume(day / "copy.nc", START, seed=1)
    refused(events, "999.nc and copy.nc", "different content")


def test_a_grid_that_changes_inside_an_event(events):
    write_volume(events / "sample/day1/100.nc", START + 86400 - CADENCE, shape=(2, 14, 10))
    refused(events, "grid changes inside an event", "12x10 cells", "14x10 cells", "day1/100.nc")


def test_a_grid_that_moves_or_stretches_inside_an_event(events):
    write_volume(events / "sample/day1/100.nc", START + 86400 - CADENCE, spacing=1.5)
    refused(events, "grid changes inside an event", "1.00x1.00 km", "1.50x1.50 km")


def test_heights_that_change_inside_an_event(events):
    write_volume(events / "sample/day1/100.nc", START + 86400 - CADENCE, shape=(3, 12, 10))
    refused(events, "vertical grid changes inside an event", "2 levels", "3 levels")


def test_all_unreadable_files_are_told_up_to_a_few(events):
    for number in (990, 991, 992, 993):
        (events / f"sample/day0/{number}.nc").write_bytes(b"no radar")
    line = refused(events, "990.nc", "and 3 more", "991.nc", "and 1 more")
    assert re.search("not a NetCDF file", line)


def test_a_missing_variable_is_named(events):
    with pytest.raises(BadDataError, match="ZZ"):
        scan_events(list_events(events), "ZZ", WorkerPool(1, lambda: None), lambda *_: None)


def test_frames_at_the_same_time_are_found_across_events_on_one_grid(tmp_path):
    write_event(tmp_path, "late", START + 2 * CADENCE, 4)
    write_event(tmp_path, "early", START, 4)
    write_event(tmp_path, "other_radar", START, 4, shape=(2, 8, 8))
    listing = list_events(tmp_path)
    groups = frames_at_same_time(listing, scan(listing))
    names = [[listing.sources[i].relative for i in group] for group in groups]
    assert sorted(names) == [
        ["sample/early/996.nc", "sample/late/998.nc"],
        ["sample/early/997.nc", "sample/late/999.nc"],
    ]


def test_grids_and_levels_are_kept_once(events):
    found = scan(list_events(events))
    assert len(found.grids) == 1
    assert found.grid_of == [0, 0, 0]
    assert all(levels is found.levels[0] for levels in found.levels)
    assert np.array_equal(found.levels[0], [1, 2])
