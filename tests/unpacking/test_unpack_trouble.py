"""Unpacking that is cut short: damaged archives, full disks, a stop, a kill. Nothing half is ever left as whole."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.errors import BadDataError, DiskError, InterruptedRunError
from tests.small_disk import small_disk
from tests.unpacking.archives import END, Bench, content_of, member, packed, tar_of, without_programs
from training.unpacking import durable
from training.unpacking import unpack as unpacking
from training.unpacking.unpack import FORMATS, Limits, is_complete, sweep

ROOT = Path(__file__).parents[2]
WAYS = [("tar.gz", True), ("tar.zst", True), *((name, False) for name in FORMATS)]  # format, whether by a program
RANDOM = random.Random(5).randbytes
SMALL = {"a/x.nc": RANDOM(3000), "b.txt": b"b" * 2000}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(durable, "_sync_filesystem", lambda descriptor: None)
    return Bench(tmp_path)


@pytest.fixture(params=[True, False], ids=["programs", "in process"])
def programs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if not request.param:
        without_programs(monkeypatch)
    return bool(request.param)


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("archive_format", "programs"), WAYS, indirect=["programs"])
def test_a_truncated_end(bench: Bench, archive_format: str, programs: bool) -> None:
    data = packed(SMALL, archive_format)
    last = len(data)
    if archive_format == "tar":
        last = len(data.rstrip(b"\0")) // 512 * 512 + 1500  # its padding beyond the two blocks of the end says nothing
    steps = 7 if programs else 40
    for length in sorted({*range(0, last, max(1, last // steps)), *range(last - 12, last, 3), last - 1}):
        assert bench.refusal(data[:length], archive_format)


@pytest.mark.parametrize(
    ("archive_format", "programs"), [way for way in WAYS if way[0][:4] == "tar."], indirect=["programs"]
)
def test_something_after_the_end(bench: Bench, archive_format: str, programs: bool) -> None:
    data = packed(SMALL, archive_format)
    for more in (b"x", b"junk" * 5000, b"\0" * 9 + b"x", data[:9], data[:-1], data[:2]):
        assert bench.refusal(data + more, archive_format)
    assert "goes on after its end mark" in bench.refusal(data + data, archive_format)


def test_something_after_the_end_of_a_plain_tar_or_a_zip(bench: Bench) -> None:
    tar = tar_of(SMALL)
    assert "goes on after its end mark" in bench.refusal(tar + tar)
    assert "goes on after its end mark" in bench.refusal(tar + b"x")
    assert "goes on after the end of its zip data" in bench.refusal(packed(SMALL, "zip") + b"x", "zip")


@pytest.mark.parametrize(
    ("archive_format", "programs"), [way for way in WAYS if way[0] != "tar"], indirect=["programs"]
)
def test_flipped_bits_never_change_what_comes_out(bench: Bench, archive_format: str, programs: bool) -> None:
    pack = packed(SMALL, archive_format)
    dice, refused = random.Random(7), 0
    for _ in range(8 if programs else 60):
        data = bytearray(pack)
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        try:
            bench.unpack(bytes(data), archive_format)
        except BadDataError:
            assert bench.left_behind() == []
            refused += 1
        else:  # such as the time in a header
            assert sorted(content_of(bench.target).values()) == sorted(SMALL.values())
            shutil.rmtree(bench.target)
    assert refused >= 5


def test_flipped_bits_in_headers_of_a_plain_tar(bench: Bench) -> None:
    tar = member("a", b"a") + member("b", b"b" * 600) + END
    for place in range(0, 512, 11):
        data = bytearray(tar)
        data[1024 + place] ^= 4
        assert "damaged tar header" in bench.refusal(bytes(data))


def test_an_end_mark_in_the_middle_does_not_hide_the_rest(bench: Bench) -> None:
    for gap in (bytes(512), bytes(1024)):
        assert bench.refusal(member("a", b"a") + gap + member("b", b"b") + END)
    assert "ends in the middle" in bench.refusal(member("a", b"a"))
    assert "ends in the middle" in bench.refusal(member("a", b"a") + bytes(512))


def test_wrong_checksums(bench: Bench, programs: bool) -> None:
    data = bytearray(packed(SMALL, "tar.gz"))
    data[-6] ^= 1
    assert "damaged" in bench.refusal(bytes(data), "tar.gz")
    checked = bytearray(packed(SMALL, "tar.zst"))
    checked[-1] ^= 1
    assert "damaged" in bench.refusal(bytes(checked), "tar.zst")


# --- the disk --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "what"), [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the disk is full"), (errno.EIO, "failed")]
)
@pytest.mark.parametrize("call", ["write", "close", "mkdir"])
def test_a_disk_that_fails(bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str, number: int, what: str) -> None:
    real, calls = getattr(os, call), []

    def fail(*words: object) -> object:
        calls.append(words)
        if len(calls) == 3:
            raise OSError(number, os.strerror(number))
        return real(*words)

    monkeypatch.setattr(unpacking.os, call, fail)
    deep = {f"d{n}/x": b"x" * 9 for n in range(9)}
    line = bench.refusal(packed(deep, "tar"), kind=DiskError)
    assert what in line and os.strerror(number) in line


def test_a_disk_that_fails_when_made_to_keep_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable, "_sync_filesystem", fail)
    assert "the disk is full" in bench.refusal(packed(SMALL, "tar"), kind=DiskError)


def test_everything_is_on_the_disk_before_it_has_its_name(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(descriptor: int) -> None:
        folder = Path(f"/proc/self/fd/{descriptor}").readlink()
        seen.append(
            (folder.name.startswith(".radar.unpacking-"), content_of(folder) == SMALL, bool(is_complete(folder)))
        )
        assert not bench.target.exists()

    monkeypatch.setattr(durable, "_sync_filesystem", look)
    monkeypatch.setattr(durable, "_ROUND_BYTES", 1)
    bench.unpack(packed(SMALL, "tar"))
    assert seen[-1]
    assert len(seen) > 1  # some of it on the way


def test_the_system_is_really_asked(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    durable._sync_filesystem(descriptor)
    os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        durable._sync_filesystem(descriptor)


def test_a_limit_on_the_size_of_files(bench: Bench) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    data = packed({"x": bytes(300_000)}, "tar.gz")
    archive = bench.write(data, "tar.gz")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        line = bench.refusal(data, "tar.gz", DiskError)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in line and archive.name in line


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path, "1m") as place:
        yield place


def test_a_disk_that_is_really_full(bench: Bench, tiny_disk: Path) -> None:
    def unpack(limits: Limits) -> None:
        target = tiny_disk / "sets" / "radar"
        quiet = {"record": {}, "progress": lambda *words: None, "check_stop": lambda: None}
        unpacking.unpack(archive, target, format="tar.gz", limits=limits, **quiet)  # type: ignore[arg-type]

    archive = bench.write(packed({"a": RANDOM(600_000), "b": b"b" * 600_000}, "tar.gz"), "tar.gz")
    for limits in (Limits(total_bytes=1 << 40), Limits()):
        with pytest.raises(DiskError, match=r"the disk is full|the disk has 1.0 MB to give"):
            unpack(limits)
        assert list((tiny_disk / "sets").iterdir()) == []
    subprocess.run(["mount", "-o", "remount,ro", tiny_disk], check=True)
    with pytest.raises(DiskError, match=r"Read-only file system.*mount it writable"):
        unpack(Limits())


# --- a stop, a kill --------------------------------------------------------------------------------------------------

LARGE = {f"{n}.nc": RANDOM(300_000) for n in range(12)}


@pytest.mark.parametrize(("archive_format", "programs"), WAYS, indirect=["programs"])
def test_a_stop_on_the_way(bench: Bench, archive_format: str, programs: bool) -> None:
    polls = []

    def stop_at(number: int) -> None:
        polls.append(number)
        if len(polls) > 4 and bench.left_behind():
            raise InterruptedRunError("stopped by SIGTERM; run the same command to continue")

    assert "stopped by SIGTERM" in bench.refusal(
        packed(LARGE, archive_format), archive_format, InterruptedRunError, check_stop=lambda: stop_at(1)
    )
    assert children() == []


def children() -> list[str]:
    """Unpacking programs that this process started and that have not ended."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in found}
    return [pid for pid, line in lines.items() if any(name in line for name in (b"pigz", b"zstd"))]


def fake_program(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pigz of our own, before any other on the path."""
    folder.mkdir()
    (folder / "pigz").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "pigz").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_stop_while_the_program_is_silent(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_program(tmp_path_factory.mktemp("bin") / "bin", "exec sleep 1000", monkeypatch)
    polls = []

    def stop() -> None:
        polls.append(1)
        if len(polls) > 1:
            raise InterruptedRunError("stopped")

    bench.refusal(packed(SMALL, "tar.gz"), "tar.gz", InterruptedRunError, check_stop=stop)
    assert children() == []


@pytest.mark.parametrize(
    ("script", "kind", "what"),
    [
        ("kill -9 $$", DiskError, "pigz was ended by SIGKILL"),
        ("echo 'out of luck' >&2; exit 3", BadDataError, "out of luck"),
        ("exit 3", BadDataError, "pigz: exit 3"),
        ("exit 0", BadDataError, "ends in the middle"),
    ],
)
def test_a_program_that_fails(
    bench: Bench,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    kind: type[DiskError] | type[BadDataError],
    what: str,
) -> None:
    fake_program(tmp_path_factory.mktemp("bin") / "bin", script, monkeypatch)
    assert what in bench.refusal(packed(SMALL, "tar.gz"), "tar.gz", kind)
    assert children() == []


VICTIM = """
    import sys
    from pathlib import Path
    from training.unpacking.unpack import Limits, unpack

    def progress(what, done, total):
        if done < total and any(Path(sys.argv[2]).parent.glob(".radar.unpacking-*/*")):
            print("ready", flush=True)
            sys.stdin.read()

    unpack(Path(sys.argv[1]), Path(sys.argv[2]), format="tar.zst", limits=Limits(), record={}, progress=progress,
           check_stop=lambda: None)
"""


def test_a_kill_in_the_middle(bench: Bench, programs: bool) -> None:
    archive = bench.write(packed(LARGE, "tar.zst"), "tar.zst")
    environment = os.environ | ({} if programs else {"PATH": ""})
    command = [sys.executable, "-c", textwrap.dedent(VICTIM), archive, bench.target]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"ready\n"
        victim.send_signal(signal.SIGKILL)
    assert not bench.target.exists()
    (left,) = bench.target.parent.iterdir()
    assert is_complete(left) is None
    assert any(left.iterdir())
    sweep(bench.target.parent, "radar")
    assert bench.left_behind() == []
    bench.unpack(packed(LARGE, "tar.zst"), "tar.zst")
    assert content_of(bench.target) == LARGE
