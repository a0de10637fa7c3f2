"""The scores of detections as a text table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.scores.layout import layout_of
from training.scores.text_tables import text_table


def render(metrics: Mapping[str, float], record: Mapping[str, Any]) -> str:
    """Lay out ``metrics`` (unprefixed names) as ``record``, of `DetectionScores`, says."""
    layout = layout_of(record)
    assert layout is not None
    counts, classes = record["all_counts"], len(record["classes"])
    heading = [
        f"{record['images']:,} images with {counts['boxes']:,} true boxes of {classes:,} class{'es' * (classes != 1)}.",
        f"Scale: {record['scale']}. - undefined.",
        *layout.warnings,
    ]
    parts = ["\n".join(heading), *(text_table(table, metrics) for table in [*layout.tables, *layout.counts])]
    return "\n\n".join(parts) + "\n"
