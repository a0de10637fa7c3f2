"""Chronological splits into train, val and test, and the audit that no frame and no moment stands on two sides.

Knows no task: it sees stretches of time-stamped frames and the windows in them. Three methods:

* ``gap``: the record falls into groups wherever nothing was measured for ``min_gap_hours``; whole groups go to a side;
* ``day``: as ``gap``, but the groups are days (UTC); a midnight inside a stretch moves to the nearest break;
* ``cut``: the line of windows is cut twice, and every window that touches a cut is left out. Frames right before and
  right after a cut show the same weather, so such a split is called weak wherever it is reported.

With fewer than three groups that hold windows, ``gap`` and ``day`` become ``cut``.
"""

from __future__ import annotations

from collections.abc import Sequence as ListLike
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from backend.errors import BadDataError
from training.data.radar.windows import Stretch, Windows, iso_time

SPLITS = ("train", "val", "test")
Method = Literal["gap", "day", "cut"]
_PURGED = -1
_MOST_CUT_PLACES = 512  # pairs of them are tried, so this bounds the time
_DAY = 86400.0
_HOUR = 3600.0


@dataclass(frozen=True)
class Split:
    """Which window went where, and the record of it."""

    sides: np.ndarray  # int8 per window: 0 train, 1 val, 2 test, -1 in none
    audit: dict[str, Any]

    def members(self, split: str) -> np.ndarray:
        """Indices of the windows in ``split``, in time order."""
        return np.flatnonzero(self.sides == SPLITS.index(split))


def split_windows(
    stretches: ListLike[Stretch],
    windows: Windows,
    method: Method,
    fractions: ListLike[float],
    min_gap_hours: float = 6.0,
) -> Split:
    """Assign every window to train, val or test (or to none). Raises BadDataError with too little data for three sides.

    ``fractions`` are of the windows. The audit's overlaps are counted from the result, not from how it was made.
    """
    sides, used, why = None, method, f"data.split.method is {method}"
    if method != "cut":
        groups = _group_of_windows(stretches, windows, _boundaries(stretches, method, min_gap_hours * _HOUR))
        found = len(np.unique(groups))
        if found >= len(SPLITS):
            sides = _assign_groups(groups, fractions)
            why = f"{found} {_describe(method, min_gap_hours)} hold windows"
        else:
            used, why = "cut", f"only {found} {_describe(method, min_gap_hours)} hold windows, three are needed"
    if sides is None:
        sides = _cut(windows, fractions)
    audit = _audit(stretches, windows, sides)
    audit = {"method": method, "method_used": used, "why": why, **_weakness(used, audit, windows), **audit}
    return Split(sides, audit)


def _describe(method: Method, min_gap_hours: float) -> str:
    return "days (UTC)" if method == "day" else f"groups with {min_gap_hours:g} h between them"


def _clusters(stretches: ListLike[Stretch]) -> np.ndarray:
    """[n, 2] start and end of the times that stretches cover together, in time order, disjoint."""
    merged: list[list[float]] = []
    for start, end in sorted((float(s.times[0]), float(s.times[-1])) for s in stretches):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return np.array(merged)


def _boundaries(stretches: ListLike[Stretch], method: Method, min_gap: float) -> np.ndarray:
    """Times, all inside breaks, at which one group ends and the next begins."""
    clusters = _clusters(stretches)
    ends, starts = clusters[:-1, 1], clusters[1:, 0]
    middles = (ends + starts) / 2
    if method == "gap":
        return middles[starts - ends >= min_gap]
    midnights = np.arange(np.ceil(clusters[0, 0] / _DAY), np.floor(clusters[-1, 1] / _DAY) + 1) * _DAY
    if not len(middles):
        return middles
    distance = np.maximum(0, np.maximum(ends - midnights[:, None], midnights[:, None] - starts))
    return middles[np.unique(distance.argmin(axis=1))]


def _group_of_windows(stretches: ListLike[Stretch], windows: Windows, boundaries: np.ndarray) -> np.ndarray:
    of_stretch = np.searchsorted(boundaries, [stretch.times[0] for stretch in stretches])
    return of_stretch[windows.stretch]


def _assign_groups(groups: np.ndarray, fractions: ListLike[float]) -> np.ndarray:
    """Whole groups in time order to the sides, as near to the fractions as groups allow, none of the sides empty."""
    names, counts = np.unique(groups, return_counts=True)
    upto = np.cumsum(counts) / len(groups)  # share of the windows up to and with each group
    last_train = int(np.abs(upto[:-2] - fractions[0]).argmin())
    last_val = last_train + 1 + int(np.abs(upto[last_train + 1 : -1] - fractions[0] - fractions[1]).argmin())
    return (groups > names[last_train]).astype(np.int8) + (groups > names[last_val]).astype(np.int8)


def _cut(windows: Windows, fractions: ListLike[float]) -> np.ndarray:
    """The pair of cuts whose sides come nearest to the fractions, then purge the windows that touch a cut."""
    starts, ends = windows.start, np.sort(windows.end)
    places = np.unique(starts)
    places = places[np.unique(np.linspace(0, len(places) - 1, min(len(places), _MOST_CUT_PLACES)).astype(int))]
    before = np.searchsorted(ends, places)  # windows that end before the place
    started = np.searchsorted(starts, places)  # windows that start before it
    train, test = before[:, None], (len(windows) - started)[None, :]
    val = before[None, :] - started[:, None]  # never too many: what spans both cuts only lowers it
    counts = np.stack(np.broadcast_arrays(train, val, test)).astype(float)
    possible = (counts >= 1).all(axis=0)
    if not possible.any():
        raise BadDataError(_too_few(windows))
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    away = np.abs(shares - np.array(fractions)[:, None, None]).sum(axis=0) + 1 - counts.sum(axis=0) / len(windows)
    first, second = np.unravel_index(np.where(possible, away, np.inf).argmin(), away.shape)
    return _sides_of_cuts(windows, float(places[first]), float(places[second]))


def _sides_of_cuts(windows: Windows, first: float, second: float) -> np.ndarray:
    sides = np.full(len(windows), _PURGED, np.int8)
    sides[windows.end < first] = 0
    sides[(windows.start >= first) & (windows.end < second)] = 1
    sides[windows.start >= second] = 2
    return sides


def _too_few(windows: Windows) -> str:
    return (
        f"Too few events for the split: {len(windows)} windows of {windows.length} frames, "
        f"{iso_time(windows.start[0])} to {iso_time(windows.end.max())}, do not leave three that share no frame for "
        "train, val and test. Add events, or lower data.input_steps, data.prediction_steps or data.stride."
    )


def _weakness(used: str, audit: dict[str, Any], windows: Windows) -> dict[str, Any]:
    longest = float((windows.end - windows.start).max()) / _HOUR
    nearest = min(audit["gaps_hours"].values())
    if used != "cut" and nearest >= longest:
        return {"weak": False}
    reason = (
        f"This split is weak: {nearest:.2f} h lie between two of its sides (a window is {longest:.2f} h long), which "
        "may show the same weather, so scores may be too good. Honest scores need three or more separate events."
    )
    return {"weak": True, "weak_reason": reason}


def _audit(stretches: ListLike[Stretch], windows: Windows, sides: np.ndarray) -> dict[str, Any]:
    members = {name: np.flatnonzero(sides == number) for number, name in enumerate(SPLITS)}
    frames = {name: _frames_of(stretches, windows, indices) for name, indices in members.items()}
    overlaps = _overlaps(windows, members, frames)
    if any(overlaps.values()):
        raise AssertionError(f"the split leaks: {overlaps}")
    return {
        "splits": {name: _side(stretches, windows, members[name], frames[name]) for name in SPLITS},
        "gaps_hours": {
            f"{one}-{other}": float(windows.start[members[other]].min() - windows.end[members[one]].max()) / _HOUR
            for one, other in pairwise(SPLITS)
        },
        "purged_windows": int((sides == _PURGED).sum()),
        "overlaps": overlaps,
    }


def _side(stretches: ListLike[Stretch], windows: Windows, members: np.ndarray, frames: np.ndarray) -> dict[str, Any]:
    sequences = {id(stretches[i].sequence) for i in np.unique(windows.stretch[members])}
    return {
        "sequences": len(sequences),
        "frames": len(frames),
        "windows": len(members),
        "from": iso_time(windows.start[members].min()),
        "to": iso_time(windows.end[members].max()),
    }


def _frames_of(stretches: ListLike[Stretch], windows: Windows, members: np.ndarray) -> np.ndarray:
    spans = zip(windows.stretch[members], windows.first[members], strict=True)
    used = [stretches[stretch].blocks[first : first + windows.length] for stretch, first in spans]
    return np.unique(np.concatenate(used))


def _overlaps(windows: Windows, members: dict[str, np.ndarray], frames: dict[str, np.ndarray]) -> dict[str, int]:
    """Frames in two splits, and windows that overlap in time with a window of another split."""
    pairs = [(one, other) for i, one in enumerate(SPLITS) for other in SPLITS[i + 1 :]]
    shared = sum(len(np.intersect1d(frames[one], frames[other])) for one, other in pairs)
    return {"frames": shared, "windows": sum(_meeting(windows, members[a], members[b]) for a, b in pairs)}


def _meeting(windows: Windows, ones: np.ndarray, others: np.ndarray) -> int:
    begun = np.searchsorted(np.sort(windows.start[others]), windows.end[ones], side="right")
    over = np.searchsorted(np.sort(windows.end[others]), windows.start[ones], side="left")
    return int((begun > over).sum())


def audit_lines(audit: dict[str, Any]) -> list[str]:
    """The audit for the log: a line for each side, then what was found and done."""
    lines = [f"Split by {audit['method_used']} ({audit['why']}):"]
    lines += [_side_line(name, audit["splits"][name]) for name in SPLITS]
    gaps = ", ".join(f"{name.replace('-', ' to ')} {hours:.1f} h" for name, hours in audit["gaps_hours"].items())
    overlaps = audit["overlaps"]
    lines.append(f"  between: {gaps}; shared frames {overlaps['frames']}, overlapping windows {overlaps['windows']}")
    if audit["purged_windows"]:
        lines.append(f"  {audit['purged_windows']} windows touch a cut and are left out")
    return lines + ([audit["weak_reason"]] if audit["weak"] else [])


def _side_line(name: str, side: dict[str, Any]) -> str:
    counts = f"{side['windows']:>6} windows, {side['frames']:>6} frames, {side['sequences']:>4} sequences"
    return f"  {name:<5} {counts}, {side['from']} to {side['to']}"
