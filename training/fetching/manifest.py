"""A dataset as a manifest: where its archive can be had, in which order, and how to know that it is the right one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, model_validator

from backend.errors import ConfigError
from training.files import digest
from training.schemas.shared import Section
from training.yaml_core import read_any_yaml

KINDS = ("gdrive", "https", "file", "rclone", "fsspec")
Format = Literal["tar", "tar.gz", "tar.zst", "tar.bz2", "tar.xz", "zip"]
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_ID = re.compile(r"[-\w]{10,}")
_ID_IN_PATH = re.compile(r"/d/([-\w]{10,})(?:/|$)")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_DRIVE_HOSTS = {"drive.google.com", "docs.google.com", "drive.usercontent.google.com"}


@dataclass(frozen=True)
class Source:
    """One place where the archive can be had."""

    kind: str  # one of KINDS
    address: str  # may hold credentials: never shown

    @property
    def label(self) -> str:
        """The source for people: without user, password, query and connection string."""
        shown = _shown(self.kind, self.address)
        return shown if "://" in shown else f"{self.kind} {shown}"

    @property
    def key(self) -> str:
        """A folder's name for what was downloaded from here."""
        return f"{self.kind}-{digest([self.kind, self.address])[:12]}"

    @property
    def file_name(self) -> str:
        """The archive's name as the address gives it; empty for Drive, whose ids say nothing."""
        if self.kind == "gdrive":
            return ""
        path = self.address if self.kind in ("file", "rclone") else urlsplit(self.address).path
        return re.split(r"[/:]", path)[-1]


def _shown(kind: str, address: str) -> str:
    if kind == "rclone":
        remote, colon, path = address.rpartition(":")
        return f"{remote.partition(',')[0]}{colon}{path}"
    if "://" not in address:
        return address
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class Limits(Section):
    """What unpacking may take at most; a guard against archives that were made to do harm."""

    total_bytes: Annotated[int, Field(gt=0)] | None = None
    file_bytes: Annotated[int, Field(gt=0)] | None = None
    members: int = Field(1_000_000, gt=0)
    ratio: float = Field(200.0, gt=1)


class Timeouts(Section):
    """Seconds: to connect, between two bytes, without progress of any kind, and for the whole fetch."""

    connect: float = Field(15.0, gt=0)
    read: float = Field(60.0, gt=0)
    stall: float = Field(120.0, gt=0)
    total: float = Field(12 * 3600.0, gt=0)


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("expected letters, digits, '.', '-' and '_', since it becomes a folder's name")
    return name


def _as_text(version: Any) -> Any:
    return str(version) if isinstance(version, int | float) and not isinstance(version, bool) else version


def _check_sha256(text: Any) -> Any:
    if not isinstance(text, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError("expected the 64 hexadecimal digits of a sha256 (in quotes when all of them are digits)")
    return text.lower()


def _source(given: Any) -> Source:
    if isinstance(given, Source):
        return given
    if not isinstance(given, Mapping) or len(given) != 1 or not isinstance(next(iter(given.values())), str):
        raise ValueError("expected one `kind: address`, such as `gdrive: ID` or `https: URL`")
    kind, address = next((str(kind), address.strip()) for kind, address in given.items())
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS, n=1)
        raise ValueError(
            f"there is no kind {kind}{f'; did you mean {near[0]}?' if near else ''} (kinds: {', '.join(KINDS)})"
        )
    if not address:
        raise ValueError(f"{kind} has no address")
    return Source(kind, _CHECKS[kind](address))


def _drive_id(address: str) -> str:
    """The file's id, also out of a share link. Raises ValueError for a folder's link and for anything else."""
    if _ID.fullmatch(address):
        return address
    parts = urlsplit(address)
    if parts.hostname in _DRIVE_HOSTS:
        if "/folders/" in parts.path:
            raise ValueError("this is a Drive folder's link; share one archive file and give its link or id")
        found = parse_qs(parts.query).get("id") or _ID_IN_PATH.findall(parts.path)
        if len(found) == 1 and _ID.fullmatch(found[0]):
            return str(found[0])
    raise ValueError("expected a Drive file's id (the part after /d/ in its share link) or its share link")


def _web_address(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError(f"{_shown('https', address)} is no https:// URL")
    return address


def _rclone_path(address: str) -> str:
    if ":" not in address or address.endswith(":") or address.startswith("-"):
        raise ValueError("expected remote:path, with a remote that `rclone listremotes` shows")
    return address


def _fsspec_url(address: str) -> str:
    if "://" not in address:
        raise ValueError("expected a URL such as s3://bucket/events.tar.zst")
    return address


def is_loopback(url: str) -> bool:
    """Whether ``url`` leads to this machine."""
    return urlsplit(url).hostname in _LOOPBACK


_CHECKS: dict[str, Callable[[str], str]] = {
    "gdrive": _drive_id,
    "https": _web_address,
    "file": str,
    "rclone": _rclone_path,
    "fsspec": _fsspec_url,
}


class Manifest(Section):
    """One dataset: its archive's sources in the order in which they are tried, and what the archive must be."""

    name: Annotated[str, AfterValidator(_check_name)]
    version: Annotated[str | None, BeforeValidator(_as_text)] = None
    license: str | None = None
    description: str | None = None
    sources: tuple[Annotated[Source, BeforeValidator(_source)], ...] = Field(min_length=1, strict=False)
    size: int | None = Field(None, gt=0)  # bytes of the archive
    unpacked_size: int | None = Field(None, gt=0)  # bytes, for the check of free space
    sha256: Annotated[str | None, BeforeValidator(lambda text: text if text is None else _check_sha256(text))] = None
    format: Format | None = None
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    keep_archive: bool = False

    @model_validator(mode="after")
    def _check_plain_http(self) -> Manifest:
        for number, source in enumerate(self.sources, 1):
            plain = source.kind == "https" and urlsplit(source.address).scheme == "http"
            if plain and not is_loopback(source.address) and self.sha256 is None:
                raise ValueError(
                    f"sources[{number}]: {source.label} is plain http, which anybody on the way can change; "
                    "give its sha256, or use https"
                )
        return self


def load_manifest(path: Path) -> Manifest:
    """The manifest in ``path``; its name is the file's stem unless it says another, and files are relative to it.

    Raises ConfigError with a line for each thing that is wrong, naming the file and the key.
    """
    if not path.is_file():
        raise ConfigError(f"data.manifest {path}: no such file; expected a dataset's manifest in YAML")
    content = read_any_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, such as `sources: [{{gdrive: ID}}]`")
    try:
        manifest = Manifest.model_validate({"name": path.stem, **content})
    except ValidationError as error:
        raise ConfigError(_told([f"{path}: {_line(one)}" for one in _problems(error)])) from None
    return manifest.model_copy(update={"sources": tuple(_from(path.parent, one) for one in manifest.sources)})


def drive_manifest(drive_id: str, name: str, origin: str) -> Manifest:
    """The dataset that is one Drive file. Raises ConfigError naming ``origin`` when ``drive_id`` is none."""
    try:
        return Manifest(name=name, sources=(Source("gdrive", _drive_id(drive_id.strip())),))
    except ValueError as error:
        raise ConfigError(f"{origin}: {error}") from None


def _from(folder: Path, source: Source) -> Source:
    return source if source.kind != "file" else Source("file", str(folder / Path(source.address).expanduser()))


def _told(problems: list[str]) -> str:
    return problems[0] if len(problems) == 1 else "\n  ".join([f"{len(problems)} things are wrong:", *problems])


def _problems(error: ValidationError) -> list[Any]:
    """Pydantic's errors, without the one that no source is left where each of them is told to be wrong."""
    found = error.errors(include_url=False)
    wrong_source = any(one["loc"][:1] == ("sources",) and len(one["loc"]) > 1 for one in found)
    return [one for one in found if not (wrong_source and one["type"] == "too_short")]


def _line(error: Any) -> str:
    """One pydantic error as `key: what is wrong`."""
    key = _key(error["loc"])
    if error["type"] == "extra_forbidden":
        return f"there is no key {key}" + _nearest(error["loc"])
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "too_short":
        return f"{key}: expected at least one"
    words = str(error["msg"]).removeprefix("Value error, ")
    return f"{key}: {words}" if key else words


def _key(loc: tuple[int | str, ...]) -> str:
    """``("sources", 0)`` as ``sources[1]``: people count from one."""
    return "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")


def _nearest(loc: tuple[int | str, ...]) -> str:
    sections: dict[str, type[BaseModel]] = {"limits": Limits, "timeouts": Timeouts}
    known = sections.get(str(loc[0]), Manifest) if len(loc) > 1 else Manifest
    near = get_close_matches(str(loc[-1]), known.model_fields, n=1)
    return f"; did you mean {near[0]}?" if near else f" (keys: {', '.join(known.model_fields)})"
