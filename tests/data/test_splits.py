from __future__ import annotations

import json

import numpy as np
import pytest

from backend.errors import BadDataError
from training.data.radar import splits
from training.data.radar.splits import audit_lines, split_windows
from training.data.radar.windows import Event, join_events, stretches_of, windows_of

HOUR, DAY = 3600.0, 86400.0
FRACTIONS = [0.7, 0.15, 0.15]


def dataset(*events, length=5, stride=1, cadence=180.0):
    """Events as (start, frames) or (start, frames, group)."""
    made, block = [], 0
    for number, (start, frames, *group) in enumerate(events):
        times = start + np.arange(frames) * cadence
        made.append(Event(f"e{number}", times, np.arange(block, block + frames), *group))
        block += frames
    stretches = stretches_of(join_events(made, 0.5), 0.5)
    return stretches, windows_of(stretches, length, stride)


def frames_in(stretches, windows, members):
    return {
        int(block)
        for i in members
        for block in stretches[windows.stretch[i]].blocks[windows.first[i] : windows.first[i] + windows.length]
    }


def check_honest(stretches, windows, split):
    """Written apart from the audit: no frame in two sides, no moment in two sides, in order of time."""
    frames = [frames_in(stretches, windows, split.members(name)) for name in splits.SPLITS]
    assert all(frames)
    assert not frames[0] & frames[1] and not frames[1] & frames[2] and not frames[0] & frames[2]
    ranges = [(windows.start[m].min(), windows.end[m].max()) for m in map(split.members, splits.SPLITS)]
    assert ranges[0][1] < ranges[1][0] <= ranges[1][1] < ranges[2][0]
    json.dumps(split.audit, allow_nan=False)


def test_gap_gives_whole_groups_in_order_of_time_near_the_fractions():
    data = dataset(*((i * DAY, 14) for i in range(10)))
    split = split_windows(*data, "gap", FRACTIONS)
    check_honest(*data, split)
    assert [split.audit["splits"][n]["windows"] for n in splits.SPLITS] in ([70, 20, 10], [70, 10, 20])
    assert split.audit["method_used"] == "gap"
    assert not split.audit["weak"]
    assert split.audit["purged_windows"] == 0
    assert split.audit["gaps_hours"]["train-val"] == pytest.approx(24 - 13 * 180 / HOUR)


def test_gap_keeps_events_of_one_storm_together():
    near = [(i * DAY + j * 2 * HOUR, 14) for i in range(3) for j in range(3)]
    data = dataset(*near)
    split = split_windows(*data, "gap", [0.34, 0.33, 0.33])
    check_honest(*data, split)
    assert [split.audit["splits"][n]["sequences"] for n in splits.SPLITS] == [3, 3, 3]
    finer = split_windows(*data, "gap", [0.5, 0.25, 0.25], min_gap_hours=1.0)
    assert [finer.audit["splits"][n]["sequences"] for n in splits.SPLITS] != [3, 3, 3]


def test_every_side_gets_a_group_however_uneven_they_are():
    for sizes in ((100, 5, 5), (5, 5, 100), (5, 100, 5), (5, 5, 5, 100)):
        data = dataset(*((i * DAY, size) for i, size in enumerate(sizes)))
        check_honest(*data, split_windows(*data, "gap", FRACTIONS))


def test_groups_without_windows_do_not_count():
    data = dataset((0, 20), (DAY, 3), (2 * DAY, 3), (3 * DAY, 20))
    split = split_windows(*data, "gap", FRACTIONS)
    assert split.audit["method_used"] == "cut"
    assert "only 2 groups with 6 h between them hold windows" in split.audit["why"]
    check_honest(*data, split)


def test_day_moves_a_midnight_inside_a_stretch_to_the_nearest_break():
    # The second event runs over midnight; the break before it is nearer than the one after it.
    late = DAY - 20 * 180
    data = dataset((0, 30), (late, 60), (DAY + 12 * HOUR, 30), (2 * DAY + HOUR, 30), length=5)
    split = split_windows(*data, "day", [0.3, 0.4, 0.3])
    check_honest(*data, split)
    starts = [data[1].start[split.members(n)].min() for n in splits.SPLITS]
    assert starts == [0.0, late, 2 * DAY + HOUR]
    assert split.audit["method_used"] == "day"


def test_a_day_boundary_at_a_short_break_is_called_weak():
    # One measurement was missed at each midnight: whole days, but the same storm on both sides.
    data = dataset(*((i * DAY + 200, 478) for i in range(4)), length=25, stride=25)
    split = split_windows(*data, "day", [0.5, 0.25, 0.25])
    check_honest(*data, split)
    assert split.audit["method_used"] == "day"
    assert split.audit["weak"]


def test_cut_purges_the_windows_that_touch_a_cut():
    data = dataset((0, 400), length=25)
    split = split_windows(*data, "cut", FRACTIONS)
    check_honest(*data, split)
    audit = split.audit
    assert audit["weak"] and "weak" in audit["weak_reason"]
    assert audit["purged_windows"] == 2 * 24
    kept = [audit["splits"][n]["windows"] for n in splits.SPLITS]
    assert sum(kept) + audit["purged_windows"] == len(data[1])
    assert np.allclose(np.array(kept) / sum(kept), FRACTIONS, atol=0.03)
    assert any("weak" in line for line in audit_lines(audit))
    assert any("48 windows touch a cut" in line for line in audit_lines(audit))


def test_cut_works_down_to_three_windows_that_share_no_frame():
    data = dataset((0, 75), length=25)
    split = split_windows(*data, "gap", FRACTIONS)
    check_honest(*data, split)
    assert [split.audit["splits"][n]["windows"] for n in splits.SPLITS] == [1, 1, 1]
    with pytest.raises(BadDataError, match="Too few events for the split: 50 windows of 25 frames"):
        split_windows(*dataset((0, 74), length=25), "gap", FRACTIONS)


@pytest.mark.parametrize("seed", range(30))
def test_no_frame_and_no_moment_on_two_sides_whatever_the_record(seed):
    rng = np.random.default_rng(seed)
    starts = np.cumsum(rng.exponential(8 * HOUR, 12))
    events = [(start, int(rng.integers(1, 120)), int(rng.integers(0, 2))) for start in starts]
    data = dataset(*events, length=int(rng.integers(2, 20)), stride=int(rng.integers(1, 8)))
    for method in ("gap", "day", "cut"):
        try:
            split = split_windows(*data, method, FRACTIONS, min_gap_hours=float(rng.choice([1.0, 6.0])))
        except BadDataError:
            assert len(data[1]) < 12
            continue
        check_honest(*data, split)


def test_a_leak_is_found_from_the_assignment_itself(monkeypatch):
    def leaking(groups, fractions):
        return np.arange(len(groups)) % 3

    monkeypatch.setattr(splits, "_assign_groups", leaking)
    with pytest.raises(AssertionError, match="the split leaks"):
        split_windows(*dataset(*((i * DAY, 14) for i in range(5))), "gap", FRACTIONS)


def test_overlaps_are_counted():
    stretches, windows = dataset((0, 12), (DAY, 6), (2 * DAY, 6), length=5, stride=2)
    # e0 has windows at frames 0, 2, 4, 6 (0 to 4 and 6 to 10 are disjoint), e1 and e2 one each
    sides = np.array([0, 1, 0, 1, 1, 2])
    members = {name: np.flatnonzero(sides == i) for i, name in enumerate(splits.SPLITS)}
    frames = {name: np.array(sorted(frames_in(stretches, windows, m))) for name, m in members.items()}
    found = splits._overlaps(windows, members, frames)
    assert found == {"frames": len({0, 1, 2, 3, 4, 5, 6, 7, 8} & {2, 3, 4, 5, 6, 7, 8, 9, 10}), "windows": 2}


def test_audit_lines_name_every_side():
    split = split_windows(*dataset(*((i * DAY, 14) for i in range(10))), "gap", FRACTIONS)
    lines = audit_lines(split.audit)
    for name in splits.SPLITS:
        assert any(line.split()[0] == name and "windows" in line for line in lines)
    assert any("shared frames 0, overlapping windows 0" in line for line in lines)
