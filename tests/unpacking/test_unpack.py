"""Archives that are good: everything comes out, once, whole, and told."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import struct
import subprocess
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest

from backend.errors import BadDataError, DiskError
from tests.unpacking.archives import (
    END,
    FILES,
    PACK,
    Bench,
    content_of,
    member,
    packed,
    padded,
    pax,
    raw,
    tar_of,
    without_programs,
    zip_of,
)
from training.unpacking.unpack import FORMATS, Limits, Unpacked, format_of, is_complete, sniff, sweep


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize(
    ("archive_format", "program"), [("tar.gz", "pigz"), ("tar.zst", "zstd"), *((name, None) for name in FORMATS)]
)
def test_every_format(bench: Bench, archive_format: str, program: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if program is None:
        without_programs(monkeypatch)
    elif not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    size = sum(map(len, FILES.values()))
    assert bench.unpack(packed(FILES, archive_format), archive_format) == Unpacked(len(FILES), size, 0)
    assert content_of(bench.target) == FILES
    assert is_complete(bench.target) == {"sha256": "1" * 64, "files": len(FILES), "bytes": size}
    assert [path.name for path in bench.target.parent.iterdir()] == ["radar"]


@pytest.mark.parametrize("layout", ["--format=gnu", "--format=pax", "--format=ustar", "--format=v7", "--format=oldgnu"])
def test_what_gnu_tar_packs(bench: Bench, tmp_path: Path, layout: str) -> None:
    source = tmp_path / "source"
    names = ["top/x.nc"] if "v7" in layout else ["top/x.nc", f"{'d' * 90}/{'e' * 60}.nc"]
    names += [f"{'l' * 200}/{'m' * 200}.nc"] if layout in ("--format=gnu", "--format=pax") else []
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(name.encode() * 700)
    (source / "top" / "empty").mkdir()
    data = subprocess.run(["tar", layout, "-C", source, "-cf-", "."], capture_output=True, check=True).stdout
    shutil.move(source, tmp_path.parent / f"{tmp_path.name}-source")
    assert bench.unpack(data).files == len(names)
    assert content_of(bench.target) == {name: name.encode() * 700 for name in names}
    assert (bench.target / "top" / "empty").is_dir()


def test_modes_are_fixed_and_times_and_owners_are_not_taken(bench: Bench) -> None:
    before = os.umask(0o077)
    try:
        tar = member("d/", kind=tarfile.DIRTYPE, mode=0o2777) + member("d/f", b"x", mode=0o4777, uid=12345, mtime=1)
        bench.unpack(tar + member("implied/f", b"x", mode=0) + END)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [bench.target, *bench.target.rglob("*")]}
    assert modes == {"radar": 0o755, "d": 0o755, "implied": 0o755, "f": 0o644, ".complete.json": 0o644}
    assert (bench.target / "d" / "f").stat().st_uid == os.getuid()
    assert (bench.target / "d" / "f").stat().st_mtime > 1e9


def test_a_single_top_folder_is_kept_and_the_target_itself_may_be_a_member(bench: Bench) -> None:
    bench.unpack(member("./", kind=tarfile.DIRTYPE) + member("./only/./one//x.nc", b"x") + END)
    assert content_of(bench.target) == {"only/one/x.nc": b"x"}


def test_folders_may_be_named_again_and_without_a_header_of_their_own(bench: Bench) -> None:
    folder = member("a/b", kind=tarfile.DIRTYPE)
    bench.unpack(member("a/b/x", b"x") + folder + folder + member("old/", kind=tarfile.AREGTYPE) + END)
    assert content_of(bench.target) == {"a/b/x": b"x"}
    assert (bench.target / "old").is_dir()


def test_what_macos_adds_and_an_earlier_record_are_left_out_and_told(bench: Bench) -> None:
    shadows = {"__MACOSX/._x.nc": b"s", "deep/._x.nc": b"s" * 70_000, ".complete.json": b'{"files": 9, "bytes": 9}'}
    for archive_format in ("tar.gz", "zip"):
        unpacked = bench.unpack(packed({**shadows, "deep/x.nc": b"x" * 9}, archive_format), archive_format)
        assert unpacked == Unpacked(1, 9, skipped=3)
        assert content_of(bench.target) == {"deep/x.nc": b"x" * 9}
        assert is_complete(bench.target) == {"sha256": "1" * 64, "files": 1, "bytes": 9}
        shutil.rmtree(bench.target)


def test_long_and_foreign_names(bench: Bench) -> None:
    long = "/".join(["x" * 250] * 4)
    tar = pax(("path", f"{long}/pax".encode()), ("mtime", b"1.5")) + member("short", b"pax")
    tar += raw(b"L", f"{long}/gnu".encode() + b"\0") + member("short", b"gnu")
    tar += pax(("comment", b"abc"), kind=tarfile.XGLTYPE)  # what git archive writes
    tar += pax(("hdrcharset", b"BINARY"), ("path", "日本語.nc".encode())) + member("short", b"jp")
    tar += pax(("SCHILY.xattr.user.x", b"\xff\0\n=\xfe")) + member("attributes", b"a") + END
    bench.unpack(tar)
    found = {f"{long}/pax": b"pax", f"{long}/gnu": b"gnu", "日本語.nc": b"jp", "attributes": b"a"}
    assert content_of(bench.target) == found


def test_a_size_beyond_the_octal_field_is_taken_from_pax(bench: Bench) -> None:
    tar = pax(("size", b"3")) + member("x", b"", size=0) + padded(b"abc") + member("y", b"y") + END
    bench.unpack(tar)
    assert content_of(bench.target) == {"x": b"abc", "y": b"y"}


@pytest.mark.parametrize("programs", [True, False])
@pytest.mark.parametrize("archive_format", ["tar.gz", "tar.zst", "tar.bz2", "tar.xz"])
def test_several_streams_one_after_another_are_one_archive(
    bench: Bench, archive_format: str, programs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not programs:
        without_programs(monkeypatch)
    tar = tar_of(FILES)
    cuts = [0, 1, 700, 100_000, len(tar)]
    parts = [PACK[archive_format](tar[a:b]) for a, b in pairwise(cuts)]
    bench.unpack(b"".join(parts), archive_format)
    assert content_of(bench.target) == FILES


@pytest.mark.parametrize("programs", [True, False])
def test_zeros_after_gzip_data_are_padding(bench: Bench, programs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not programs:
        without_programs(monkeypatch)
    bench.unpack(packed(FILES, "tar.gz") + bytes(1_000_000), "tar.gz")
    assert content_of(bench.target) == FILES


@pytest.mark.parametrize("programs", [True, False])
def test_skippable_zstd_frames(bench: Bench, programs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not programs:
        without_programs(monkeypatch)
    skippable = struct.pack("<II", 0x184D2A51, 5) + b"index"
    data = skippable + packed(FILES, "tar.zst") + skippable
    assert sniff(bench.write(data)) == "zst"
    bench.unpack(data, "tar.zst")
    assert content_of(bench.target) == FILES


def test_zip_that_was_written_as_a_stream_and_one_with_64_bit_sizes(bench: Bench) -> None:
    class OneWay(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise io.UnsupportedOperation

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation

    for buffer, large in ((OneWay(), False), (io.BytesIO(), True)):
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.comment = b"" if large else b"made elsewhere"
            archive.mkdir("empty")
            for name, content in FILES.items():
                with archive.open(name, "w", force_zip64=large) as file:
                    file.write(content)
        bench.unpack(buffer.getvalue(), "zip")
        assert content_of(bench.target) == FILES
        assert (bench.target / "empty").is_dir()
        shutil.rmtree(bench.target)


def test_progress_rises_to_the_archives_size_and_ends_there_once(bench: Bench) -> None:
    for archive_format in FORMATS:
        told: list[tuple[str, int, int]] = []
        data = packed({f"{n}": os.urandom(600_000) for n in range(5)}, archive_format)
        bench.unpack(data, archive_format, progress=lambda *words: told.append(words))  # noqa: B023
        assert {(what, total) for what, _, total in told} == {(f"unpacking radar.{archive_format}", len(data))}
        done = [count for _, count, _ in told]
        assert done == sorted(done)
        assert done.count(len(data)) == 1 and done[-1] == len(data)
        assert len(set(done)) > 2
        shutil.rmtree(bench.target)


def test_options_in_the_environment_do_not_reach_the_program(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("pigz"):
        pytest.skip("pigz is not installed")
    monkeypatch.setenv("PIGZ", "--list")
    monkeypatch.setenv("GZIP", "--list")
    bench.unpack(packed(FILES, "tar.gz"), "tar.gz")
    assert content_of(bench.target) == FILES


# --- what is there already ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_a_target_that_is_there_is_left_alone(bench: Bench, make: object) -> None:
    bench.target.parent.mkdir()
    make(bench.target)  # type: ignore[operator]
    with pytest.raises(BadDataError, match="is there already"):
        bench.unpack(tar_of(FILES))
    assert bench.left_behind() == ["sets/radar"]


@pytest.mark.parametrize(
    "text",
    [None, "", "{", "[]", "3", '{"files": 1}', '{"files": "1", "bytes": 2}', "\x00", '{"files": null, "bytes": 1}'],
)
def test_only_a_whole_record_makes_a_dataset_whole(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / ".complete.json").write_text(text)
    assert is_complete(tmp_path) is None
    assert is_complete(tmp_path / "missing") is None
    (tmp_path / ".complete.json").write_text(json.dumps({"files": 1, "bytes": 2}))
    assert is_complete(tmp_path) == {"files": 1, "bytes": 2}


def test_sweep_takes_what_was_left_of_this_name_and_nothing_else(tmp_path: Path) -> None:
    left = ".radar.unpacking-123-0a1b2c3d"
    others = [
        "radar",
        ".radar.unpacking-123",
        ".radar2.unpacking-123-0a1b2c3d",
        ".radar.unpacking-1-0a1b2c3d.unpacking-2-00000000",
    ]
    for name in [left, *others]:
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "file").touch()
    sweep(tmp_path, "radar")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
    sweep(tmp_path / "missing", "radar")


def test_sweep_says_what_it_cannot_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / ".radar.unpacking-123-0a1b2c3d").mkdir()
    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(DiskError, match=r"unpacking-123-0a1b2c3d.*Permission denied.*by hand"):
        sweep(tmp_path, "radar")


# --- names and first bytes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [(f"a.{name}", name) for name in FORMATS]
    + [("A.TGZ", "tar.gz"), ("a.tzst", "tar.zst"), ("a.tbz2", "tar.bz2"), ("a.txz", "tar.xz"), ("a.b.tar", "tar")]
    + [("a.gz", None), ("a", None), ("tar", None), ("a.tar.gz.part", None), ("a.7z", None), ("", None)],
)
def test_format_of_a_name(name: str, expected: str | None) -> None:
    assert format_of(name) == expected


def test_kind_of_a_file_by_its_first_bytes(bench: Bench) -> None:
    for archive_format in FORMATS:
        path = bench.write(packed(FILES, archive_format), archive_format)
        assert sniff(path) == archive_format.removeprefix("tar.")
    for data in (
        b"",
        b"<!DOCTYPE html>",
        b"\x1f",
        b"CDF\x01",
        bytes(1024),
        b"\xfd\x2f\xb5\x28",
    ):
        assert sniff(bench.write(data)) is None
    assert sniff(bench.write(zip_of([]))) == "zip"


def test_limits_that_are_met_exactly_are_kept(bench: Bench) -> None:
    files = {"a/x": b"x" * 10, "a/b/y": b"y" * 30}
    for archive_format in ("tar", "zip"):
        limits = Limits(total_bytes=40, file_bytes=30, members=4)
        assert bench.unpack(packed(files, archive_format), archive_format, limits).bytes == 40
        shutil.rmtree(bench.target)
