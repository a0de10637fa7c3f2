"""What `evaluate` scores: a checkpoint, or the predictions that were kept of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from backend.artifact import Artifact
from training.evaluation.predictions import read_facts


@dataclass(frozen=True)
class Subject:
    """A trained model as far as scoring needs it; without ``weights`` where only predictions are left."""

    origin: str  # for people
    checkpoint: str  # its name
    kind: str  # of its weights: "model" or "ema"
    config: Mapping[str, Any]
    facts: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    weights: Mapping[str, Tensor] | None

    @classmethod
    def of_artifact(cls, artifact: Artifact) -> Subject:
        """The model of a checkpoint."""
        state, name = artifact.state, artifact.folder.name
        return cls(
            origin=str(artifact.folder),
            checkpoint=name,
            kind=state["weights"],
            config=artifact.config,
            facts=artifact.facts,
            preprocessing=artifact.preprocessing,
            weights=artifact.weights,
        )

    @classmethod
    def of_predictions(cls, folder: Path) -> Subject:
        """The model that the predictions in ``folder`` were made by. Raises UsageError, BadDataError."""
        facts = read_facts(folder)
        return cls(
            origin=str(folder),
            checkpoint=facts["checkpoint"],
            kind=facts["weights"],
            config=facts["config"],
            facts=facts["facts"],
            preprocessing=facts["preprocessing"],
            weights=None,
        )

    def named(self) -> dict[str, Any]:
        """How a result names what was scored."""
        return {"checkpoint": self.checkpoint, "weights": self.kind}

    def record(self) -> dict[str, Any]:
        """What predictions keep of it, so that they can be scored without it."""
        return {"config": self.config, "facts": self.facts, "preprocessing": self.preprocessing}
