"""The time as logs, events and results write it."""

from __future__ import annotations

from datetime import UTC, datetime


def now_utc() -> str:
    """``2026-11-21T09:00:00Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
