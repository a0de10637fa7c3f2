"""`evaluate --predictions … --set …`: kept predictions scored with other settings, and which may be other ones."""

from __future__ import annotations

from collections.abc import Sequence

from backend.errors import ConfigError
from training.config import with_sets
from training.config.compare import changes
from training.schemas.shared import EvaluationSection, RunConfig

_SECTION = "evaluation."
_OF_TRAINING = {f"{_SECTION}{name}" for name in EvaluationSection.model_fields}  # when and on how much to validate


def rescored(own: RunConfig, sets: Sequence[str]) -> RunConfig:
    """``own``, with which predictions were made, with the settings ``sets`` by which they are scored now.

    Raises:
        ConfigError: one of them is wrong, or is not about how predictions are scored.
    """
    new = with_sets(own, sets)
    known = [entry.partition("=")[0].strip() for entry in sets]
    other = [path for path in [*known, *changes(own, new)] if not path.startswith(_SECTION) or path in _OF_TRAINING]
    if other:
        raise ConfigError(
            f"--set {other[0]}: kept predictions are what they are; only how they are scored can change, by the "
            f"settings under evaluation that the task adds (not {', '.join(sorted(_OF_TRAINING))}). Train anew for "
            "the others"
        )
    return new
