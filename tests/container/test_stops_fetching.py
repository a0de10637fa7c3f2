"""`docker stop` and `docker kill` while the dataset comes from Drive and while it is unpacked: both go on from there.

The container uses the host's network, where a loopback web stands for Google's hosts behind a proxy.
"""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.container.docker import Place, run, short, started
from tests.fetching.fake_drive import File, Web, web_in
from tests.fetching.world import DRIVE_ID
from training.files import read_json_lines
from training.runs.run import read_yaml
from training.samples.radar import make_radar_sample

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]
NOTES = 60_000  # small files, so that unpacking lasts until a signal has come
PART = 2 << 20  # bytes that arrive before the download stands still


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A tar of radar events with many small files beside them; the first megabytes cannot be compressed away."""
    folder = tmp_path_factory.mktemp("packed")
    make_radar_sample(folder)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(folder, "events")
        notes = {f"notes/{number:05d}.txt": b"clear sky" for number in range(NOTES)}
        for name, content in {"notes/noise.bin": random.Random(0).randbytes(2 * PART), **notes}.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    with web_in(tmp_path) as web:
        web.bundle.chmod(0o644)
        yield web


def options(place: Place, web: Web) -> list[str]:
    environment = {**web.environment(), "REQUESTS_CA_BUNDLE": "/authority.pem", "TRAIN_WORKER_DRIVE_ID": DRIVE_ID}
    named = [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
    return [*short(), *named, *place.volumes, "-v", f"{web.bundle}:/authority.pem:ro"]


def downloading(place: Place) -> Callable[[], bool]:
    """The part that arrives is on the disk."""
    downloads = place.datasets / ".downloads" / "convlstm"
    return lambda: any(p.is_file() and p.stat().st_size >= PART // 2 for p in downloads.rglob("*"))


def unpacking(place: Place) -> Callable[[], bool]:
    """Some of the files are there, under a name that nobody takes for the dataset's."""
    return lambda: any((folder / "notes").is_dir() for folder in place.datasets.glob(".*convlstm*"))


@pytest.mark.parametrize(("how", "code"), [("stop", 75), ("kill", 137)])
def test_ended_while_the_dataset_comes_and_continued(
    image: str, archive: bytes, web: Web, place: Place, how: str, code: int
) -> None:
    file = web.files[DRIVE_ID] = File(archive, page="form", stall_after=PART)
    for stage, moment in (("download", downloading), ("unpack", unpacking)):
        with started(image, "train", options=options(place, web), network="host") as container:
            container.wait_for(moment(place))
            found, seconds = container.end(how)
            print(f"docker {how} in {stage}: {seconds:.2f} s to exit {found}")  # noqa: T201
            assert found == code, container.said()
            if how == "stop":
                assert "run the same command to continue" in container.said().stderr
                assert read_yaml(place.run / "metadata.yaml")["state"] == "interrupted"
        assert not (place.datasets / "convlstm").exists()
        file.stall_after = None
        web.released.set()
    done = run(image, "train", options=options(place, web), network="host")
    assert f"run id: {place.run.name}" in done.stdout
    assert int(file.asked[-1].removeprefix("bytes=").rstrip("-")) >= PART // 2  # downloaded once, on from the middle
    assert file.sent < 1.5 * len(archive)  # gdown asks once more for the whole before it asks for the rest
    assert len(list((place.datasets / "convlstm").rglob("*.txt"))) == NOTES
    assert [path.name for path in place.datasets.glob(".convlstm*")] == []
    stages = [event["stage"] for event in read_json_lines(place.run / "events.jsonl") if event["event"] == "stage"]
    assert stages[:4] == ["download", "download", "unpack", "unpack"]
    assert read_yaml(place.run / "metadata.yaml")["state"] == "finished"
