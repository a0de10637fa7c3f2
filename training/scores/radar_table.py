"""The scores of a nowcast as a text table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Better = Callable[[float, float], bool]


def higher(a: float, b: float) -> bool:
    """More is better."""
    return a > b


def lower(a: float, b: float) -> bool:
    """Less is better."""
    return a < b


def nearer_one(a: float, b: float) -> bool:
    """A frequency bias is better the nearer it is to 1."""
    return abs(a - 1) < abs(b - 1)


CATEGORICAL: dict[str, tuple[str, Better]] = {
    "csi": ("CSI", higher),
    "pod": ("POD", higher),
    "far": ("FAR", lower),
    "bias": ("bias", nearer_one),
    "hss": ("HSS", higher),
}
CONTINUOUS: dict[str, tuple[str, Better]] = {
    "mae_dbz": ("MAE dBZ", lower),
    "rmse_dbz": ("RMSE dBZ", lower),
    "mae_echo_dbz": ("MAE dBZ, echo", lower),
    "rmse_echo_dbz": ("RMSE dBZ, echo", lower),
    "ssim": ("SSIM", higher),
}


def render(metrics: Mapping[str, float], record: Mapping[str, Any]) -> str:
    """Lay out ``metrics`` (unprefixed names) with the counts of ``record``, as `NowcastScores` gives both."""
    thresholds = [f"{t:g}" for t in record["thresholds_dbz"]]
    suffixes = [f"_lead_{lead}" for lead in range(1, record["leads"] + 1)] + [""]
    heads = [f"lead {lead}" for lead in range(1, record["leads"] + 1)] + ["all leads"]
    parts = [_heading(record)]
    for score, (title, better) in CATEGORICAL.items():
        rows = [[t, *(_pair(metrics, f"{score}_{t}{s}", better) for s in suffixes)] for t in thresholds]
        parts.append(f"{title}\n" + _grid(["dBZ", *heads], rows))
    rows = [
        [title, *(_pair(metrics, f"{name}{s}", better) for s in suffixes)]
        for name, (title, better) in CONTINUOUS.items()
    ]
    parts.append("Errors and similarity\n" + _grid(["", *heads], rows))
    parts.append("Pixels, all leads\n" + _counts(record, thresholds))
    parts.append("Observed pixels at or above the threshold\n" + _observed(record, thresholds, heads))
    return "\n\n".join(parts) + "\n"


def _heading(record: Mapping[str, Any]) -> str:
    lines = [
        f"Scale: {record['scale']}; {record['rows']:,} sequences, {sum(record['pixels']):,} pixels over all leads.",
        "Each cell: model | persistence. * the model is better. - undefined (nothing to divide by).",
    ]
    if any(record["not_finite"]):
        lines.append(
            f"The forecast is not a finite number at {sum(record['not_finite']):,} pixels; leads with any are -."
        )
    return "\n".join(lines)


def _pair(metrics: Mapping[str, float], name: str, better: Better) -> str:
    model, persistence = metrics.get(name), metrics.get(f"persistence_{name}")
    told = _number(model), _number(persistence)
    mark = " "
    if model is not None and persistence is not None and told[0] != told[1] and better(model, persistence):
        mark = "*"
    return f"{told[0]}|{told[1]}{mark}"


def _number(value: float | None) -> str:
    if value is None:
        return "-".rjust(6)
    text = f"{value:6.3f}" if abs(value) < 10 else f"{value:6.2f}"
    return text.replace("-0.000", " 0.000")


def _counts(record: Mapping[str, Any], thresholds: Sequence[str]) -> str:
    kinds = ("hits", "misses", "false_alarms", "correct_negatives")
    heads = ["dBZ", "forecast", *(kind.replace("_", " ") for kind in kinds)]
    rows = [
        [t, who, *(f"{sum(by_threshold[t][kind]):,}" for kind in kinds)]
        for t in thresholds
        for who, by_threshold in record["counts"].items()
    ]
    return _grid(heads, rows)


def _observed(record: Mapping[str, Any], thresholds: Sequence[str], heads: Sequence[str]) -> str:
    rows = [
        [t, *(f"{n:,}" for n in record["observed_pixels"][t]), f"{sum(record['observed_pixels'][t]):,}"]
        for t in thresholds
    ]
    return _grid(["dBZ", *heads], rows)


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(heads), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
