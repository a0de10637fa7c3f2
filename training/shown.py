"""What a log may show of an address: the place, never what opens it."""

from __future__ import annotations

import re

_USERINFO = re.compile(r"(?<=://)[^/\s'\"]*@")
_QUERY = re.compile(r"(://[^\s?#'\"]*)[?#][^\s'\"]*")
# An rclone connection string, `:s3,access_key_id=…:bucket` or `remote,option="…":path`: options may hold secrets.
_OPTIONS = re.compile(r"(?<![\w/])(:?[\w.+-]+)((?:,\w+(?:=(?:\"[^\"]*\"|'[^']*'|[^,:\s\"']*))?)+)(?=:)")


def without_secrets(text: str) -> str:
    """``text`` with user names, passwords, queries and connection options cut out of the addresses in it."""
    return _OPTIONS.sub(r"\1", _QUERY.sub(r"\1", _USERINFO.sub("", text)))
