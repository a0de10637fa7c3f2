"""What the page of all runs shows of a run beside what the registry says anyway; kept with its entry there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.reporting.report_parts import goals
from training.reporting.report_scores import headlines
from training.reporting.report_story import device_kind, noted_use
from training.reporting.run_folder import RunFolder
from training.reporting.verdict import verdict_of

_SCORES = 2  # shown where there is no verdict


def page_facts(run: RunFolder) -> dict[str, Any]:
    """Verdict (without a baseline the first scores), goals, hours and device, as keyword arguments of `RunRow`."""
    seconds, _ = noted_use(run)
    verdicts = [goal["verdict"] for goal in goals(run)]
    return {
        "verdict": _on_test(run.evaluations["test"]) if "test" in run.evaluations else "",
        "goals_reached": verdicts.count("reached"),
        "goals": len(verdicts) if run.evaluations else 0,
        "hours": seconds / 3600 if seconds else None,
        "device": device_kind(run) if run.metadata else "",
    }


def _on_test(evaluation: Mapping[str, Any]) -> str:
    verdict = verdict_of(evaluation)
    if verdict is not None:
        return verdict.sentence
    metrics = {name.removeprefix("test/"): value for name, value in evaluation["metrics"].items()}
    return ", ".join(f"{name} {value}" for name, value in headlines(evaluation.get("record") or {}, metrics)[:_SCORES])
