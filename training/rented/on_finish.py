"""What becomes of a rented instance when its work is done: Vast.ai's API, with the key that each instance has.

The key opens this one instance only. It is sent nowhere but to the API, and never shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from backend.errors import ConfigError, SourceUnavailableError

API = "https://console.vast.ai"
NONE, STOP, DESTROY = "none", "stop", "destroy"
CHOICES = (NONE, STOP, DESTROY)
_TRIES = 6
_TIMEOUT_SECONDS = (10, 30)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class InstanceError(SourceUnavailableError):
    """The instance could not be stopped or destroyed: it goes on costing."""


@dataclass(frozen=True)
class Instance:
    """The rented machine that this process runs on."""

    number: str
    key: str = field(repr=False)
    api: str = API

    def end(self, action: str, pause: Callable[[float], None] = time.sleep) -> None:
        """Stop or destroy it, trying for about a minute.

        Raises:
            InstanceError: the API refuses or cannot be reached.
        """
        reason = ""
        for attempt in range(_TRIES):
            if attempt:
                pause(min(2.0 ** (attempt - 1), 30.0))
            reason, again = self._ask(action)
            if not reason:
                return
            if not again:
                break
        raise InstanceError(
            f"instance {self.number} could not be {_PAST[action]} ({reason}) and GOES ON COSTING; everything is "
            f"synced: {action} it in the console, or run the same command again"
        )

    def _ask(self, action: str) -> tuple[str, bool]:
        """Why it failed ("" for success), and whether another try may help."""
        import requests

        url = f"{self.api}/api/v0/instances/{self.number}/"
        method, body = ("PUT", {"state": "stopped"}) if action == STOP else ("DELETE", None)
        try:
            answer = requests.request(
                method,
                url,
                json=body,
                headers={"Authorization": f"Bearer {self.key}"},
                timeout=_TIMEOUT_SECONDS,
                allow_redirects=False,  # the key goes to this host only
            )
        except requests.RequestException as error:
            return f"{self.api} cannot be reached: {type(error).__name__}", True
        if answer.status_code == 200 and _succeeded(answer):
            return "", False
        passes = answer.status_code in (200, 408, 429) or answer.status_code >= 500
        return f"the API answers {answer.status_code}", passes


_PAST = {STOP: "stopped", DESTROY: "destroyed"}


def instance_for(action: str, sync_to: str | None, environ: Mapping[str, str]) -> Instance | None:
    """The instance that ``--on-finish action`` is about; None for `none`.

    Raises:
        ConfigError: nothing would keep the results, or this is no Vast.ai instance.
    """
    if action not in CHOICES:
        raise ConfigError(f"--on-finish {action}: expected one of {', '.join(CHOICES)}")
    if action == NONE:
        return None
    if sync_to is None:
        raise ConfigError(f"--on-finish {action} needs --sync-to: the results would be lost with the machine")
    number, key = environ.get("CONTAINER_ID", ""), environ.get("CONTAINER_API_KEY", "")
    missing = [name for name, value in (("CONTAINER_ID", number), ("CONTAINER_API_KEY", key)) if not value]
    if missing:
        raise ConfigError(
            f"--on-finish {action}: {' and '.join(missing)} not set, so this is no Vast.ai instance, or a session that "
            "does not see its variables (docker/vast/README.md says how to start there)"
        )
    if not number.isascii() or not number.isdecimal():
        raise ConfigError(f"--on-finish {action}: CONTAINER_ID is {number!r}, expected the instance's number")
    return Instance(number, key, _api(environ.get("VAST_API_URL") or API))


def _api(url: str) -> str:
    """The real API, or one on this machine for trying things out: the key goes nowhere else."""
    parts = urlsplit(url)
    if url.rstrip("/") == API or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return url.rstrip("/")
    raise ConfigError(f"VAST_API_URL: expected {API}, or http:// on this machine (127.0.0.1)")


def _succeeded(answer: Any) -> bool:
    try:
        return bool(answer.json().get("success", True))
    except (ValueError, AttributeError):
        return False
