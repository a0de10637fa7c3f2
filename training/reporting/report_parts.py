"""What the sections of a report say, as plain values for the template."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from training.evaluation.goals import judge
from training.files import to_json
from training.reporting.run_folder import RunFolder
from training.reporting.units import moment, significant
from training.requests import WORKER
from training.runs.work_events import came_to_report
from training.shown import without_secrets

_FILES = {
    "config.yaml": "every setting; give it to --config to repeat the run",
    "metadata.yaml": "identity, dataset, audit, versions, result",
    "split.json": "who is in train, val and test",
    "metrics.jsonl": "every logged step and every validation",
    "training_history.json": "a row per validation, for a quick plot",
    "events.jsonl": "starts, interruptions, resumes and what else happened",
    "train.log": "what was said on the terminal",
    "tensorboard": "event files for TensorBoard",
    "checkpoints": "weights, optimizer and state, each with its hash",
    "best_model.pth": "the best weights, for other programs",
    "evaluations": "scores with counts and definitions",
    "figures": "every figure as PNG and SVG",
    "MODEL_CARD.md": "what the model is, was trained on and can do, with a methods paragraph and references",
}


def identity(run: RunFolder) -> dict[str, Any]:
    """Which run it is, its state and its best: what is cheap to read, for lists of runs too."""
    metadata, result = run.metadata, run.metadata.get("result") or {}
    return {
        "task": metadata.get("task") or run.config.get("task") or "training",
        "run_id": metadata.get("run_id") or run.path.name,
        "state": _state(run),
        "is_sample": bool(
            (metadata.get("dataset") or {}).get("is_sample") or (metadata.get("data") or {}).get("is_sample")
        ),
        "best_step": result.get("best_step") or run.best_step,
        "selection": _selection(run.config.get("selection") or {}, result.get("selection") or {}),
    }


def heading(run: RunFolder) -> dict[str, Any]:
    """What was trained, and how far it came."""
    metadata, dataset = run.metadata, run.metadata.get("dataset") or {}
    known = identity(run)
    return {
        **known,
        "selection": {**known["selection"], "words": _chosen_value(run, known["selection"], known["best_step"])},
        "error": without_secrets(str(metadata["error"])) if metadata.get("error") else None,
        "item": dataset.get("item", "items"),
        "items": dataset.get("items") or {},
        "parameters": (metadata.get("parameters") or {}).get("total"),
        "device": _device(metadata.get("device") or {}),
        "steps": max((record["step"] for record in run.metrics), default=0),
        "preset": metadata.get("preset"),
        "started": next((moment(event["time"]) for event in run.events if event.get("time")), None),
    }


def _selection(asked: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """By which metric the best checkpoint is chosen, which way is better, and the best value; None if not known."""
    value = found.get("value")
    return {
        "metric": found.get("metric") or asked.get("metric"),
        "mode": found.get("mode") or asked.get("mode"),
        "value": value if isinstance(value, int | float) else None,
    }


def _chosen_value(run: RunFolder, selection: Mapping[str, Any], step: int | None) -> str:
    """The value that decided; of a part of the split it is no score, so that of the whole stands beside it."""
    if selection["value"] is None:
        return ""
    text = significant(selection["value"])
    decided = next((record for record in run.validations if record.get("step") == step), {})
    seen, whole = decided.get("n"), decided.get("of")
    if seen is None or whole is None or seen >= whole:
        return text
    item = (run.metadata.get("dataset") or {}).get("item", "items")
    text += f" on {seen:,} of {whole:,} {item}"
    validated = run.evaluations.get("val") or {}
    same = validated.get("checkpoint") == f"step-{step:08d}"
    scored = validated["metrics"].get(selection["metric"]) if same else None
    return text if scored is None else f"{text}, {significant(scored)} on all {whole:,}"


def _state(run: RunFolder) -> str:
    """The report is written just before the run is called finished: its stage is the end of training."""
    state = str(run.metadata.get("state", "unknown"))
    return "finished" if state == "running" and came_to_report(run.events) else state


def _device(device: Mapping[str, Any]) -> str:
    if device.get("kind") == "cuda":
        return f"{device.get('name')}, {device.get('memory_gib')} GiB"
    threads = device.get("threads")
    if threads is None:
        return str(device.get("kind", ""))
    return f"CPU, {threads} thread{'' if threads == 1 else 's'}"


def goals(run: RunFolder) -> list[dict[str, str]]:
    """The goals of the configuration, each reached, missed or not known; scores on other data reach none."""
    own = (run.evaluations[split] for split in ("val", "test") if split in run.evaluations)
    metrics = {name: value for evaluation in own for name, value in evaluation["metrics"].items()}
    wanted = {name: str(condition) for name, condition in (run.config.get("goals") or {}).items()}
    return [
        {
            "name": verdict.name,
            "condition": verdict.condition,
            "found": "–" if verdict.value is None else f"{verdict.value:.4g}",
            "verdict": verdict.word,
        }
        for verdict in judge(wanted, metrics)
    ]


def dataset(run: RunFolder) -> dict[str, Any]:
    """Which data, as preparation summed it up."""
    found = run.metadata.get("dataset") or {}
    path = (run.metadata.get("data") or {}).get("path")
    name = found.get("name") or (Path(os.path.normpath(run.path / path)).name if path else None)
    return {
        "path": path,
        "name": f"{name}, version {found['version']}" if name and found.get("version") else name,
        "kind": found.get("kind"),
        "fingerprint": found.get("fingerprint"),
        "summary": [str(line) for line in found.get("summary") or []],
    }


def audit(run: RunFolder) -> dict[str, Any] | None:
    """The split audit: a row for each split, weakness first, then what else was found, whatever the task calls it."""
    found = run.metadata.get("audit")
    if not isinstance(found, dict) or not found:
        return None
    sides = found.get("splits")
    splits: dict[str, Any] = sides if isinstance(sides, dict) else {}
    shown = ("splits", "weak", "weak_reason", "method", "method_used", "why")
    return {
        "weak": bool(found.get("weak")),
        "weak_reason": found.get("weak_reason", "This split is weak."),
        "method": found.get("method_used") or found.get("method"),
        "why": found.get("why"),
        "columns": list(dict.fromkeys(key for side in splits.values() for key in side)),
        "splits": splits,
        "findings": [
            (name.replace("_", " ").replace(".", ": "), text)
            for name, text in _flat(found, "")
            if name.split(".")[0] not in shown
        ],
    }


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Nested JSON as (dotted name, text) pairs; lists become one text."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        yield name, "; ".join(_text(item) for item in value) or "none"
    else:
        yield name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return " + ".join(_text(item) for item in value)
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else without_secrets(moment(str(value)))


def settings(run: RunFolder) -> list[dict[str, Any]]:
    """Every setting with its value; those that the user chose are marked, and `auto` says what it became."""
    chosen = run.metadata.get("set_by_user") or {}
    automatic = run.metadata.get("automatic") or {}
    return [
        {"key": key, "value": text, "chosen": _is_chosen(key, chosen), "became": automatic.get(key)}
        for key, text in _flat(run.config, "")
    ]


def differences(run: RunFolder) -> dict[str, Any] | None:
    """The settings that differ from the preset, as (key, the preset's value, the value here); None if not recorded."""
    found = run.metadata.get("differences")
    if not isinstance(found, dict):
        return None
    changed = found.get("keys") or {}
    return {
        "preset": found.get("preset"),
        "keys": [(key, _as_set(there), _as_set(here)) for key, (there, here) in changed.items()],
    }


def _as_set(value: Any) -> str:
    """A setting as one would write it."""
    return without_secrets(value if isinstance(value, str) else to_json(value))


def _is_chosen(key: str, chosen: Mapping[str, Any]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in chosen)


def made_with(run: RunFolder) -> list[tuple[str, str]]:
    """Versions, code and determinism."""
    git = run.metadata.get("git") or {}
    rows = [(name, str(version)) for name, version in (run.metadata.get("versions") or {}).items()]
    if git.get("commit"):
        rows.append(("code", f"{git['commit']}{' with local changes' if git.get('dirty') else ''}"))
    determinism = run.metadata.get("determinism") or {}
    if determinism:
        names = determinism.get("not_deterministic") or []
        asked = "asked for" if determinism.get("asked") else "not asked for"
        rows.append(("determinism", asked + (f"; not deterministic: {', '.join(names)}" if names else "")))
    return rows


def repeat(run: RunFolder) -> dict[str, Any]:
    """What is needed to get the same again."""
    metadata = run.metadata
    return {
        "command": f"{WORKER} {without_secrets(str(metadata['command']))}" if metadata.get("command") else None,
        "again": _again(run),
        "seed": metadata.get("seed"),
        "config_hash": metadata.get("config_hash"),
        "fingerprint": (metadata.get("dataset") or {}).get("fingerprint"),
        "commit": (metadata.get("git") or {}).get("commit"),
    }


def _again(run: RunFolder) -> str:
    """A command for the repository's root that trains the same from the run's own folder, where runs are by default."""
    task, data = run.metadata.get("task") or "TASK", run.metadata.get("data") or {}
    place = f"model_output/{task}/{run.path.name}"
    words = [*WORKER.split(), "train", "--task", str(task), "--config", f"{place}/config.yaml", "--resume", "never"]
    if data.get("is_sample"):
        words += ["--data", "sample"]
    elif data.get("path"):
        words += ["--data", os.path.normpath(os.path.join(place, data["path"]))]  # noqa: PTH118 - nothing need be there
    return shlex.join(words)


def files(run: RunFolder) -> list[tuple[str, str]]:
    """The files of the run that are there, with what is in them."""
    return [(name, about) for name, about in _FILES.items() if (run.path / name).exists()]
