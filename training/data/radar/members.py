"""Radar windows as the leak audit sees them."""

from __future__ import annotations

from collections.abc import Sequence as ListLike

import numpy as np

from training.data.prepared import PreparedCache
from training.data.radar.windows import Stretch, Windows, iso_time
from training.leaks.members import Member, short_hash


def members_of(
    cache: PreparedCache, stretches: ListLike[Stretch], windows: Windows, first_blocks: np.ndarray
) -> list[Member]:
    """A member for each window: its group is the unbroken stretch that it lies in, its content the frames' files."""
    extra, sources = cache.extra, cache.index["block_sources"]
    events = [extra["folders"][extra["folder_of"][sources[block]]] for block in first_blocks]
    groups = [f"{stretch.sequence.name} from {iso_time(stretch.times[0])}" for stretch in stretches]
    hashes = [short_hash(cache.index["sources"]["sha256"][source]) for source in sources]
    rows = zip(events, windows.stretch, windows.start.tolist(), windows.end.tolist(), first_blocks, strict=True)
    return [
        Member(
            f"{event}/{iso_time(start)}", groups[stretch], (start, end), tuple(hashes[first : first + windows.length])
        )
        for event, stretch, start, end, first in rows
    ]
