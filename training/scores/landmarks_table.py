"""The scores of landmarks as a text table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.scores.layout import Layout, layout_of
from training.scores.text_tables import text_table


def render(metrics: Mapping[str, float], record: Mapping[str, Any]) -> str:
    """Lay out ``metrics`` (unprefixed names) as ``record``, of `LandmarkScores`, says."""
    layout = layout_of(record)
    assert layout is not None
    parts = [_heading(record, layout), *(text_table(table, metrics, layout.baseline) for table in layout.tables)]
    parts += [text_table(table, metrics) for table in layout.counts]
    return "\n\n".join(parts) + "\n"


def _heading(record: Mapping[str, Any], layout: Layout) -> str:
    lines = [
        f"{record['images']:,} images of {len(record['points'])} points.",
        f"Scale: {record['scale']}.",
        "Each cell: model | mean shape of the training split. * the model is better. - undefined.",
    ]
    return "\n".join([*lines, *layout.warnings])
