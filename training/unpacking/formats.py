"""Which archive formats are read, by a file's name and by its first bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FORMATS: tuple[str, ...] = ("tar", "tar.gz", "tar.zst", "tar.bz2", "tar.xz", "zip")

_ENDINGS = {f".{name}": name for name in FORMATS} | {
    ".tgz": "tar.gz",
    ".tzst": "tar.zst",
    ".tbz2": "tar.bz2",
    ".txz": "tar.xz",
}
_MAGIC = (
    ("gz", re.compile(rb"\x1f\x8b")),
    ("zst", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL)),  # a frame, or a skippable one
    ("bz2", re.compile(rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)")),
    ("xz", re.compile(rb"\xfd7zXZ\x00")),
    ("zip", re.compile(rb"PK(\x03\x04|\x05\x06|\x07\x08)")),
    ("tar", re.compile(rb".{257}ustar(\x00|  \x00)", re.DOTALL)),
)
_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|!--|html|head|body|\?xml)", re.IGNORECASE)
HEAD_BYTES = 512


class ArchiveError(Exception):
    """An archive is damaged or holds what is not unpacked: the end of a line that begins with the archive's name."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file or a folder as an archive tells of it; nothing in it is checked yet.

    ``pieces`` are a file's bytes in order. A piece is valid until the next one is asked for.
    """

    name: str
    is_folder: bool
    size: int  # bytes
    pieces: Iterator[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class Contents:
    """An opened archive: its members in order, and how many bytes it says they have (None: not known before)."""

    members: Iterator[Member]
    expected_bytes: int | None


def format_of(name: str) -> str | None:
    """The format that a file's name or URL path ends with, such as ``tar.gz``; None when it is none of ours."""
    lower = name.lower()
    return next((found for ending, found in _ENDINGS.items() if lower.endswith(ending)), None)


def sniff(path: Path) -> str | None:
    """``gz``, ``zst``, ``bz2``, ``xz``, ``zip`` or ``tar`` by the first bytes of a file, else None.

    Raises OSError as it comes.
    """
    with path.open("rb") as file:
        return _kind(file.read(HEAD_BYTES))


def check_head(head: bytes, archive_format: str) -> None:
    """Raise ArchiveError when a file that begins with ``head`` cannot be of ``archive_format``."""
    expected = archive_format.removeprefix("tar.")
    found = _kind(head)
    if found == expected or (expected == "tar" and found is None and not _PAGE.match(head) and head):
        return  # tar of before 1988 has no magic; its checksums tell
    what = "is empty" if not head else f"begins like {found}" if found else "is no archive"
    if _PAGE.match(head):
        what = "is a web page (an error, a sign-in or a quota page), no archive"
    raise ArchiveError(f"{what}, expected {archive_format}; fetch it again, or correct its format")


def _kind(head: bytes) -> str | None:
    return next((kind for kind, magic in _MAGIC if magic.match(head)), None)
