"""Which trackers a configuration asks for, and what they need to work."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from backend.errors import ConfigError, UsageError
from training.reporting.trackers.tracker import Tracker

TRACKERS = ("mlflow", "wandb")
REQUIREMENTS = "training/requirements.trackers.txt"
_MODULES = {"mlflow": ("mlflow", "sqlalchemy", "alembic"), "wandb": ("wandb",)}
# Trackers tell the run folder's content and nothing of the machine; a server that is away is given up soon, since
# what it has missed follows later.
QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "WANDB_CONSOLE": "off",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
}


def asked_for(config: Any) -> list[str]:
    """Names of the trackers that a resolved configuration asks for."""
    tracking = config.tracking
    return [name for name, on in (("mlflow", tracking.mlflow), ("wandb", tracking.wandb != "off")) if on]


def make_tracker(name: str, folder: Path, wandb_mode: str = "off") -> Tracker:
    """The tracker ``name`` for the run in ``folder``, which lies in ``<output>/<task>/``.

    Where ``wandb_mode`` is off, WANDB_MODE decides. Raises UsageError for a name that is none.
    """
    if name == "mlflow":
        from training.reporting.trackers.mlflow_tracker import MlflowTracker

        return MlflowTracker(folder.parent.parent)
    if name == "wandb":
        from training.reporting.trackers.wandb_tracker import WandbTracker

        mode = wandb_mode if wandb_mode != "off" else os.environ.get("WANDB_MODE", "online")
        return WandbTracker("offline" if mode == "offline" else "online")
    raise UsageError(f"there is no tracker {name}; expected {' or '.join(TRACKERS)}")


def check_tracker(name: str, wandb_mode: str, environ: Mapping[str, str]) -> None:
    """Refuse what cannot work: a package that is not installed, or an account without a key.

    Raises:
        ConfigError: naming what to install or to set.
    """
    missing = [module for module in _MODULES[name] if find_spec(module) is None]
    if missing:
        raise ConfigError(
            f"{name} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed here; run "
            f"`python -m pip install --require-hashes -r {REQUIREMENTS}`, or leave it out with --set tracking.{name}="
            f"{'false' if name == 'mlflow' else 'off'}"
        )
    if name == "wandb" and wandb_mode != "offline" and not _has_key(environ):
        raise ConfigError(
            "wandb online needs an account's key; set WANDB_API_KEY in the environment, or keep the curves here with "
            "--set tracking.wandb=offline"
        )


def _has_key(environ: Mapping[str, str]) -> bool:
    if environ.get("WANDB_API_KEY") or environ.get("WANDB_API_KEY_FILE") or environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = Path(environ.get("NETRC") or Path.home() / ".netrc")
    try:
        return any("wandb" in host for host in netrc.netrc(path).hosts)
    except (OSError, netrc.NetrcParseError):
        return False
