"""`--resume RUN --set …`: which settings may change inside a run, and what changed."""

from __future__ import annotations

from typing import Any

from backend.errors import ConfigError
from training.config import LoadedConfig, load_config
from training.config_keys import flat_values, keys_of
from training.run import Run

# What may change when a run is extended by --resume RUN --set …; everything else would make it another experiment.
EXTENDABLE = {
    "training.epochs",
    "training.max_steps",
    "training.patience",
    "training.min_delta",
    "training.learning_rate",
    "training.schedule",
    "training.warmup_steps",
    "training.lr_factor",
    "training.lr_patience",
    "training.lr_step_epochs",
    "training.min_learning_rate",
}


def changes_of(run: Run, loaded: LoadedConfig) -> dict[str, list[Any]]:
    """Keys whose values differ from the run's own config.yaml: key -> [there, here]."""
    own = load_config(run.metadata["task"], preset_or_file=str(run.path("config.yaml"))).config
    old, new = flat_values(own), flat_values(loaded.config)
    return {key: [old[key], new[key]] for key in new if old[key] != new[key]}


def check_extension(run: Run, loaded: LoadedConfig) -> None:
    """Refuse to continue a run with settings that would make it another experiment.

    Raises:
        ConfigError: naming the keys.
    """
    leaves = keys_of(type(loaded.config)).leaves
    other = [key for key in changes_of(run, loaded) if key not in EXTENDABLE and not leaves[key].neutral]
    if other:
        raise ConfigError(
            f"--resume {run.run_id}: {', '.join(other)} cannot change inside a run; train a run of its own with "
            "--resume never, or start it from this one's weights with model.init_from"
        )
