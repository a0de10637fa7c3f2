"""What an exported file says of itself, and the two formats that hold nothing but weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from backend.artifact import Artifact
from backend.errors import DiskError
from backend.files import replacing
from backend.weights import write_pth
from training.files import to_json
from training.runs.publish import pth_content
from training.runs.run import Run


def about(run: Run, artifact: Artifact) -> dict[str, str]:
    """Where the weights are from, and what is needed to use them; JSON where it is no plain text."""
    state: dict[str, Any] = artifact.state
    return {
        "run_id": run.run_id,
        "task": state["task"],
        "checkpoint": artifact.folder.name,
        "weights": state["weights"],
        "config_hash": state["config_hash"],
        "config": to_json(state["config"]),
        "classes": to_json(list(artifact.facts.get("classes", []))),
        "preprocessing": to_json(artifact.preprocessing),
        "facts": to_json(artifact.facts),
    }


def write_as_pth(run: Run, artifact: Artifact, path: Path) -> None:
    """As best_model.pth: weights, settings and preprocessing in plain types. Raises DiskError."""
    write_pth(path, pth_content(run, artifact.folder))


def write_as_safetensors(run: Run, artifact: Artifact, path: Path) -> None:
    """The weights, and `about` them as metadata. Raises DiskError."""
    try:
        with replacing(path) as temporary:
            save_file(
                {name: value.contiguous() for name, value in artifact.weights.items()}, temporary, about(run, artifact)
            )
            temporary.chmod(0o644)  # safetensors writes 0600
    except (OSError, SafetensorError) as error:
        raise DiskError(f"{path}: cannot be written ({error}); choose another --out") from error
