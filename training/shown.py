"""What a log may show of an address: the place, never what opens it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_USERINFO = re.compile(r"(?<=://)[^/\s'\"]*@")
_QUERY = re.compile(r"(://[^\s?#'\"]*)[?#][^\s'\"]*")
# An rclone connection string, `:s3,access_key_id=…:bucket` or `remote,option="…":path`: options may hold secrets.
_OPTIONS = re.compile(r"(?<![\w/])(:?[\w.+-]+)((?:,\w+(?:=(?:\"[^\"]*\"|'[^']*'|[^,:\s\"']*))?)+)(?=:)")


def without_secrets(text: str) -> str:
    """``text`` with user names, passwords, queries and connection options cut out of the addresses in it."""
    if "://" not in text and "," not in text:  # nearly every text: no address with secrets is without both
        return text
    return _OPTIONS.sub(r"\1", _QUERY.sub(r"\1", _USERINFO.sub("", text)))


def all_without_secrets(value: Any) -> Any:
    """The same for every text in ``value``, be it in lists, in mappings or one of their names."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {all_without_secrets(name): all_without_secrets(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [all_without_secrets(inner) for inner in value]
    return value
