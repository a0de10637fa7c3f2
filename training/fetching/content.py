"""Whether what a source sent is the dataset's archive: size, sha256, beginning; and trust on first use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.clock import now_utc
from training.fetching.download import Received, SourceError, is_html
from training.fetching.manifest import Manifest, Source
from training.files import read_json, write_json
from training.unpacking.unpack import format_of, sniff

_OUTER = {"tar.gz": "gz", "tar.zst": "zst", "tar.bz2": "bz2", "tar.xz": "xz"}
_FORMATS = {outer: name for name, outer in _OUTER.items()}


class ChangedError(SourceError):
    """The content is another than the first one seen of this dataset."""


class FirstSeen:
    """The sha256 that was seen first of a dataset whose manifest gives none."""

    def __init__(self, downloads: Path, name: str) -> None:
        self.path = downloads / f"{name}.first-seen.json"
        self.known: dict[str, Any] = read_json(self.path) if self.path.exists() else {}

    @property
    def sha256(self) -> str | None:
        return self.known.get("sha256")

    def record(self, received: Received, source: Source) -> None:
        """Keep what is now trusted; only called with content that the manifest or the first time vouches for."""
        if self.sha256 != received.sha256:
            facts = {"sha256": received.sha256, "size": received.size, "source": source.label, "time": now_utc()}
            write_json(self.path, facts)
            self.known = facts


def check_content(manifest: Manifest, source: Source, received: Received, first_seen: FirstSeen) -> str:
    """The archive's format. Raises SourceError when it is not the dataset's archive."""
    with received.path.open("rb") as file:
        head = file.read(1024)
    if not head:
        raise SourceError("it is an empty file")
    if is_html(head):
        raise SourceError("it sends a web page (HTML) in place of the archive")
    if manifest.size not in (None, received.size):
        raise SourceError(f"it has {received.size:,} bytes, the manifest says {manifest.size:,}; deleted")
    if manifest.sha256 not in (None, received.sha256):
        raise SourceError(f"its sha256 is {received.sha256}, the manifest says {manifest.sha256}; deleted")
    found = archive_format(manifest, source, received.path)
    if manifest.sha256 is None and first_seen.sha256 not in (None, received.sha256):
        raise ChangedError(
            f"its sha256 is {received.sha256}, but {first_seen.sha256} was the first one seen "
            f"({first_seen.known.get('time')}); deleted"
        )
    return found


def archive_format(manifest: Manifest, source: Source, path: Path) -> str:
    """What the manifest says, else the source's name, else the beginning of the file, which must agree.

    Raises SourceError when it is no archive, or another.
    """
    outer = sniff(path)
    expected = manifest.format or format_of(source.file_name)
    if outer is None:
        raise SourceError(f"it is no {expected or 'archive that is known here (tar, tar.gz, tar.zst, …, zip)'}")
    if expected is not None and _OUTER.get(expected, expected) != outer:
        raise SourceError(f"it is no {expected} but begins like {outer}")
    return expected or _FORMATS.get(outer, outer)
