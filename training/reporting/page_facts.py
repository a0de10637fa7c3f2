"""What the page of all runs shows of a run beside what the registry says anyway; kept with its entry there."""

from __future__ import annotations

from typing import Any

from training.reporting.report_parts import goals
from training.reporting.report_story import device_kind, noted_use
from training.reporting.run_folder import RunFolder
from training.reporting.verdict import verdict_of


def page_facts(run: RunFolder) -> dict[str, Any]:
    """Verdict, goals, hours and device, as keyword arguments of `RunRow`."""
    seconds, _ = noted_use(run)
    verdicts = [goal["verdict"] for goal in goals(run)]
    verdict = verdict_of(run.evaluations["test"]) if "test" in run.evaluations else None
    return {
        "verdict": verdict.sentence if verdict else "",
        "goals_reached": verdicts.count("reached"),
        "goals": len(verdicts) if run.evaluations else 0,
        "hours": seconds / 3600 if seconds else None,
        "device": device_kind(run) if run.metadata else "",
    }
