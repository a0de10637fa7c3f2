"""From a manifest to a folder: sources in turn, checks, trust on first use, locks, disks, stops. Downloads are real."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

from backend.errors import BadDataError, DiskError, InterruptedRunError, SourceUnavailableError
from tests.fetching.fake_drive import File, Web
from tests.fetching.world import DRIVE_ID, FILES, Place, contents, sha256, tar_gz
from training.fetching import archive as fetch_archive
from training.files import read_json, write_json

ARCHIVE = tar_gz()
OTHER = tar_gz({"event_1/a.nc": b"changed"})
DRIVE = {"gdrive": DRIVE_ID}
MIRROR = {"https": "https://me:hidden@files.example/events.tar.gz?token=hidden"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def unavailable(place: Place, *sources: dict[str, str], **keys: Any) -> str:
    with pytest.raises(SourceUnavailableError) as caught:
        place.fetch(place.manifest(*sources, **keys))
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value)
    return str(caught.value)


def leftovers(place: Place) -> list[str]:
    return sorted(path.name for path in place.downloads.iterdir() if not path.name.endswith(".lock"))


# --- the way of it --------------------------------------------------------------------------------------------------


def test_a_dataset_is_fetched_once_and_then_there(web: Web, place: Place) -> None:
    web.files[DRIVE_ID] = File(ARCHIVE, page="form")
    manifest = place.manifest(DRIVE, sha256=sha256(ARCHIVE), size=len(ARCHIVE), version=3, license="CC BY 4.0")
    folder = place.fetch(manifest)
    assert folder == place.datasets / "radar"
    assert contents(folder) == FILES
    assert place.stages == ["download", "unpack"]
    assert leftovers(place) == ["radar.first-seen.json"]
    record = read_json(folder / ".complete.json")
    assert (record["sha256"], record["version"], record["license"]) == (sha256(ARCHIVE), "3", "CC BY 4.0")
    assert {what for what, _, _ in place.shown} >= {"download"}
    assert place.shown[0][2] == len(ARCHIVE)
    web.requests.clear()
    place.stages.clear()
    place.said.clear()
    assert place.fetch(manifest) == folder
    assert (web.requests, place.stages, place.said) == ([], [], [])


def test_the_next_source_is_taken_when_one_says_no(web: Web, place: Place) -> None:
    web.files |= {DRIVE_ID: File(page="quota"), "/events.tar.gz": File(ARCHIVE)}
    assert contents(place.fetch(place.manifest(DRIVE, MIRROR, sha256=sha256(ARCHIVE)))) == FILES
    told = "\n".join(place.said)
    assert "source 1 of 2, gdrive 1aBc" in told
    assert "quota page" in told
    assert "source 2 of 2, https://files.example/events.tar.gz\n" in told
    record = (place.datasets / "radar" / ".complete.json").read_text()
    assert "hidden" not in told + record + "".join(path.read_text() for path in place.downloads.glob("*.json"))


def test_when_no_source_gives_it_each_is_named_with_its_reason(web: Web, place: Place) -> None:
    web.files["/events.tar.gz"] = File(status=403)
    said = unavailable(place, DRIVE, MIRROR, {"file": "gone.tar.gz"}, {"fsspec": "gs://b/x.zip"})
    for words in ("(1) gdrive 1aBc", "(404)", "(2) https://files.ex", "(403)", "(3) file", "No such file", "gcsfs"):
        assert words in said
    assert "later" in said


def test_a_local_archive_is_read_where_it_is(place: Place) -> None:
    (place.root / "mine.tar.gz").write_bytes(ARCHIVE)
    assert contents(place.fetch(place.manifest({"file": "mine.tar.gz"}))) == FILES
    assert (place.root / "mine.tar.gz").read_bytes() == ARCHIVE
    assert "download" not in {what for what, _, _ in place.shown}


def test_the_archive_is_kept_when_asked_for(web: Web, place: Place) -> None:
    web.files["/events.tar.gz"] = File(ARCHIVE)
    manifest = place.manifest(MIRROR, keep_archive=True)
    folder = place.fetch(manifest)
    kept = place.downloads / "radar" / "radar.tar.gz"
    assert kept.read_bytes() == ARCHIVE
    shutil.rmtree(folder)
    web.requests.clear()
    assert contents(place.fetch(manifest)) == FILES
    assert web.requests == []


# --- what came is not what was meant --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "keys", "words"),
    [
        (OTHER, {"sha256": sha256(ARCHIVE)}, f"its sha256 is {sha256(OTHER)}, the manifest says {sha256(ARCHIVE)}"),
        (ARCHIVE, {"size": 17}, "the manifest says 17"),
        (b"<html>sign in</html>" * 50, {"sha256": sha256(ARCHIVE)}, "web page (HTML)"),
        (b"x" * 2000, {}, "it is no tar.gz"),
        (ARCHIVE, {"format": "zip"}, "it is no zip but begins like gz"),
    ],
)
@pytest.mark.parametrize("kind", ["drive", "https", "file"])
def test_wrong_content_is_refused_and_deleted(
    web: Web, place: Place, content: bytes, keys: dict[str, Any], words: str, kind: str
) -> None:
    web.files |= {DRIVE_ID: File(content), "/events.tar.gz": File(content)}
    (place.root / "x.tar.gz").write_bytes(content)
    source = {"drive": DRIVE, "https": MIRROR, "file": {"file": "x.tar.gz"}}[kind]
    said = unavailable(place, source, **keys)
    assert words.replace("it is no tar.gz", "it is no ") in said
    assert not (place.datasets / "radar").exists()
    left = [path for path in place.downloads.rglob("*") if path.is_file() and path.suffix not in (".lock", ".json")]
    assert [path.name for path in left if path.name != ".lock"] == []


def test_a_wrong_archive_at_one_source_leaves_the_others_their_chance(web: Web, place: Place) -> None:
    web.files |= {DRIVE_ID: File(OTHER), "/events.tar.gz": File(ARCHIVE)}
    assert contents(place.fetch(place.manifest(DRIVE, MIRROR, sha256=sha256(ARCHIVE)))) == FILES


def test_without_a_sha256_the_first_one_seen_holds(web: Web, place: Place) -> None:
    file = web.files["/events.tar.gz"] = File(ARCHIVE)
    folder = place.fetch(place.manifest(MIRROR))
    assert f"sha256: {sha256(ARCHIVE)}" in place.said[-1]
    first = place.downloads / "radar.first-seen.json"
    assert read_json(first)["sha256"] == sha256(ARCHIVE)

    shutil.rmtree(folder)
    file.content = OTHER
    with pytest.raises(BadDataError) as caught:
        place.fetch(place.manifest(MIRROR))
    said = str(caught.value)
    assert sha256(ARCHIVE) in said
    assert sha256(OTHER) in said
    assert f"delete {first}" in said
    assert not folder.exists()

    place.fetch(place.manifest(MIRROR, sha256=sha256(OTHER)))  # accepted in the manifest
    assert read_json(first)["sha256"] == sha256(OTHER)
    assert contents(folder) == {"event_1/a.nc": b"changed"}


def test_what_was_never_unpacked_is_not_trusted(web: Web, place: Place) -> None:
    """Half an archive, of which nobody could know that it is half."""
    file = web.files["/events.tar.gz"] = File(ARCHIVE[:-5000])
    manifest = place.manifest(MIRROR)
    with pytest.raises(BadDataError, match="deleted"):
        place.fetch(manifest)
    assert leftovers(place) == ["radar"]
    file.content, file.etag = ARCHIVE, '"2"'
    assert contents(place.fetch(manifest)) == FILES


def test_a_right_archive_that_cannot_be_unpacked_is_not_downloaded_again(web: Web, place: Place) -> None:
    file = web.files["/events.tar.gz"] = File(ARCHIVE)
    manifest = place.manifest(MIRROR, sha256=sha256(ARCHIVE), limits={"total_bytes": 10})
    for _ in range(2):
        with pytest.raises(BadDataError):
            place.fetch(manifest)
    assert len(file.asked) == 1
    raised = place.manifest(MIRROR, sha256=sha256(ARCHIVE))
    assert contents(place.fetch(raised)) == FILES
    assert len(file.asked) == 1


# --- what is there --------------------------------------------------------------------------------------------------


def test_a_folder_that_was_not_fetched_here_is_never_overwritten(web: Web, place: Place) -> None:
    mine = place.datasets / "radar"
    mine.mkdir(parents=True)
    (mine / "mine.nc").touch()
    with pytest.raises(BadDataError, match=r"holds mine.nc, which was not fetched here.*--data .*radar"):
        place.fetch(place.manifest(MIRROR))
    assert [path.name for path in mine.iterdir()] == ["mine.nc"]
    shutil.rmtree(mine)
    mine.touch()
    with pytest.raises(BadDataError, match="is no folder"):
        place.fetch(place.manifest(MIRROR))
    assert web.requests == []


def test_an_empty_folder_is_filled(web: Web, place: Place) -> None:
    (place.datasets / "radar").mkdir(parents=True)
    web.files["/events.tar.gz"] = File(ARCHIVE)
    assert contents(place.fetch(place.manifest(MIRROR))) == FILES


def test_another_dataset_of_the_same_name_is_refused(web: Web, place: Place) -> None:
    web.files["/events.tar.gz"] = File(ARCHIVE)
    place.fetch(place.manifest(MIRROR))
    with pytest.raises(BadDataError, match=f"{sha256(ARCHIVE)}, the manifest asks for {sha256(OTHER)}"):
        place.fetch(place.manifest(MIRROR, sha256=sha256(OTHER)))
    with pytest.raises(BadDataError, match=r"was fetched from https://files.example/events.tar.gz, not from gdrive"):
        place.fetch(place.manifest(DRIVE))
    assert place.fetch(place.manifest(DRIVE, sha256=sha256(ARCHIVE)))  # the same content from elsewhere


# --- stopped, killed, beside others ---------------------------------------------------------------------------------


def received(place: Place) -> int:
    """Bytes of what is being downloaded."""
    return sum(path.stat().st_size for path in place.downloads.rglob("data*"))


class Stop:
    """Asks to stop as soon as ``happened()``."""

    def __init__(self, happened: Any) -> None:
        self.happened = happened

    def __call__(self) -> None:
        if self.happened():
            raise InterruptedRunError("stopped")


@pytest.mark.parametrize("source", [DRIVE, MIRROR], ids=["drive", "https"])
def test_a_stop_is_heard_while_a_host_is_silent_and_the_download_goes_on_later(
    web: Web, place: Place, source: dict[str, str]
) -> None:
    content = tar_gz({"a.nc": os.urandom(2 << 20)})
    file = File(content, stall_after=1 << 20)
    web.files |= {DRIVE_ID: file, "/events.tar.gz": file}
    manifest = place.manifest(source)
    place.check_stop = Stop(lambda: received(place) >= 1 << 19)
    with pytest.raises(InterruptedRunError):
        place.fetch(manifest)
    web.released.set()
    file.stall_after = None
    place.check_stop = lambda: None
    assert len(contents(place.fetch(manifest))["a.nc"]) == 2 << 20
    assert file.asked[-1].startswith("bytes=")


def test_a_stop_is_heard_while_a_proxy_hangs(web: Web, place: Place) -> None:
    web.proxy_mode = "hangs"
    place.check_stop = Stop(lambda: True)
    with pytest.raises(InterruptedRunError):
        place.fetch(place.manifest(MIRROR))


def test_stopped_while_unpacking_only_the_unpacking_is_done_again(web: Web, place: Place) -> None:
    file = web.files["/events.tar.gz"] = File(ARCHIVE)
    manifest = place.manifest(MIRROR)
    place.check_stop = Stop(lambda: "unpack" in place.stages)
    with pytest.raises(InterruptedRunError):
        place.fetch(manifest)
    assert not (place.datasets / "radar").exists()
    place.check_stop = lambda: None
    assert contents(place.fetch(manifest)) == FILES
    assert len(file.asked) == 1


def test_after_a_power_cut_the_kept_archive_is_read_again(web: Web, place: Place) -> None:
    file = web.files["/events.tar.gz"] = File(ARCHIVE)
    manifest = place.manifest(MIRROR, keep_archive=True)
    folder = place.fetch(manifest)
    kept, note = (place.downloads / "radar" / name for name in ("radar.tar.gz", "verified.json"))
    for content, asked in ((ARCHIVE, 1), (b"\0" * len(ARCHIVE), 2)):
        shutil.rmtree(folder)
        kept.write_bytes(content)
        write_json(note, {**read_json(note), "boot": "earlier", "mtime_ns": kept.stat().st_mtime_ns})
        assert contents(place.fetch(manifest)) == FILES
        assert len(file.asked) == asked


def fetch_in(root: Path, manifest: Any) -> None:
    Place(root).fetch(manifest)


def test_a_killed_fetch_takes_its_download_along_and_is_continued(web: Web, place: Place) -> None:
    content = tar_gz({"a.nc": os.urandom(2 << 20)})
    file = web.files["/events.tar.gz"] = File(content, stall_after=1 << 20)
    manifest = place.manifest(MIRROR)
    process = multiprocessing.get_context("spawn").Process(target=fetch_in, args=(place.root, manifest))
    process.start()
    folder = place.downloads / "radar" / manifest.sources[0].key
    wait_for(lambda: received(place) >= (1 << 20) - file.step)
    process.kill()
    process.join()
    with FileLock(folder / ".lock", timeout=10):  # nobody holds it: the download is gone too
        pass
    file.stall_after = None
    web.released.set()
    assert len(contents(place.fetch(manifest))["a.nc"]) == 2 << 20
    assert int(file.asked[-1].removeprefix("bytes=").rstrip("-")) >= (1 << 20) - file.step


def wait_for(happened: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def test_a_second_process_waits_and_finds_it_there(web: Web, place: Place) -> None:
    file = web.files["/events.tar.gz"] = File(ARCHIVE, stall_after=0)
    manifest = place.manifest(MIRROR)
    first = threading.Thread(target=place.fetch, args=(manifest,))
    first.start()
    wait_for(lambda: file.asked)
    second = Place(place.root)
    second.check_stop = lambda: web.released.set()  # called while it waits
    assert contents(second.fetch(manifest)) == FILES
    first.join()
    assert [line for line in second.said if "another process" in line] == second.said
    assert len(second.said) == 1
    assert len(file.asked) == 1


# --- time and room --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [DRIVE, MIRROR], ids=["drive", "https"])
def test_a_source_that_stalls_is_left_for_the_next(web: Web, place: Place, source: dict[str, str]) -> None:
    silent = File(os.urandom(1 << 20), stall_after=1 << 16)
    web.files |= {DRIVE_ID: silent, "/events.tar.gz": silent, "/second.tar.gz": File(ARCHIVE)}
    manifest = place.manifest(source, {"https": "https://files.example/second.tar.gz"}, timeouts={"stall": 1.5})
    assert contents(place.fetch(manifest)) == FILES
    assert any("stalled: no new byte for 1.5 s" in line for line in place.said)


def test_the_whole_has_its_time(web: Web, place: Place) -> None:
    web.files["/events.tar.gz"] = File(ARCHIVE, stall_after=0)
    said = unavailable(place, MIRROR, DRIVE, timeouts={"total": 0.3})
    assert "(1) https://files.example/events.tar.gz: not done within timeouts.total" in said
    assert "(2)" not in said


def test_no_room_is_told_before_the_download(web: Web, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    file = web.files["/events.tar.gz"] = File(ARCHIVE)
    monkeypatch.setattr(fetch_archive.shutil, "disk_usage", lambda path: SimpleNamespace(free=70_000_000))
    with pytest.raises(DiskError, match=r"70.0 MB free, but radar needs .* 1.0 TB unpacked.*--datasets"):
        place.fetch(place.manifest(MIRROR, size=len(ARCHIVE), unpacked_size=10**12))
    assert file.asked == []
    web.files["/events.tar.gz"] = File(os.urandom(4 << 20), stall_after=1 << 20)  # its size is told by the host alone
    with pytest.raises(DiskError, match="needs"):
        place.fetch(place.manifest(MIRROR))


@pytest.mark.parametrize("source", [DRIVE, MIRROR], ids=["drive", "https"])
def test_a_disk_that_fills_during_the_download(web: Web, place: Place, source: dict[str, str]) -> None:
    content = tar_gz({"a.nc": os.urandom(2 << 20)})
    file = File(content)
    web.files |= {DRIVE_ID: file, "/events.tar.gz": file}
    manifest = place.manifest(source, MIRROR)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(DiskError, match=r"File too large.*--datasets"):
            place.fetch(manifest)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    asked = len(file.asked)
    assert place.stages == ["download"]
    assert not any("going on with the next" in line for line in place.said)
    assert len(contents(place.fetch(manifest))["a.nc"]) == 2 << 20
    assert file.asked[asked:][-1].startswith("bytes=")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_datasets_that_cannot_be_written(place: Place) -> None:
    manifest = place.manifest(MIRROR)
    place.datasets.mkdir(mode=0o500)
    with pytest.raises(DiskError, match=r"while fetching radar; .*--datasets"):
        place.fetch(manifest)


def test_datasets_that_are_no_folder(place: Place) -> None:
    manifest = place.manifest(MIRROR)
    place.datasets.touch()
    with pytest.raises(DiskError, match="while fetching radar"):
        place.fetch(manifest)
