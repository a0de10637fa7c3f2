"""That ONNX Runtime answers as PyTorch does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from training.exporting.graph import Session
from training.tasks.exported import Exported


@dataclass(frozen=True)
class Comparison:
    """Both answers to the same inputs: how many rows of each kind, and the largest differences."""

    rows: Mapping[str, int]
    differences: Mapping[str, float]
    limits: Mapping[str, float]

    @property
    def over(self) -> list[str]:
        """Which differences are too large; one that is no number is."""
        return [name for name, value in self.differences.items() if not value <= self.limits[name]]

    def line(self) -> str:
        """One line for people."""
        rows = ", ".join(f"{count} {kind}" for kind, count in self.rows.items())
        found = ", ".join(
            f"{name} {value:.3g} (at most {self.limits[name]:g})" for name, value in self.differences.items()
        )
        return f"ONNX Runtime {version('onnxruntime')} against PyTorch {torch.__version__} on {rows}: {found}"

    def to_json(self) -> dict[str, Any]:
        """For the record; what is no number is null."""
        return {
            "rows": dict(self.rows),
            "differences": {name: _finite(value) for name, value in self.differences.items()},
            "limits": dict(self.limits),
            "ok": not self.over,
        }


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def compared(exported: Exported, content: bytes, kinds: Mapping[str, Sequence[Mapping[str, Any]]]) -> Comparison:
    """Give the same rows to both, one after another and, where the model takes several, two at once.

    Args:
        exported: the model.
        content: of the ONNX file.
        kinds: batches as the loader gives them, by what they are.
    """
    session = Session(content)
    counts: dict[str, int] = {}
    worst: dict[str, float] = {}
    for kind, batches in kinds.items():
        rows = list(_rows(exported, batches))
        pairs = [_joined(rows[:2])] if exported.any_batch and len(rows) > 1 else []
        for inputs in [*rows, *pairs]:
            with torch.no_grad():
                ours = exported.module(*inputs.values())
            for name, value in exported.compare(ours, session(inputs)).items():
                worst[name] = value if value != value else max(worst.get(name, 0.0), value)
        counts[kind] = len(rows)
    return Comparison(counts, worst, exported.limits)


def _rows(exported: Exported, batches: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Tensor]]:
    """The first rows of ``batches``, each by itself."""
    left = exported.rows
    for batch in batches:
        inputs = exported.inputs(batch)
        for row in range(min(left, len(next(iter(inputs.values()))))):
            left -= 1
            yield {name: value[row : row + 1].contiguous() for name, value in inputs.items()}


def _joined(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
