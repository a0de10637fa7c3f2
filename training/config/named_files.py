"""Files that settings name and whose content decides the result, such as weights to start from.

A config says where they lie, which may differ from machine to machine; what they hold is told by their sha256, which
is part of a run's identity: another file under the same name makes another run.
"""

from __future__ import annotations

from pathlib import Path

from backend.errors import ConfigError
from backend.files import sha256_of
from training.config.keys import flat_values, keys_of
from training.runs.run import Run
from training.schemas.shared import RunConfig


def content_of_files(config: RunConfig) -> dict[str, str]:
    """The sha256 of each such file by the key that names it; those that are not there are left out."""
    values = flat_values(config)
    paths = {
        key: Path(values[key]) for key, leaf in keys_of(type(config)).leaves.items() if leaf.content and values[key]
    }
    return {key: sha256_of(path) for key, path in paths.items() if path.is_file()}


def check_same_files(run: Run, config: RunConfig) -> None:
    """Refuse to begin ``run`` with other files than it was made for; with a checkpoint it needs them no more.

    Raises:
        ConfigError: naming the key.
    """
    made_for = run.metadata.get("files_sha256") or {}
    for key, sha256 in content_of_files(config).items():
        if key in made_for and made_for[key] != sha256:
            raise ConfigError(
                f"{key}: {flat_values(config)[key]} is no longer the file that {run.run_id} was made for (sha256 "
                f"{made_for[key][:12]}, now {sha256[:12]}); bring that back, or begin anew with --resume never"
            )
