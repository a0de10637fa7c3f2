"""Archives that are evil, or odd: one clear line each, and not a byte outside the target or left in it."""

from __future__ import annotations

import io
import re
import stat
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.errors import BadDataError, DiskError
from tests.unpacking.archives import END, FILES, PACK, Bench, member, packed, pax, raw, zip_of
from training.unpacking import durable
from training.unpacking import limits as unpacking_limits
from training.unpacking.formats import ArchiveError
from training.unpacking.paths import Paths, checked_parts
from training.unpacking.unpack import FORMATS, Limits, is_complete, unpack

LONG = "n" * 256


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(durable, "_sync_filesystem", lambda descriptor: None)
    return Bench(tmp_path)


EVIL_NAMES = {
    "/etc/cron.d/x": "absolute",
    "//x": "absolute",
    "../x": r"'\.\.'",
    "a/../../x": r"'\.\.'",
    "a/b/..": r"'\.\.'",
    "a/../b": r"'\.\.'",
    "C:x": "drive",
    "c:/x": "drive",
    "a\\b": "backslash",
    "..\\x": "backslash",
    "a\nb": "control character",
    "\x1b[2J": "control character",
    f"a/{LONG}/x": "256 bytes, more than 255",
    "é" * 128: "256 bytes, more than 255",
    "/".join(["deep"] * 500): "longer than 2048",
}


@pytest.mark.parametrize(("name", "why"), EVIL_NAMES.items())
def test_evil_names(bench: Bench, name: str, why: str) -> None:
    good = member("good", b"g")
    for tar in (
        member(name, b"x"),
        member(name, kind=tarfile.DIRTYPE),
        pax(("path", name.encode())) + member("x", b"x"),
    ):
        assert_matches(bench.refusal(good + tar + END), "radar.tar: the member name", why)
    for entry in (name, f"{name}/"):
        content = b"" if entry.endswith("/") else b"x"
        assert_matches(
            bench.refusal(zip_of([("good", b"g"), (entry, content)]), "zip"), "radar.zip: the member name", why
        )


def assert_matches(line: str, *parts: str) -> None:
    for part in parts:
        assert re.search(part, line), f"{part!r} is not in {line!r}"


def test_empty_and_nul_names(bench: Bench) -> None:
    assert "is empty" in bench.refusal(member("", b"x") + END)
    assert "is empty" in bench.refusal(pax(("path", b"")) + member("x", b"x") + END)
    assert "NUL" in bench.refusal(pax(("path", b"a\0b")) + member("x", b"x") + END)
    data = zip_of([("aXb", b"x")]).replace(b"aXb", b"a\0b")
    assert "NUL" in bench.refusal(data, "zip")


def test_names_that_are_not_utf8(bench: Bench) -> None:
    assert "not UTF-8" in bench.refusal(member("caf\udce9.nc", b"x") + END)


def test_a_file_with_a_folders_name(bench: Bench) -> None:
    assert "folder's name" in bench.refusal(member("a/b/", b"x") + END)
    assert "folder's name" in bench.refusal(member(".", b"x") + END)


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ("a/x", "a/x", "there twice"),
        ("a/x", "a/./x", "there twice"),
        ("a/x", "a/X", "there twice"),
        ("caf\u00e9", "cafe\u0301", "there twice"),
        ("stra\u00dfe", "STRASSE", "there twice"),
        ("a/x", "A/y", "case or Unicode form alone"),
        ("a", "a/x", "both a file and a folder"),
        ("a/x", "a", "both a file and a folder"),
        ("a/b/x", "A/B", "case or Unicode|both a file"),
    ],
)
@pytest.mark.parametrize("archive_format", ["tar", "zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_mean_one_place(bench: Bench, archive_format: str, first: str, second: str, why: str) -> None:
    files = [(first, b"1"), (second, b"2")]
    data = zip_of(files) if archive_format == "zip" else b"".join(member(*file) for file in files) + END
    assert_matches(bench.refusal(data, archive_format), why)


def test_a_folder_in_the_place_of_the_record(bench: Bench) -> None:
    bench.unpack(member(".complete.json/x", b"1") + member("x", b"x") + END)
    assert is_complete(bench.target) is not None


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a named pipe"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
        (b"M", "another volume"),
        (b"V", "unknown type 'V'"),
        (b"D", "unknown type 'D'"),
        (b"\xff", "unknown type"),
    ],
)
def test_members_that_are_neither_file_nor_folder(bench: Bench, kind: bytes, what: str) -> None:
    for link in ("/etc/passwd", "good"):
        line = bench.refusal(member("good", b"g") + member("evil", b"", kind, link) + END)
        assert f"the member 'evil' is {what}" in line or what in line
        assert "only files and folders" in line
    line = bench.refusal(raw(b"K", b"/etc/passwd\0") + member("evil", b"", kind, "x") + END)
    assert "only files and folders" in line


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK, stat.S_IFDIR])
def test_zip_members_that_are_neither_file_nor_folder(bench: Bench, mode: int) -> None:
    info = zipfile.ZipInfo("evil")
    info.external_attr = (mode | 0o777) << 16
    line = bench.refusal(zip_of([(info, b"/etc/passwd")]), "zip")
    assert ("a symbolic link" if mode == stat.S_IFLNK else "neither a file nor a folder") in line


def test_sparse_files_of_every_kind(bench: Bench) -> None:
    for key in ("GNU.sparse.map", "GNU.sparse.major", "GNU.sparse.size", "SCHILY.realsize", "SUN.holesdata"):
        assert "sparse" in bench.refusal(pax((key, b"1")) + member("x", b"x") + END)


def test_headers_that_would_fill_the_memory_or_lead_astray(bench: Bench) -> None:
    for kind in (b"x", b"g", b"L", b"K"):
        line = bench.refusal(raw(kind, b"", size=1 << 33) + member("x", b"x") + END)
        assert "a tar header of 8,589,934,592 bytes, more than 1,048,576" in line
    assert "one path or size" in bench.refusal(pax(("path", b"a"), kind=tarfile.XGLTYPE) + member("x", b"x") + END)
    assert "one path or size" in bench.refusal(pax(("size", b"9"), kind=tarfile.XGLTYPE) + member("x", b"x") + END)
    for size in (b"-512", b"1e3", b"", b"9" * 30, b" 1", "１".encode()):
        assert "no number" in bench.refusal(pax(("size", size)) + member("x", b"x") + END)
    for data in (b"9 a=bc\n", b"0 a=b\n", b"99 a=b\n", b"5 a=b", b"no record", b"6 a=b\n\0", b"7 a=bc\n9"):
        assert "damaged pax header" in bench.refusal(raw(b"x", data) + member("x", b"x") + END)


@pytest.mark.parametrize("size", [-1, -512, -(1 << 40)])
def test_sizes_below_zero(bench: Bench, size: int) -> None:
    for kind in (tarfile.REGTYPE, tarfile.DIRTYPE, b"x", b"L"):
        header = member("x", b"", kind, size=size)
        assert "size below zero" in bench.refusal(member("a", b"a") + header + END)


def test_a_folder_with_content(bench: Bench) -> None:
    assert "bytes of content" in bench.refusal(member("d", b"x", tarfile.DIRTYPE) + END)
    info = zipfile.ZipInfo("d/")
    assert "bytes of content" in bench.refusal(zip_of([(info, b"x")]), "zip")


def test_an_archive_without_a_file(bench: Bench) -> None:
    for archive_format in FORMATS:
        assert "holds no file" in bench.refusal(packed({}, archive_format), archive_format)
    assert "holds no file" in bench.refusal(member("d", kind=tarfile.DIRTYPE) + member("._x", b"x") + END)


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("archive_format", FORMATS)
def test_each_limit(bench: Bench, archive_format: str) -> None:
    data = packed({"a/x": b"x" * 10, "a/b/y": b"y" * 30}, archive_format)
    for limits, name in (
        (Limits(total_bytes=39), "'total_bytes'"),
        (Limits(file_bytes=29), "'file_bytes'"),
        (Limits(members=3), "'members'"),
    ):
        assert name in bench.refusal(data, archive_format, limits=limits)


def test_folders_in_paths_count_as_members(bench: Bench) -> None:
    tar = b"".join(member("/".join(f"{n}{d}" for d in range(30)), b"x") for n in range(4)) + END
    assert "more than 100 files and folders" in bench.refusal(tar, limits=Limits(members=100))


@pytest.mark.parametrize("archive_format", ["tar.gz", "tar.zst", "tar.bz2", "tar.xz", "zip"])
def test_bombs(bench: Bench, archive_format: str) -> None:
    data = packed({"x": b"x", "bomb": bytes(30_000_000)}, archive_format)
    assert "limit 'ratio'" in bench.refusal(data, archive_format)
    bench.unpack(data, archive_format, Limits(ratio=1e6))


@pytest.mark.parametrize("archive_format", ["tar.gz", "tar.zst", "tar.bz2", "tar.xz"])
def test_bombs_that_are_no_files(bench: Bench, archive_format: str) -> None:
    pack = PACK[archive_format]
    for tar in (
        member("x", b"x") + END + bytes(30_000_000),
        (pax(("comment", b"c" * 900_000), kind=tarfile.XGLTYPE) * 40) + member("x", b"x") + END,
        raw(b"L", bytes(1_000_000)) * 40 + member("x", b"x") + END,
        member("._x", bytes(30_000_000)) + member("x", b"x") + END,
    ):
        assert "limit 'ratio'" in bench.refusal(pack(tar), archive_format)


def test_a_zip_whose_members_share_their_bytes(bench: Bench) -> None:
    data = zip_of([("a", bytes(5_000_000)), ("b", bytes(5_000_000))])
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        first, second = archive.infolist()
        table = archive.start_dir
    entry = data.index(b"PK\x01\x02", table + 4)
    offset = first.header_offset.to_bytes(4, "little")
    evil = data[: entry + 42] + offset + data[entry + 46 :]
    assert second.header_offset != first.header_offset
    assert "overlaps" in bench.refusal(evil, "zip", limits=Limits(ratio=1e9))


def test_a_zip_that_lies_about_sizes(bench: Bench) -> None:
    data = zip_of([("a", b"a" * 1000)])
    table = data.index(b"PK\x01\x02")
    for claimed in (0, 10, 999, 1001, 1 << 30):
        evil = bytearray(data)
        evil[table + 24 : table + 28] = claimed.to_bytes(4, "little")
        line = bench.refusal(bytes(evil), "zip", limits=Limits(ratio=1e9))
        assert "damaged" in line or "fewer bytes" in line


def test_zip_members_that_are_encrypted_or_packed_oddly(bench: Bench) -> None:
    data = bytearray(zip_of([("a", b"a" * 100)]))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in bench.refusal(bytes(data), "zip")
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        line = bench.refusal(zip_of([("a", b"a" * 100)], method), "zip")
        assert f"packed by method {method}" in line
    assert "two different sizes" in bench.refusal(two_sizes(), "zip")


def two_sizes() -> bytes:
    data = bytearray(zip_of([("a", b"a" * 100)], zipfile.ZIP_STORED))
    table = data.index(b"PK\x01\x02")
    data[table + 24 : table + 28] = (50).to_bytes(4, "little")
    return bytes(data)


def test_a_zip_whose_table_is_too_large_for_its_members(bench: Bench) -> None:
    data = zip_of([(f"{n:0250}", b"") for n in range(5000)])
    assert "table of contents" in bench.refusal(data, "zip", limits=Limits(members=10))


def test_what_the_disk_cannot_take_is_refused_before_a_byte_is_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking_limits, "_free_bytes", lambda folder: 50_000)
    files = {"x": bytes(100_000)}
    for limits in (Limits(), Limits(total_bytes=1 << 40)):
        for archive_format in ("zip", "tar"):
            line = bench.refusal(packed(files, archive_format), archive_format, DiskError, limits=limits)
            assert_matches(line, "needs 0.1 MB or more, and the disk has 50,000 bytes to give")
    assert "needs 100,000" not in bench.refusal(packed(files, "tar.zst"), "tar.zst", DiskError)


# --- not an archive --------------------------------------------------------------------------------------------------

PAGE = b"\n<!DOCTYPE html><html><title>Quota exceeded</title></html>" * 20


@pytest.mark.parametrize("archive_format", FORMATS)
def test_what_is_no_archive(bench: Bench, archive_format: str) -> None:
    assert "is a web page" in bench.refusal(PAGE, archive_format)
    assert f"is empty, expected {archive_format}" in bench.refusal(b"", archive_format)
    assert bench.refusal(b"CDF\x01" + bytes(range(256)) * 8, archive_format)
    other = "tar.xz" if archive_format != "tar.xz" else "tar.gz"
    line = bench.refusal(packed(FILES, other), archive_format)
    assert f"begins like {other[4:]}, expected {archive_format}" in line


def test_an_unknown_format_and_a_missing_archive(bench: Bench, tmp_path: Path) -> None:
    assert "the format 'rar' is not known; expected one of tar, tar.gz" in bench.refusal(b"", "tar", format="rar")
    with pytest.raises(DiskError, match=r"missing\.tar: cannot be read \(No such file"):
        unpack(
            tmp_path / "missing.tar",
            bench.target,
            format="tar",
            limits=Limits(),
            record={},
            progress=lambda *words: None,
            check_stop=lambda: None,
        )
    assert bench.left_behind() == []


# --- names of every kind ---------------------------------------------------------------------------------------------

PART = st.one_of(
    st.sampled_from(["..", ".", "", "a", "A", "b", "é", "e\u0301", "._x", "\0", "C:", "con", " ", "__MACOSX"]),
    st.text(min_size=0, max_size=6),
)
NAME = st.lists(PART, min_size=0, max_size=5).map("/".join)


@given(NAME, st.booleans())
@settings(max_examples=500, deadline=None)
def test_whatever_the_name_it_stays_below_the_target(name: str, is_folder: bool) -> None:
    try:
        parts = checked_parts(name, is_folder)
    except ArchiveError:
        return
    assert not any(part in ("", ".", "..") or "/" in part or "\0" in part for part in parts)
    assert parts or is_folder
    root = PurePosixPath("/target")
    assert root.joinpath(*parts).is_relative_to(root)
    assert [part for part in PurePosixPath(name).parts if part != "."] == list(parts)


@given(st.lists(st.tuples(NAME, st.booleans()), max_size=8))
@settings(max_examples=300, deadline=None)
def test_paths_taken_never_collide(names: list[tuple[str, bool]]) -> None:
    paths, made, files = Paths(), set[str](), set[str]()
    for name, is_folder in names:
        try:
            parts = checked_parts(name, is_folder)
            fresh = paths.add_folder(parts) if is_folder else paths.add_file(parts)
        except ArchiveError:
            continue
        for path in fresh:
            assert path not in made | files
            assert "/".join(path.split("/")[:-1]) in made | {""}
            made.add(path)
        if not is_folder:
            assert "/".join(parts) not in made | files
            files.add("/".join(parts))
        else:
            assert "/".join(parts) in made | {""}
    assert len({path.casefold() for path in made | files}) == len(made | files)


@given(names=st.lists(NAME, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_archive_nothing_appears_outside(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    bench = Bench(tmp_path_factory.mktemp("box"))
    tar = b"".join(pax(("path", name.encode("utf-8", "replace"))) + member("x", b"x") for name in names) + END
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "_sync_filesystem", lambda descriptor: None)
        try:
            bench.unpack(tar)
        except BadDataError:
            assert bench.left_behind() == []
        else:
            assert all(path == "sets/radar" or path.startswith("sets/radar/") for path in bench.left_behind())
