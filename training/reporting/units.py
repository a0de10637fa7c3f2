"""Numbers as people read them."""

from __future__ import annotations

import re

GIB = 1024**3


def duration(seconds: float) -> str:
    """``8 s``, ``1 min 05 s``, ``2 h 04 min``, ``3 d 04 h``: two units at most."""
    whole = max(0, round(seconds))
    minutes, s = divmod(whole, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days} d {h:02d} h"
    if hours:
        return f"{hours} h {m:02d} min"
    return f"{m} min {s:02d} s" if minutes else f"{s} s"


def size_in_words(count: int) -> str:
    """Bytes as ``512 B``, ``3.4 MB``, ``1.2 GB``: powers of 1000, as disks are sold and clouds bill."""
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def amount(count: int, unit: str) -> str:
    """A count of things, or of bytes where ``unit`` is B."""
    return size_in_words(count) if unit == "B" else f"{count:,}"


def fine_duration(seconds: float) -> str:
    """``12 ms``, ``1.9 s``, and from ten seconds on as `duration`."""
    if seconds >= 10:
        return duration(seconds)
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def hours(count: float) -> str:
    """``13.4``, ``0.08``, and ``less than 0.01`` for what is no cost worth a number."""
    if count < 0.01:
        return "less than 0.01"
    return f"{count:.2f}" if count < 10 else f"{count:,.1f}"


def times(count: int) -> str:
    """``once``, ``twice``, ``3 times``."""
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def percent(share: float) -> str:
    """``0.017`` as ``2 %``."""
    return f"{100 * share:.0f} %"


def significant(value: float) -> str:
    """Four significant digits, without an exponent between 0.0001 and 100,000."""
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:,.0f}"


def moment(iso: str) -> str:
    """``2026-11-21T09:00:00Z`` as ``2026-11-21 09:00:00 UTC``; anything else as it is."""
    return re.sub(r"\b(\d{4}-\d\d-\d\d)T(\d\d:\d\d(?::\d\d)?)Z", r"\1 \2 UTC", iso)
