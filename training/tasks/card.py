"""What a task says of its models in a model card: sentences made from the configuration, and the papers behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Reference:
    """A paper or book. ``more`` holds whatever else BibTeX knows: journal, volume, pages, doi, …"""

    key: str  # BibTeX's, such as shi2015convlstm
    short: str  # as it is cited, such as Shi et al. 2015
    kind: str  # article, inproceedings, book, misc
    author: str
    title: str
    year: int
    more: Mapping[str, str]

    def bibtex(self) -> str:
        """One BibTeX entry."""
        fields = {"author": self.author, "title": f"{{{self.title}}}", "year": str(self.year), **self.more}
        lines = [f"  {name} = {{{value}}}" for name, value in fields.items()]
        return f"@{self.kind}{{{self.key},\n" + ",\n".join(lines) + "\n}"


@dataclass(frozen=True)
class Card:
    """Only what holds for this configuration. Sentences of ``method`` are in the past tense, fit for a paper."""

    what: str = ""  # what the model does
    uses: Sequence[str] = ()
    limits: Sequence[str] = ()
    method: Sequence[str] = ()  # data, model and loss; the optimisation is told for all tasks alike
    references: Sequence[Reference] = ()

    def to_json(self) -> dict[str, Any]:
        """For the run's `card.json`."""
        return asdict(self)


def card_from(found: Mapping[str, Any]) -> Card:
    """The card that `Card.to_json` became; an empty one where it is not understood."""
    try:
        return Card(**{**found, "references": [Reference(**one) for one in found["references"]]})
    except (KeyError, TypeError):
        return Card()
