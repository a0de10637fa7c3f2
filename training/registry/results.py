"""What came out of a run so far: its metrics, and the one by which its best checkpoint was chosen."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from training.reporting.run_folder import RunFolder

_OF_THE_SCALE = ("min_dbz", "max_dbz")  # in the section `data`: the loss is of values between these
MANY_METRICS = 64  # of one split; of more the registry keeps the headlines, the run's folder has them all


def results_of(run: RunFolder) -> tuple[dict[str, Any], dict[str, float]]:
    """Selection and metrics: of the kept evaluations, else of the best validation so far."""
    chosen = mapping(run.config.get("selection"))
    metric, mode = text(chosen.get("metric")), text(chosen.get("mode"))
    wanted = _wanted(run, metric)
    evaluation, tested = run.evaluations.get("val"), run.evaluations.get("test")
    metrics = _twins(_numbers(tested["metrics"], "test/"), wanted) if tested else {}
    if evaluation is None:
        best = best_validation(run, metric, mode)
        selection, found = of_validation(metric, mode, best) if best else (_chosen_by(metric, mode), {})
        return selection, {**found, **metrics}
    metrics = headlines(_numbers(evaluation["metrics"], "val/"), wanted, _named_headlines(evaluation)) | metrics
    step = re.search(r"(\d+)$", str(evaluation.get("checkpoint")))
    counts = {"step": int(step[1]) if step else None, "n": evaluation.get("n"), "of": evaluation.get("n")}
    return {**_chosen_by(metric, mode), "value": metrics.get(metric or ""), **counts}, metrics


def _chosen_by(metric: str | None, mode: str | None) -> dict[str, Any]:
    return {"metric": metric, "mode": mode, "value": None, "step": None, "n": None, "of": None}


def of_validation(
    metric: str | None, mode: str | None, record: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Selection and metrics of one validation during training."""
    metrics = _numbers(record["metrics"], "val/")
    found = {name: record.get(name) for name in ("step", "n", "of")}
    value = metrics[metric or ""]
    return {**_chosen_by(metric, mode), "value": value, **found}, headlines(metrics, {metric or ""})


def best_validation(run: RunFolder, metric: str | None, mode: str | None) -> dict[str, Any] | None:
    """The validation that chose the best checkpoint so far."""
    from training.reporting.run_folder import read_lines

    if metric is None or mode not in ("min", "max"):
        return None
    validations = read_lines(run.path / "metrics.jsonl", only='"kind": "validation"')
    found = [record for record in validations if is_number(mapping(record.get("metrics")).get(metric))]
    pick = min if mode == "min" else max
    return pick(found, key=lambda record: record["metrics"][metric]) if found else None


def loss_hash(config: Mapping[str, Any]) -> str | None:
    """Of the settings that say what the loss measures: its own, and the range that data are normalised to.

    None where the configuration cannot be read.
    """
    if not config:
        return None
    data = mapping(config.get("data"))
    settings = {"loss": config.get("loss"), "data": {name: data[name] for name in _OF_THE_SCALE if name in data}}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def _named_headlines(evaluation: Mapping[str, Any]) -> set[str]:
    """The scores that the task itself calls the headlines, by `Scores.record`; none where it leaves that to names."""
    names = mapping(evaluation.get("record")).get("headlines")
    return {f"val/{name}" for name in names} if isinstance(names, list) else set()


def headlines(metrics: Mapping[str, float], wanted: set[str], named: Collection[str] = ()) -> dict[str, float]:
    """``metrics`` or, of very many, the losses, those ``named`` by the task and the ``wanted`` ones.

    Where the task names none: those that are no variant of another. ``csi_30_lead_7`` and ``persistence_csi_30`` are
    variants of ``csi_30``; the parts of the loss are none.
    """
    if len(metrics) <= MANY_METRICS:
        return dict(metrics)
    if named:
        kept = {*named, *wanted}
        return {name: value for name, value in metrics.items() if name in kept or _is_loss(name)}
    return {
        name: value
        for name, value in metrics.items()
        if name in wanted or not any(other in metrics for other in _without_words(name))
    }


def _is_loss(name: str) -> bool:
    return name.partition("/")[2].split("_")[0] == "loss"


def _twins(tested: Mapping[str, float], wanted: set[str]) -> dict[str, float]:
    """Test scores, of which nothing is ranked by: of very many those of ``wanted`` metrics, and the loss."""
    if len(tested) <= MANY_METRICS:
        return dict(tested)
    names = {name.partition("/")[2] for name in wanted} | {"loss"}
    return {name: value for name, value in tested.items() if name.partition("/")[2] in names}


def _without_words(name: str) -> Iterator[str]:
    """``name`` with words taken off its end, then off its beginning; never so far that ``loss`` alone is left."""
    split, _, words = name.rpartition("/")
    parts = words.split("_")
    for count in range(1, len(parts)):
        for rest in (parts[:-count], parts[count:]):
            if rest != ["loss"]:
                yield f"{split}/{'_'.join(rest)}"


def _wanted(run: RunFolder, metric: str | None) -> set[str]:
    return {metric or "", *map(str, mapping(run.config.get("goals")))}


def _numbers(metrics: Any, prefix: str) -> dict[str, float]:
    named = {name: value for name, value in mapping(metrics).items() if isinstance(name, str) and name.isprintable()}
    return {name: value for name, value in named.items() if name.startswith(prefix) and is_number(value)}


def is_number(value: Any) -> TypeGuard[float]:
    """Whether ``value`` is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def mapping(value: Any) -> Mapping[str, Any]:
    """``value`` where it is a mapping, else an empty one: records may be damaged."""
    return value if isinstance(value, Mapping) else {}


def text(value: Any) -> str | None:
    """``value`` where it is a text, as far as it can be written in UTF-8; else None."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) and value else None


def all_metrics(entry: Mapping[str, Any]) -> dict[str, float]:
    """Every metric that a run's folder holds, and what its entry knows where the folder has none."""
    found = dict(entry["metrics"])
    for split in ("val", "test"):
        with suppress(OSError, ValueError):
            content = json.loads(Path(entry["folder"], "evaluations", split, "metrics.json").read_bytes())
            found |= _numbers(mapping(content).get("metrics"), f"{split}/")
    return found
