"""Settings that would keep a secret: every value of a configuration stands in files that are shown and handed on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from training.config.keys import Flat
from training.shown import without_secrets


def secret_settings(values: Flat, origins: Mapping[str, str]) -> dict[str, str]:
    """Key -> what is wrong, for the values with a user, password, query or connection options in an address."""
    found = {path: next(_with_secrets(value), None) for path, value in values.items()}
    return {path: _line(path, text, origins.get(path, "default")) for path, text in found.items() if text is not None}


def _with_secrets(value: Any) -> Iterator[str]:
    if isinstance(value, str) and without_secrets(value) != value:
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _with_secrets(str(name))
            yield from _with_secrets(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _with_secrets(inner)


def _line(path: str, text: str, origin: str) -> str:
    return (
        f"{origin}: {path} holds an address with a user, password, query or options in it (without them: "
        f"{without_secrets(text)}); settings are kept in config.yaml, checkpoints and trackers, so leave these out and "
        "give credentials by the environment variables or files of the address's own protocol"
    )
