"""Goals of a configuration, such as ``test/csi_35: '>0.4'``, held against what was measured."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass

_COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True)
class Verdict:
    """One goal. ``reached`` is None where the metric was not measured."""

    name: str
    condition: str
    value: float | None
    reached: bool | None

    @property
    def word(self) -> str:
        """``reached``, ``missed`` or ``not known``."""
        return {True: "reached", False: "missed", None: "not known"}[self.reached]

    def line(self) -> str:
        """One line for people."""
        found = "not measured" if self.value is None else f"{self.value:.4g}"
        return f"goal {self.name} {self.condition}: {self.word} ({found})"


def judge(goals: Mapping[str, str], metrics: Mapping[str, float]) -> list[Verdict]:
    """A verdict for each goal."""
    return [_judge(name, condition, metrics.get(name)) for name, condition in goals.items()]


def _judge(name: str, condition: str, value: float | None) -> Verdict:
    match = re.fullmatch(r"\s*(>=|<=|>|<)\s*(\S+)\s*", condition)
    try:
        bound = float(match[2]) if match else None
    except ValueError:  # a file that was edited by hand
        bound = None
    if value is None or match is None or bound is None:
        return Verdict(name, condition, value, None)
    return Verdict(name, condition, value, bool(_COMPARISONS[match[1]](value, bound)))
