"""Configurations from Python, with the method names that the street-scene framework's documents use."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backend.errors import BadDataError, UsageError
from backend.files import write_atomic
from training.clock import now_utc
from training.config.as_yaml import dump_yaml
from training.config.compare import mismatch
from training.config.loading import config_hash, load_config, name_of_task
from training.registry.place import output_folder
from training.schemas.shared import RunConfig
from training.tasks import config_class
from training.yaml_core import write_yaml

_LOG = logging.getLogger(__name__)
_METADATA = "metadata.yaml"
_OF_CHECKPOINT = ("run_id", "task", "versions", "git")


class ConfigManager:
    """One complete, checked configuration, loaded as the commands load it: preset or file, then overrides.

    Args:
        config: a YAML file, such as a run's ``config.yaml``, or a preset's name; None is the preset `default`.
        overrides: ``["training.epochs=3"]`` or ``{"training.epochs": 3}``.
        task: needed where neither the file nor the default task tells it.
        run_name: what a run of it would be called.
        output_dir: where runs are kept; by default TRAIN_WORKER_OUTPUT_DIR, else ``model_output``.
        environ: variables to take settings from, as the commands do from their environment; by default none.

    Raises:
        ConfigError: with a line for each thing that is wrong.
    """

    def __init__(
        self,
        config: Path | str | None = None,
        overrides: Sequence[str] | Mapping[str, Any] = (),
        *,
        task: str | None = None,
        run_name: str | None = None,
        output_dir: Path | str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        named = None if config is None else str(config)
        sets = _as_sets(overrides)
        loaded = load_config(name_of_task(task, named), preset_or_file=named, sets=sets, environ=environ)
        own = None if loaded.preset or named is None or sets else Path(named).absolute().parent
        is_run = own is not None and (own / _METADATA).is_file()
        self.overrides = sets
        self.user_set = dict(loaded.user_set)
        self._place(loaded.config, own if is_run else None, run_name or loaded.preset or "run", output_dir)

    @classmethod
    def from_checkpoint(cls, path: Path | str, output_dir: Path | str | None = None) -> ConfigManager:
        """The configuration that a checkpoint was trained with; ``path`` as for `load_config_from_checkpoint`.

        Raises:
            BadDataError: the checkpoint is damaged or holds no configuration of this version.
        """
        content = cls.load_config_from_checkpoint(path)
        try:
            config = config_class(str(content.get("task"))).model_validate_json(json.dumps(content))
        except ValueError as error:
            raise BadDataError(f"{path}: its configuration is of another version ({_first_line(error)})") from None
        manager = cls.__new__(cls)
        manager.overrides, manager.user_set = [], {}
        manager._place(config, None, "run", output_dir)
        return manager

    def _place(self, config: RunConfig, run: Path | None, run_name: str, output_dir: Path | str | None) -> None:
        self.config = config
        self.run_name = run_name
        output = Path(output_dir) if output_dir is not None else output_folder(os.environ)
        stamp = datetime.now(UTC).strftime("%Y%m%d_%H%M%S")
        self._run_dir = run or output.absolute() / config.task / f"{stamp}_{run_name}"

    @property
    def run_dir(self) -> Path:
        """The run's folder; that of a run yet to come is not made."""
        return self._run_dir

    @property
    def run_id(self) -> str:
        """Of the run whose ``config.yaml`` was loaded, else the one that a run begun now would get."""
        return self.run_dir.name

    def get_config(self) -> dict[str, Any]:
        """Every setting, as nested dicts of JSON values."""
        return self.config.model_dump(mode="json")

    def get_config_hash(self) -> str:
        """The hash that runs, checkpoints and the registry hold: of every setting that can change the result."""
        return config_hash(self.config)

    def save_config(self, path: Path | str | None = None) -> Path:
        """Write the configuration as YAML, by default into ``run_dir``; `train --config` of it repeats the run."""
        file = self._file(path, "config.yaml")
        write_atomic(file, dump_yaml(self.config))
        return file

    def save_metadata(self, path: Path | str | None = None) -> Path:
        """Write what this is and what it would be trained with: hash, seed, overrides, versions, commit.

        Raises:
            UsageError: no ``path`` is named, or it is there already: a run's own record is never replaced.
        """
        from training.runs.provenance import git_state, versions

        if path is None:
            raise UsageError(f"save_metadata: name a file; {self.run_dir / _METADATA} is for the run itself to write")
        file = self._file(path, _METADATA)
        if file.exists():
            raise UsageError(f"{file}: is there already, and a run's record is never replaced; name another file")
        write_yaml(
            file,
            {
                "run_id": self.run_id,
                "run_name": self.run_name,
                "task": self.config.task,
                "config_hash": self.get_config_hash(),
                "seed": self.config.training.seed,
                "overrides": self.overrides,
                "timestamp": now_utc(),
                "versions": versions(),
                "git": git_state(),
            },
        )
        return file

    @staticmethod
    def load_config_from_checkpoint(path: Path | str) -> dict[str, Any]:
        """The configuration in a checkpoint: a ``.pth`` file, a ``step-…`` folder, or a run's best checkpoint.

        Raises:
            BadDataError: it is damaged, or holds none.
        """
        config: dict[str, Any] = _content(Path(path))["config"]
        return config

    @staticmethod
    def load_metadata_from_checkpoint(path: Path | str) -> dict[str, Any]:
        """Run id, task, versions, commit and config hash of a checkpoint, as far as it holds them.

        A ``.pth`` file has its `metrics` too; a checkpoint folder is written before its weights are validated.
        """
        content = _content(Path(path))
        published = content.get("metadata")
        own = published or {name: content[name] for name in _OF_CHECKPOINT if name in content}
        scored = {"metrics": content.get("metrics", {})} if published else {}
        return {**own, "config_hash": content.get("config_hash"), **scored}

    def verify_config_hash(self, checkpoint: Path | str, expected: str | None = None) -> bool:
        """Whether a checkpoint was trained with this configuration (or the one with the hash ``expected``).

        Says so in a warning of the log where it was not.
        """
        found, current = str(_content(Path(checkpoint)).get("config_hash")), expected or self.get_config_hash()
        if found == current:
            return True
        _LOG.warning(mismatch(found, current))
        return False

    def _file(self, path: Path | str | None, name: str) -> Path:
        file = Path(path) if path is not None else self.run_dir / name
        file.parent.mkdir(parents=True, exist_ok=True)
        return file


def _as_sets(overrides: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """``key=value`` as for ``--set``; JSON is YAML."""
    if isinstance(overrides, Mapping):
        return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    return list(overrides)


def _content(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, its hashes checked."""
    from backend.artifact import best_checkpoint, is_checkpoint, read_state, verify
    from backend.weights import read_pth

    if path.is_dir():
        folder = path if is_checkpoint(path) else best_checkpoint(path)
        verify(folder)
        content = read_state(folder)
    else:
        content = read_pth(path)
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        raise BadDataError(f"{path}: holds no configuration, so another program made it, or an older version of one")
    return content


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
