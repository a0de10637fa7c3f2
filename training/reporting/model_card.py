"""`MODEL_CARD.md`: what a finished run's model is, was trained on, can do, and must not be taken for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backend.files import write_atomic
from training.reporting import report_parts as parts
from training.reporting.methods import methods, precision
from training.reporting.overfitting import parting
from training.reporting.references import shared_references
from training.reporting.report_scores import evaluation_part
from training.reporting.report_story import story, used
from training.reporting.run_folder import RunFolder
from training.reporting.template import environment
from training.tasks.card import card_from


def write_model_card(run_dir: Path) -> Path | None:
    """Write the card of a finished run, from its folder alone.

    Returns:
        The card's path; None for a run that is not finished, which has no model to describe yet.

    Raises:
        OSError: the file cannot be written.
    """
    run = RunFolder(run_dir)
    if parts.heading(run)["state"] != "finished":
        return None
    path = run_dir / "MODEL_CARD.md"
    write_atomic(path, render_model_card(run))
    return path


def render_model_card(run: RunFolder) -> str:
    """The card as Markdown."""
    return environment(html=False).get_template("model_card.md.j2").render(**_context(run))


def _context(run: RunFolder) -> dict[str, Any]:
    card = card_from(run.card)
    references = {one.key: one for one in (*card.references, *shared_references(run.config, precision(run)))}
    return {
        "heading": parts.heading(run),
        "card": card,
        "dataset": parts.dataset(run),
        "audit": parts.audit(run),
        "methods": methods(run, card),
        "evaluations": [evaluation_part(run, place) for place in run.evaluations],
        "goals": parts.goals(run),
        "parting": parting(run.validations),
        "story": story(run),
        "used": used(run),
        "precision": precision(run),
        "made_with": parts.made_with(run),
        "repeat": parts.repeat(run),
        "references": sorted(references.values(), key=lambda one: one.key),
    }
