"""`--resume RUN --set …`: which settings may change inside a run, and what changed."""

from __future__ import annotations

from typing import Any

from backend.artifact import checkpoints, read_state
from backend.errors import ConfigError
from training.config import LoadedConfig, load_config
from training.config.compare import changes
from training.config.keys import keys_of
from training.runs.run import Run
from training.tasks import task_class

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
    return changes(own, loaded.config)


def check_extension(run: Run, loaded: LoadedConfig) -> None:
    """Refuse to continue a run with settings that would make it another experiment, or shorter than it is.

    Raises:
        ConfigError: naming the keys.
    """
    _check_plan(run, loaded)
    leaves = keys_of(type(loaded.config)).leaves
    other = [key for key in changes_of(run, loaded) if key not in EXTENDABLE and not leaves[key].neutral]
    if other:
        raise ConfigError(
            f"--resume {run.run_id}: {', '.join(other)} cannot change inside a run; train a run of its own with "
            "--resume never, or start it from this one's weights with model.init_from"
        )


def _check_plan(run: Run, loaded: LoadedConfig) -> None:
    """What is done stays done: phases that are over keep their epochs, and the end is not put before now."""
    found = checkpoints(run.path("checkpoints"))
    if not found:
        return
    now = read_state(found[-1])["progress"]
    own = load_config(run.metadata["task"], preset_or_file=str(run.path("config.yaml"))).config
    before, after = (task_class(run.metadata["task"])(config).phases() for config in (own, loaded.config))
    limit = loaded.config.training.max_steps
    if limit is not None and limit < now["step"]:
        raise ConfigError(
            f"--resume {run.run_id}: training.max_steps is {limit}, but {now['step']} steps are done; give more"
        )
    lengths = [[phase.epochs for phase in plan[: now["phase"]]] for plan in (before, after)]
    if lengths[0] != lengths[1]:
        raise ConfigError(
            f"--resume {run.run_id}: training.epochs of {loaded.config.training.epochs} would change phases that are "
            f"over (they had {lengths[0]} epochs); train a run of its own with --resume never"
        )
    if after[now["phase"]].epochs <= now["epoch"]:
        raise ConfigError(
            f"--resume {run.run_id}: training.epochs is {loaded.config.training.epochs}, but epoch {now['epoch'] + 1} "
            f"of phase {after[now['phase']].name} is under way or done; give more"
        )
