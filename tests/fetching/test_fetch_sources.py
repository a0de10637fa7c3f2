"""Each kind of source, with the real gdown, requests and fsspec, against every fault that a host or a network has."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tests.fetching.fake_drive import NOWHERE, File, Web
from tests.fetching.world import DRIVE_ID, sha256, tar_gz
from training.fetching import download_drive, download_fsspec, download_https, download_rclone
from training.fetching.download import TRIES, Job, Received, SourceError, Voice, is_html, without_secrets

ARCHIVE = tar_gz()
LARGE = os.urandom(3 << 20)  # gdown writes half a MiB at a time
URL = "https://files.example/events.tar.gz?token=hidden"
MODULES = {
    "gdrive": download_drive,
    "https": download_https,
    "fsspec": download_fsspec,
    "rclone": download_rclone,
}


class Asking:
    """One source, asked as often as a test likes; what it told is kept."""

    def __init__(self, kind: str, address: str, folder: Path, **facts: Any) -> None:
        defaults = {"size": None, "pinned": False, "connect": 5.0, "read": 5.0, "backoff": 0.001}
        self.job = Job(kind, address, folder, **{**defaults, **facts})
        self.told: list[tuple[Any, ...]] = []

    def get(self, **changes: Any) -> Received:
        job = replace(self.job, **changes)
        return MODULES[job.kind].download(job, Voice(self.told.append))

    def fault(self, **changes: Any) -> str:
        with pytest.raises(SourceError) as caught:
            self.get(**changes)
        assert "hidden" not in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    @property
    def pauses(self) -> list[str]:
        return [message[2] for message in self.told if message[0] == "waiting"]


@pytest.fixture
def drive(tmp_path: Path) -> Asking:
    return Asking("gdrive", DRIVE_ID, tmp_path)


@pytest.fixture
def https(tmp_path: Path) -> Asking:
    return Asking("https", URL, tmp_path)


def is_whole(received: Received, content: bytes) -> bool:
    same = received.path.read_bytes() == content
    return same and (received.size, received.sha256) == (len(content), sha256(content))


# --- Google Drive ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["", "form"])
def test_drive_gives_small_files_at_once_and_large_ones_after_a_confirmation(
    web: Web, drive: Asking, page: str
) -> None:
    web.files[DRIVE_ID] = File(ARCHIVE, page=page)
    received = drive.get()
    assert is_whole(received, ARCHIVE)
    assert stat.S_IMODE(received.path.stat().st_mode) == 0o644
    assert ("bytes", len(ARCHIVE), len(ARCHIVE)) in drive.told


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (File(page="quota"), "quota page"),
        (File(page="signin"), "asks to sign in"),
        (None, "there is no such file (404)"),
        (File(page="loop"), "confirmation page leads to itself"),
        (File(page="untyped"), "cannot read"),
        (File(status=403), "access is refused (403)"),
    ],
)
def test_drive_says_no_in_many_ways(web: Web, drive: Asking, file: File | None, words: str) -> None:
    if file is not None:
        web.files[DRIVE_ID] = file
    assert words in drive.fault()
    assert drive.pauses == [], "trying again at once does not help and harms"
    assert len(web.requests) < 30


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_drive_is_tried_again(web: Web, drive: Asking, status: int) -> None:
    file = web.files[DRIVE_ID] = File(ARCHIVE, status=status, status_times=2)
    assert is_whole(drive.get(), ARCHIVE)
    assert len(drive.pauses) == 2
    assert f"({status})" in drive.pauses[0]
    file.status_times = 1 << 30
    (drive.job.folder / "data").unlink()
    assert f"({status})" in drive.fault()


def test_drive_goes_on_after_cuts(web: Web, drive: Asking) -> None:
    file = web.files[DRIVE_ID] = File(LARGE, cuts=[1 << 20, 1 << 20])
    assert is_whole(drive.get(), LARGE)
    assert all("cut" in pause for pause in drive.pauses)
    assert file.sent < len(LARGE) * 1.5 + (2 << 20)
    assert any(asked not in ("", "bytes=0-") for asked in file.asked)


def test_drive_goes_on_in_another_process(web: Web, drive: Asking) -> None:
    file = web.files[DRIVE_ID] = File(LARGE, cuts=[600_000], always_cut=1000)
    assert "cut" in drive.fault()
    (part,) = drive.job.folder.glob("data*.part")
    have = part.stat().st_size
    assert have > 0
    file.always_cut = None
    assert is_whole(drive.get(), LARGE)
    assert file.asked[-1] == f"bytes={have}-"


def test_drive_begins_anew_where_the_file_changed_or_cannot_be_continued(web: Web, drive: Asking) -> None:
    file = web.files[DRIVE_ID] = File(LARGE, cuts=[1 << 20], ranges=False)
    assert is_whole(drive.get(), LARGE)
    (drive.job.folder / "data").unlink()
    file.cuts, file.always_cut, file.ranges = [600_000], 1000, True
    drive.fault()
    file.always_cut, file.content = None, LARGE + b"more"
    assert is_whole(drive.get(), LARGE + b"more")
    assert any("has changed" in pause for pause in drive.pauses)


def test_two_parts_of_one_drive_file_are_no_obstacle(web: Web, drive: Asking) -> None:
    web.files[DRIVE_ID] = File(LARGE)
    (drive.job.folder / "data12345678.part").write_bytes(LARGE[:1000])
    (drive.job.folder / "dataabcdefgh.part").write_bytes(LARGE[:2000])
    assert is_whole(drive.get(), LARGE)


def test_a_drive_part_that_was_whole_when_the_process_died_is_taken(web: Web, drive: Asking) -> None:
    (drive.job.folder / "data12345678.part").write_bytes(ARCHIVE)
    assert is_whole(drive.get(size=len(ARCHIVE)), ARCHIVE)
    assert web.requests == []


def test_a_drive_file_of_another_size_is_refused_before_it_is_downloaded(web: Web, drive: Asking) -> None:
    file = web.files[DRIVE_ID] = File(LARGE)
    assert f"it has {len(LARGE):,} bytes, the manifest says 5" in drive.fault(size=5)
    assert file.sent <= len(LARGE)


# --- https ----------------------------------------------------------------------------------------------------------


def test_https_gives_a_file(web: Web, https: Asking) -> None:
    web.files["/events.tar.gz"] = File(ARCHIVE)
    assert is_whole(https.get(), ARCHIVE)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (None, "there is no such file (404)"),
        (File(status=410), "there is no such file (410)"),
        (File(status=403), "access is refused (403)"),
        (File(status=418), "answers 418"),
        (File(b" <!DOCTYPE html><p>sign in", kind="text/html"), "web page (HTML) in place of the archive"),
        (File(b""), "empty file"),
        (File(status=503, retry_after="900"), "asks to come back in 900 s"),
        (File(location="http://files.example/x"), "leads on to plain http"),
    ],
)
def test_https_says_no_in_many_ways(web: Web, https: Asking, file: File | None, words: str) -> None:
    if file is not None:
        web.files["/events.tar.gz"] = file
    assert words in https.fault()
    assert https.pauses == []


def test_redirects_without_end(web: Web, https: Asking) -> None:
    web.files["/events.tar.gz"] = File(location="https://files.example/events.tar.gz")
    assert "from one address to the next" in https.fault()


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_given_the_time_that_it_asks_for(
    web: Web, https: Asking, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("training.fetching.download.time.sleep", slept.append)
    web.files["/events.tar.gz"] = File(ARCHIVE, status=status, status_times=1, retry_after="7")
    assert is_whole(https.get(), ARCHIVE)
    assert slept == [7.0]
    assert https.told[0][:2] == ("waiting", 7.0)


def test_https_goes_on_after_cuts(web: Web, https: Asking) -> None:
    file = web.files["/events.tar.gz"] = File(LARGE, cuts=[500_000, 500_000])
    assert is_whole(https.get(), LARGE)
    assert file.asked == ["", "bytes=500000-", "bytes=1000000-"]
    assert file.sent == len(LARGE)


def test_a_cut_body_without_a_told_length_is_noticed(web: Web, https: Asking) -> None:
    file = web.files["/events.tar.gz"] = File(LARGE, chunked=True, cuts=[500_000])
    assert is_whole(https.get(), LARGE)
    assert len(file.asked) == 2


def test_https_goes_on_in_another_process(web: Web, https: Asking) -> None:
    file = web.files["/events.tar.gz"] = File(LARGE, cuts=[1000], always_cut=0)
    assert "cut" in https.fault()
    have = (https.job.folder / "data.part").stat().st_size
    file.always_cut = None
    assert is_whole(https.get(), LARGE)
    assert file.asked[-1] == f"bytes={have}-"


def test_a_link_that_brings_something_each_time_is_not_given_up(web: Web, https: Asking) -> None:
    web.files["/events.tar.gz"] = File(LARGE, always_cut=200_000)
    assert is_whole(https.get(), LARGE)
    assert len(https.pauses) > TRIES * 2


@pytest.mark.parametrize("change", ["etag", "no etag", "no ranges", "shorter"])
def test_https_begins_anew_where_it_cannot_go_on(web: Web, https: Asking, change: str) -> None:
    file = web.files["/events.tar.gz"] = File(LARGE, etag=None if change == "no etag" else '"1"')
    (https.job.folder / "data.part").write_bytes(b"x" * 500_000)
    if change != "no etag":
        (https.job.folder / "state.json").write_text('{"validator": "\\"1\\""}')
    if change == "etag":
        file.etag = '"2"'
    elif change == "no ranges":
        file.ranges = False
    elif change == "shorter":
        file.content = LARGE[:1000]
    assert is_whole(https.get(), file.content)


def test_without_a_validator_a_part_is_continued_when_a_sha256_will_tell(web: Web, https: Asking) -> None:
    file = web.files["/events.tar.gz"] = File(LARGE, etag=None)
    (https.job.folder / "data.part").write_bytes(LARGE[:1000])
    assert is_whole(https.get(pinned=True), LARGE)
    assert file.asked == ["bytes=1000-"]


def test_a_part_that_is_the_whole_file_is_taken(web: Web, https: Asking) -> None:
    file = web.files["/events.tar.gz"] = File(ARCHIVE)
    (https.job.folder / "data.part").write_bytes(ARCHIVE)
    (https.job.folder / "state.json").write_text('{"validator": "\\"1\\""}')
    assert is_whole(https.get(), ARCHIVE)
    assert file.sent == 0


@pytest.mark.parametrize("chunked", [False, True])
def test_more_or_other_than_the_manifests_size_is_not_downloaded(web: Web, https: Asking, chunked: bool) -> None:
    web.files["/events.tar.gz"] = File(LARGE, chunked=chunked)
    assert "manifest says" in https.fault(size=1000)
    assert sum(path.stat().st_size for path in https.job.folder.iterdir()) < len(LARGE)


def test_plain_http_on_this_machine(web: Web, tmp_path: Path) -> None:
    web.files["/a.zip"] = File(ARCHIVE)
    assert is_whole(Asking("https", web.plain_url("/a.zip"), tmp_path).get(), ARCHIVE)


# --- the network ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["drive", "https"])
def asking(request: pytest.FixtureRequest) -> Asking:
    return request.getfixturevalue(request.param)


def test_a_proxy_that_hangs(web: Web, asking: Asking) -> None:
    web.proxy_mode = "hangs"
    words = asking.fault(connect=0.2, read=0.2)
    assert "proxy 127.0.0.1:" in words
    assert len(asking.pauses) == TRIES - 1


def test_a_proxy_that_refuses(web: Web, asking: Asking) -> None:
    web.proxy_mode = "refuses"
    assert "the proxy 127.0.0.1:" in asking.fault()


def test_a_proxys_password_is_not_shown(web: Web, asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    web.proxy_mode = "refuses"
    monkeypatch.setenv("HTTPS_PROXY", os.environ["HTTPS_PROXY"].replace("//", "//me:hidden@"))
    assert "the proxy 127.0.0.1:" in asking.fault()


def test_a_proxy_that_is_not_there(web: Web, asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert "the proxy 127.0.0.1:9 does not work" in asking.fault()


def test_no_network(web: Web, asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HTTPS_PROXY")
    address = asking.job.address.replace("files.example", NOWHERE)
    assert "cannot be resolved: no network, or no DNS" in asking.fault(address=address)
    assert len(asking.pauses) == TRIES - 1


def test_nobody_listens(web: Web, https: Asking) -> None:
    assert "refused or unreachable" in https.fault(address="http://127.0.0.1:9/x")


def test_a_certificate_that_nobody_vouches_for(web: Web, asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    assert "certificate cannot be verified" in asking.fault()
    assert asking.pauses == []


def test_a_host_that_falls_silent(web: Web, asking: Asking) -> None:
    file = File(LARGE, stall_after=1 << 20)
    web.files |= {DRIVE_ID: file, "/events.tar.gz": file}
    assert "not a byte" in asking.fault(read=0.2)


# --- fsspec and rclone ----------------------------------------------------------------------------------------------


def test_fsspec_gives_a_file_and_goes_on(tmp_path: Path) -> None:
    there = tmp_path / "there.tar"
    there.write_bytes(LARGE)
    folder = tmp_path / "mine"
    folder.mkdir()
    asking = Asking("fsspec", f"file://{there}", folder)
    received = asking.get()
    assert is_whole(received, LARGE)
    received.path.rename(folder / "data.part")
    with (folder / "data.part").open("r+b") as part:
        part.truncate(1000)
    asking.told.clear()
    assert is_whole(asking.get(), LARGE)
    assert next(message for message in asking.told if message[0] == "bytes") == ("bytes", 1000, len(LARGE))


def test_what_fsspec_cannot_vouch_for_is_not_continued(tmp_path: Path) -> None:
    MemoryFileSystem().pipe("/x.zip", ARCHIVE)
    (tmp_path / "data.part").write_bytes(b"other")
    assert is_whole(Asking("fsspec", "memory://x.zip", tmp_path).get(), ARCHIVE)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("gs://key:hidden@bucket/x.zip", "the protocol gs needs a package that is not installed (Please install gcsfs"),
        ("bogus://x", "fsspec knows no protocol bogus"),
        ("file:///no/such/hidden", "there is no such file"),
    ],
)
def test_fsspec_says_no(tmp_path: Path, url: str, words: str) -> None:
    assert words in Asking("fsspec", url, tmp_path).fault()


RCLONE = """#!/bin/sh
# A stand-in that knows the two commands that are used: {folder} is its only remote.
command=$1; shift
case "$*" in *absent*) echo "2026/11/25 ERROR : hidden: object not found" >&2; exit 4;; esac
case "$*" in *broken*) echo "2026/11/25 Failed: https://me:hidden@host/x?key=hidden is down" >&2; exit 7;; esac
for last; do :; done
file={folder}/${{last#there:}}
if [ "$command" = lsjson ]; then
  echo "{{\\"Size\\": $(stat -c %s "$file"), \\"ModTime\\": \\"2026\\", \\"IsDir\\": false}}"
else
  echo "$@" >> {folder}/asked
  tail -c +$(($2 + 1)) "$file"
fi
"""


@pytest.fixture
def rclone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "remote"
    folder.mkdir()
    program = tmp_path / "rclone"
    program.write_text(RCLONE.format(folder=folder))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return folder


def test_rclone_gives_a_file_and_goes_on(rclone: Path, tmp_path: Path) -> None:
    (rclone / "x.zip").write_bytes(LARGE)
    asking = Asking("rclone", "there:x.zip", tmp_path / "mine")
    asking.job.folder.mkdir()
    assert is_whole(asking.get(), LARGE)
    (asking.job.folder / "data").rename(asking.job.folder / "data.part")
    os.truncate(asking.job.folder / "data.part", 1000)
    assert is_whole(asking.get(), LARGE)
    asked = (rclone / "asked").read_text().splitlines()
    assert [line.split()[1] for line in asked] == ["0", "1000"]


@pytest.mark.parametrize(("name", "words"), [("absent", "finds no such file"), ("broken", "rclone fails (7)")])
def test_rclone_says_no(rclone: Path, tmp_path: Path, name: str, words: str) -> None:
    assert words in Asking("rclone", f"there:{name}", tmp_path).fault()


def test_rclone_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "rclone is not installed" in Asking("rclone", "there:x.zip", tmp_path).fault()


# --- small parts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "page"),
    [
        (b"\n <HTML lang=de>", True),
        (b"<!doctype html>", True),
        (b"<!-- x --><html>", True),
        (ARCHIVE, False),
        (b"<x", False),
    ],
)
def test_a_web_page_is_known_by_its_beginning(head: bytes, page: bool) -> None:
    assert is_html(head) is page


def test_no_secret_stands_in_what_others_said() -> None:
    said = without_secrets("GET https://me:hidden@h/x?sig=hidden\nfailed at s3://hidden", "s3://hidden")
    assert said == "GET https://h/x failed at …"
