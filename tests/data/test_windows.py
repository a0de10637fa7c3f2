from __future__ import annotations

import numpy as np
import pytest

from backend.errors import BadDataError
from training.data.radar.windows import (
    Event,
    cadence_of,
    iso_time,
    join_events,
    require_windows,
    stretches_of,
    too_short,
    windows_of,
)


def event(name: str, times, first_block=0, group=0) -> Event:
    times = np.asarray(times, float)
    return Event(name, times, np.arange(first_block, first_block + len(times)), group)


def every(seconds, count, start=0.0):
    return start + np.arange(count) * seconds


def test_cadence_is_the_median_of_the_differences():
    assert cadence_of(np.array([0, 180, 360, 1000, 1185.0])) == 182.5
    assert cadence_of(np.array([5.0])) is None


def test_a_break_is_longer_than_the_cadence_by_more_than_the_tolerance():
    # The cadence of real radars varies: 240 s at a median of 180 s is no break, 271 s is one.
    times = np.cumsum([0, 180, 180, 240, 180, 270, 180, 271, 180, 180])
    sequences = join_events([event("e", times)], 0.5)
    assert [len(s.times) for s in stretches_of(sequences, 0.5)] == [7, 3]
    assert [len(s.times) for s in stretches_of(sequences, 0.6)] == [10]


def test_adjoining_and_overlapping_events_become_one_sequence():
    first, second = event("a", every(180, 10)), event("b", every(180, 10, 1800), 10)
    overlapping = event("c", every(180, 10, 3600 - 180 * 3 + 90), 20)
    (sequence,) = join_events([overlapping, second, first], 0.5)
    assert sequence.names == ("a", "b", "c")
    assert (np.diff(sequence.times) > 0).all()
    assert sorted(sequence.blocks) == list(range(30))
    assert sequence.blocks[0] == 0


def test_an_event_inside_a_longer_one_does_not_end_it():
    long, inside, after = event("long", every(180, 40)), event("inside", [90.0, 270.0], 40), event("z", [7200.0], 42)
    assert [s.names for s in join_events([long, inside, after], 0.5)] == [("long", "inside", "z")]


def test_events_apart_or_of_different_groups_stay_apart():
    a, b, c = event("a", every(180, 5)), event("b", every(180, 5, 900 + 271), 5), event("c", every(180, 5, 900), 10, 1)
    assert [s.names for s in join_events([a, b, c], 0.5)] == [("a",), ("c",), ("b",)]


def test_a_single_frame_joins_by_its_neighbours_cadence():
    a, b = event("a", every(180, 5)), event("b", [900.0], 5)
    assert [s.names for s in join_events([a, b], 0.5)] == [("a", "b")]


def test_windows_stay_inside_stretches_and_follow_the_stride():
    times = np.concatenate([every(180, 11), every(180, 6, 11 * 180 + 1000)])
    stretches = stretches_of(join_events([event("e", times)], 0.5), 0.5)
    windows = windows_of(stretches, 5, 3)
    assert list(zip(windows.stretch, windows.first, strict=True)) == [(0, 0), (0, 3), (0, 6), (1, 0)]
    assert windows.start[1] == times[3]
    assert windows.end[1] == times[7]
    assert windows.end[3] == times[15]
    spans = windows.end - windows.start
    assert (spans == 4 * 180).all()


def test_windows_are_in_order_of_time_over_sequences_that_interleave():
    a, b = event("a", every(180, 8)), event("b", every(180, 8, 50), 8, group=1)
    stretches = stretches_of(join_events([a, b], 0.5), 0.5)
    windows = windows_of(stretches, 4, 2)
    assert (np.diff(windows.start) >= 0).all()
    assert len(windows) == 6


def test_short_events_are_listed_with_their_length():
    short, broken = event("20070101", every(180, 17)), event("b", [*every(180, 20, 9e4), *every(180, 9, 9.9e4)], 17)
    sequences = join_events([short, broken], 0.5)
    stretches = stretches_of(sequences, 0.5)
    assert too_short(sequences, stretches, 25) == [
        "20070101: 17 frames, 25 needed",
        "b: 29 frames, longest unbroken stretch 20, 25 needed",
    ]
    assert too_short(sequences, stretches, 20) == ["20070101: 17 frames, 20 needed"]
    with pytest.raises(BadDataError, match=r"window of 25 frames.*longest unbroken stretch has 20 frames \(b.*Lower x"):
        require_windows(windows_of(stretches, 25, 1), stretches, "Lower x.")
    require_windows(windows_of(stretches, 20, 1), stretches, "")


def test_iso_time():
    assert iso_time(1282780800.0) == "2010-08-26T00:00:00Z"
