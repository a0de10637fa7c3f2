"""The part of a report that says how good the model is: verdict, score tables, counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from training.reporting.run_folder import Record, RunFolder
from training.reporting.units import significant
from training.scores.radar_table import CATEGORICAL, CONTINUOUS, Better

Cell = dict[str, str]


def evaluation_part(run: RunFolder, split: str) -> dict[str, Any]:
    """What the page shows of one evaluated split."""
    evaluation = run.evaluations[split]
    record = evaluation.get("record") or {}
    metrics = {name.removeprefix(f"{split}/"): value for name, value in evaluation["metrics"].items()}
    common = {
        "split": split,
        "n": evaluation.get("n"),
        "item": evaluation.get("item", "items"),
        "checkpoint": evaluation.get("checkpoint"),
        "averaged": evaluation.get("weights") == "ema",
        "looks": evaluation.get("looks"),
        "scale": record.get("scale"),
        "definitions": record.get("definitions", {}),
    }
    if record.get("kind") == "nowcast":
        return common | _nowcast(metrics, record)
    return common | {"verdicts": [], "tables": [], "counts": None, "numbers": _numbers(metrics, lambda name: True)}


def _nowcast(metrics: Mapping[str, float], record: Record) -> dict[str, Any]:
    thresholds = [f"{threshold:g}" for threshold in record["thresholds_dbz"]]
    return {
        "verdicts": [_verdict(metrics, record, threshold) for threshold in thresholds],
        "tables": _tables(metrics, record, thresholds),
        "counts": _counts(record, thresholds),
        "not_finite": sum(record.get("not_finite", [])),
        "numbers": _numbers(metrics, lambda name: not _in_a_table(name, thresholds)),
    }


def _in_a_table(name: str, thresholds: Sequence[str]) -> bool:
    name = name.removeprefix("persistence_").split("_lead_")[0]
    return name in CONTINUOUS or any(name == f"{score}_{t}" for score in CATEGORICAL for t in thresholds)


def _numbers(metrics: Mapping[str, float], wanted: Any) -> list[tuple[str, str]]:
    return [(name, significant(value)) for name, value in metrics.items() if wanted(name)]


def _verdict(metrics: Mapping[str, float], record: Record, threshold: str) -> dict[str, Any]:
    """At which leads the model's CSI is above persistence's."""
    leads = range(1, record["leads"] + 1)
    pairs = {lead: _pair(metrics, f"csi_{threshold}_lead_{lead}") for lead in leads}
    known = {lead: (model, other) for lead, (model, other) in pairs.items() if model is not None and other is not None}
    won = [lead for lead, (model, other) in known.items() if model > other]
    if not known:
        text = "cannot be said: the event was neither observed nor forecast"
    elif not won:
        text = "no better than persistence at any lead"
    elif len(won) == record["leads"]:
        text = "better than persistence at every lead"
    else:
        text = f"better than persistence at {_spans(won)} of {record['leads']}"
    kind = "none" if not known else "good" if len(won) == len(known) else "bad" if not won else "mixed"
    return {"threshold": threshold, "text": text, "kind": kind, "observed": sum(record["observed_pixels"][threshold])}


def _spans(leads: Sequence[int]) -> str:
    """``[1, 2, 3, 5]`` as ``leads 1 to 3 and 5``."""
    starts = [leads[0], *(b for a, b in pairwise(leads) if b != a + 1)]
    ends = [*(a for a, b in pairwise(leads) if b != a + 1), leads[-1]]
    spans = [str(a) if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True)]
    listed = spans[0] if len(spans) == 1 else f"{', '.join(spans[:-1])} and {spans[-1]}"
    return f"lead{'s' if len(leads) > 1 else ''} {listed}"


def _pair(metrics: Mapping[str, float], name: str) -> tuple[float | None, float | None]:
    return metrics.get(name), metrics.get(f"persistence_{name}")


def _tables(metrics: Mapping[str, float], record: Record, thresholds: Sequence[str]) -> list[dict[str, Any]]:
    suffixes = [f"_lead_{lead}" for lead in range(1, record["leads"] + 1)] + [""]
    heads = [*(str(lead) for lead in range(1, record["leads"] + 1)), "all"]
    definitions = record.get("definitions", {})
    tables = [
        {
            "title": title,
            "about": definitions.get(score, ""),
            "corner": "dBZ",
            "heads": heads,
            "rows": [(t, list(_cells(metrics, f"{score}_{t}", suffixes, better))) for t in thresholds],
        }
        for score, (title, better) in CATEGORICAL.items()
    ]
    rows = [(title, list(_cells(metrics, name, suffixes, better))) for name, (title, better) in CONTINUOUS.items()]
    title = "Errors and similarity"
    return [*tables, {"title": title, "about": "", "corner": "", "heads": heads, "rows": rows}]


def _cells(metrics: Mapping[str, float], name: str, suffixes: Iterable[str], better: Better) -> Iterable[Cell]:
    for suffix in suffixes:
        model, other = _pair(metrics, f"{name}{suffix}")
        kind = "" if model is None or other is None else "better" if better(model, other) else "worse"
        kind = "" if model == other else kind
        yield {"model": _short(model), "persistence": _short(other), "kind": kind}


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _counts(record: Record, thresholds: Sequence[str]) -> dict[str, Any]:
    """Pixel counts pooled over the leads, and the observed pixels at each lead."""
    kinds = ("hits", "misses", "false_alarms", "correct_negatives")
    return {
        "kinds": [kind.replace("_", " ") for kind in kinds],
        "pooled": [
            (t, who, [sum(by_threshold[t][kind]) for kind in kinds])
            for t in thresholds
            for who, by_threshold in record["counts"].items()
        ],
        "heads": list(range(1, record["leads"] + 1)),
        "observed": [(t, record["observed_pixels"][t]) for t in thresholds],
        "pixels": record["pixels"],
    }
