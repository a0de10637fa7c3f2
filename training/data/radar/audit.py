"""What preparation found in the radar events and did about it: for the audit, and as lines for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from backend.preprocessing.radar import RadarPreprocessing
from training.data.prepared import PreparedCache
from training.data.radar import windows
from training.data.radar.splits import audit_lines
from training.data.radar.windows import Stretch, iso_time

_SQUARE_TOLERANCE = 0.01
_MOST_LINES = 10


def findings(
    extra: Mapping[str, Any], sequences: Sequence[windows.Sequence], stretches: Sequence[Stretch], window: int
) -> dict[str, Any]:
    """Frames that stood in two events, events that were joined, and those too short for a window. JSON types only."""
    return {
        "events": len(extra["folders"]),
        "duplicates": {"frames": len(extra["duplicates"]), "between": _duplicates(extra)},
        "joined": [list(sequence.names) for sequence in sequences if len(sequence.names) > 1],
        "too_short": windows.too_short(sequences, stretches, window),
    }


def _duplicates(extra: Mapping[str, Any]) -> list[dict[str, Any]]:
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for source, kept in extra["duplicates"]:
        used, unused = (extra["folders"][extra["folder_of"][i]] for i in (kept, source))
        times[used, unused].append(extra["times"][source])
    return [
        {"used": used, "unused": unused, "frames": len(at), "from": iso_time(min(at)), "to": iso_time(max(at))}
        for (used, unused), at in sorted(times.items())
    ]


def summary_lines(cache: PreparedCache, audit: Mapping[str, Any], facts: Mapping[str, Any], ignored: int) -> list[str]:
    """The dataset, what was found in it, and the split, for the log."""
    extra = cache.extra
    frames = len(cache.index["block_sources"])
    levels = f"{facts['levels']} level" + ("s" if facts["levels"] > 1 else "")
    counts = f"{audit['events']} events, {frames} frames, {levels}"
    lines = [f"{counts}, one frame every {facts['cadence_seconds']:g} s; prepared cache {cache.folder.name}"]
    lines += _grid_lines(extra, facts) + _packing_lines(extra)
    if ignored:
        lines.append(f"{ignored} files that are not .nc were ignored")
    lines += _some([_duplicate_line(pair) for pair in audit["duplicates"]["between"]], "pairs of events")
    lines += _some([f"joined in time: {' + '.join(names)}" for names in audit["joined"]], "joined events")
    lines += _some([f"too short: {line}" for line in audit["too_short"]], "events that are too short")
    return lines + audit_lines(dict(audit))


def _grid_lines(extra: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    source = " and ".join(grid["text"] for grid in extra["grids"])
    crop = extra["preprocessing"]["crop_km"]
    cropped = f", cropped to {crop[0]:.1f}x{crop[1]:.1f} km, the size that all have," if crop else ""
    lines = [f"grid: {source}{cropped}, then {facts['grid']}"]
    if crop:
        lines.append("note: cropping makes the grids equal in size; it does not make them show the same place")
    if facts["spacing_km"]:
        dy, dx = facts["spacing_km"]
        if abs(dy / dx - 1) > _SQUARE_TOLERANCE:
            lines.append(
                f"note: the cells are not square ({dy:.2f} km high, {dx:.2f} km wide); data.downsample_size in the "
                "proportions of the source grid would keep them so"
            )
    return lines


def _packing_lines(extra: Mapping[str, Any]) -> list[str]:
    preprocessing = RadarPreprocessing.from_dict(extra["preprocessing"])
    error = preprocessing.packing_error_dbz
    return [f"packed in {preprocessing.bits} bits: values are off by at most {error:.3g} dBZ"]


def _duplicate_line(pair: Mapping[str, Any]) -> str:
    return (
        f"{pair['frames']} frames stand in both {pair['used']} and {pair['unused']} and are used once "
        f"({pair['from']} to {pair['to']})"
    )


def _some(lines: list[str], what: str) -> list[str]:
    more = [f"… and {len(lines) - _MOST_LINES} more {what}"] if len(lines) > _MOST_LINES else []
    return lines[:_MOST_LINES] + more
