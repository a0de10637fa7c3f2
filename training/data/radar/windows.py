"""Time-stamped frames into sequences, sequences into unbroken stretches, stretches into windows. Knows no task.

Times are seconds since 1970-01-01 UTC.
"""

from __future__ import annotations

from collections.abc import Sequence as ListLike
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from backend.errors import BadDataError


@dataclass(frozen=True)
class Event:
    """The frames of one source folder in time order. ``blocks``: where each frame lies in the prepared cache.

    Frames of different ``group``s never belong together, however close in time (radar: another grid).
    """

    name: str
    times: np.ndarray  # float64 [n], increasing
    blocks: np.ndarray  # int64 [n]
    group: int = 0


@dataclass(frozen=True)
class Sequence:
    """One event, or several that overlap or adjoin in time, as one line of frames."""

    name: str
    names: tuple[str, ...]  # of the events in it
    times: np.ndarray  # float64 [n], increasing
    blocks: np.ndarray  # int64 [n]
    cadence: float | None  # seconds between frames: the median of the differences; None with a single frame


@dataclass(frozen=True)
class Stretch:
    """Frames of a sequence without a break between them."""

    sequence: Sequence
    times: np.ndarray
    blocks: np.ndarray


@dataclass(frozen=True)
class Windows:
    """All windows of a dataset, ordered by start; the arrays run over the windows."""

    length: int  # frames in a window
    stretch: np.ndarray  # int64: index of the stretch
    first: np.ndarray  # int64: index of the first frame in the stretch
    start: np.ndarray  # float64: time of the first frame
    end: np.ndarray  # float64: time of the last frame

    def __len__(self) -> int:
        return len(self.start)


def cadence_of(times: np.ndarray) -> float | None:
    """The median time between neighbouring frames in seconds; None for a single frame."""
    return float(np.median(np.diff(times))) if len(times) > 1 else None


def join_events(events: ListLike[Event], gap_tolerance: float) -> list[Sequence]:
    """Joins events of one group whose frames continue each other: no gap above cadence * (1 + gap_tolerance)."""
    known = [cadence for event in events if (cadence := cadence_of(event.times)) is not None]
    usual = float(np.median(known)) if known else 0.0
    chains: list[list[Event]] = []
    open_chain: dict[int, tuple[list[Event], float]] = {}  # group -> (chain, its end)
    for event in sorted(events, key=lambda event: (event.times[0], event.name)):
        chain, end = open_chain.get(event.group, (None, 0.0))
        if chain is None or event.times[0] - end > _longest_gap(chain[-1], event, usual, gap_tolerance):
            chain, end = [], event.times[-1]
            chains.append(chain)
        chain.append(event)
        open_chain[event.group] = (chain, max(end, event.times[-1]))
    return [_joined(chain) for chain in chains]


def _longest_gap(one: Event, other: Event, usual: float, gap_tolerance: float) -> float:
    cadences = [cadence_of(event.times) or usual for event in (one, other)]
    return max(cadences) * (1 + gap_tolerance)


def _joined(chain: ListLike[Event]) -> Sequence:
    times = np.concatenate([event.times for event in chain])
    order = np.argsort(times, kind="stable")
    times, blocks = times[order], np.concatenate([event.blocks for event in chain])[order]
    names = tuple(event.name for event in chain)
    return Sequence(names[0], names, times, blocks, cadence_of(times))


def stretches_of(sequences: ListLike[Sequence], gap_tolerance: float) -> list[Stretch]:
    """Cuts each sequence where the time to the next frame exceeds its cadence * (1 + gap_tolerance)."""
    found = []
    for sequence in sequences:
        longest = (sequence.cadence or 0.0) * (1 + gap_tolerance)
        breaks = np.flatnonzero(np.diff(sequence.times) > longest) + 1
        parts = zip(np.split(sequence.times, breaks), np.split(sequence.blocks, breaks), strict=True)
        found += [Stretch(sequence, times, blocks) for times, blocks in parts]
    return found


def windows_of(stretches: ListLike[Stretch], length: int, stride: int) -> Windows:
    """Windows of ``length`` frames, a new one every ``stride`` frames, inside stretches only."""
    counts = [max(0, (len(stretch.times) - length) // stride + 1) for stretch in stretches]
    stretch = np.repeat(np.arange(len(stretches)), counts)
    first = np.concatenate([np.arange(count) * stride for count in counts])
    times = np.concatenate([stretch.times for stretch in stretches])
    place = np.cumsum([0, *(len(stretch.times) for stretch in stretches)])[stretch] + first
    start, end = times[place], times[place + length - 1]
    order = np.lexsort((end, start))
    return Windows(length, stretch[order], first[order], start[order], end[order])


def too_short(sequences: ListLike[Sequence], stretches: ListLike[Stretch], length: int) -> list[str]:
    """Lines about the sequences that are too short for any window."""
    longest: dict[int, int] = {}
    for stretch in stretches:
        longest[id(stretch.sequence)] = max(longest.get(id(stretch.sequence), 0), len(stretch.times))
    return [_too_short_line(s, longest[id(s)], length) for s in sequences if longest[id(s)] < length]


def _too_short_line(sequence: Sequence, longest: int, length: int) -> str:
    frames = len(sequence.times)
    name = " + ".join(sequence.names[:3]) + (f" + {len(sequence.names) - 3} more" if len(sequence.names) > 3 else "")
    unbroken = f", longest unbroken stretch {longest}" if longest < frames else ""
    return f"{name}: {frames} frames{unbroken}, {length} needed"


def require_windows(windows: Windows, stretches: ListLike[Stretch], what_to_set: str) -> None:
    """Raises BadDataError when there is no window at all, naming the longest stretch there is."""
    if len(windows):
        return
    best = max(stretches, key=lambda stretch: len(stretch.times))
    raise BadDataError(
        f"No event yields a window of {windows.length} frames: the longest unbroken stretch has {len(best.times)} "
        f"frames ({best.sequence.name}, from {iso_time(best.times[0])}). {what_to_set}"
    )


def iso_time(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(round(float(seconds)), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
