"""Categorical scores of one 2x2 contingency table.

Definitions and names follow Wilks, *Statistical Methods in the Atmospheric Sciences*, chapter on forecast
verification, and the WMO's Joint Working Group on Forecast Verification Research.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

DEFINITIONS = {
    "csi": "critical success index, hits / (hits + misses + false alarms); 1 is perfect",
    "pod": "probability of detection, hits / (hits + misses); 1 is perfect",
    "far": "false alarm ratio, false alarms / (hits + false alarms); 0 is perfect",
    "bias": "frequency bias, (hits + false alarms) / (hits + misses); 1 is perfect, above 1 forecasts too much",
    "hss": "Heidke skill score, 2 (hits x correct negatives - false alarms x misses) / ((hits + misses) x "
    "(misses + correct negatives) + (hits + false alarms) x (false alarms + correct negatives)); 1 is perfect, "
    "0 is no better than chance",
}


@dataclass(frozen=True, slots=True)
class Contingency:
    """Pixel counts of one event (a threshold reached or not), as Python integers: products never overflow."""

    hits: int
    misses: int
    false_alarms: int
    correct_negatives: int

    @classmethod
    def from_margins(cls, hits: int, forecast: int, observed: int, total: int) -> Contingency:
        """Counts from how often the event was both, forecast, observed, and looked at."""
        return cls(hits, observed - hits, forecast - hits, total - forecast - observed + hits)

    def __add__(self, other: Contingency) -> Contingency:
        """Pool two tables."""
        return Contingency(
            self.hits + other.hits,
            self.misses + other.misses,
            self.false_alarms + other.false_alarms,
            self.correct_negatives + other.correct_negatives,
        )

    @property
    def observed(self) -> int:
        """How often the event happened."""
        return self.hits + self.misses

    @property
    def forecast(self) -> int:
        """How often the event was forecast."""
        return self.hits + self.false_alarms

    def counts(self) -> dict[str, int]:
        """The four counts by name."""
        return asdict(self)

    def scores(self) -> dict[str, float]:
        """Every score of `DEFINITIONS` that is defined: one whose denominator is zero is left out."""
        a, b, c, d = self.hits, self.false_alarms, self.misses, self.correct_negatives
        fractions = {
            "csi": (a, a + b + c),
            "pod": (a, a + c),
            "far": (b, a + b),
            "bias": (a + b, a + c),
            "hss": (2 * (a * d - b * c), (a + c) * (c + d) + (a + b) * (b + d)),
        }
        return {name: above / below for name, (above, below) in fractions.items() if below}
