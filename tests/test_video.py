"""Films in many formats: every frame, when it is shown and which way up, there and back, and damaged ones."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from backend import boxes
from backend.boxes import write_detections
from backend.errors import BadDataError
from backend.video import Frame, VideoFile, VideoWriter
from tests.detection_predict import ColourFinder, artifact, film, moving, picture, rows_of


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes, "build", lambda *_: ColourFinder())


def frames_of(path: Path) -> list[Frame]:
    video = VideoFile(path)
    try:
        return list(video.frames())
    finally:
        video.close()


def seconds_of(path: Path) -> list[float]:
    return [frame.seconds for frame in frames_of(path)]


FORMATS = [
    ("a.mp4", "libx264"), ("a.mov", "mpeg4"), ("a.avi", "mpeg4"), ("a.mkv", "libx264"), ("a.webm", "libvpx"),
    ("a.mpg", "mpeg2video"), ("a.flv", "flv"), ("a.MP4", "mpeg4"), ("a.wmv", "wmv2"), ("a.nut", "ffv1"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "codec"), FORMATS)
def test_a_film_comes_out_as_it_went_in(tmp_path: Path, name: str, codec: str) -> None:
    given = film(tmp_path / name, moving(30), codec=codec)
    write_detections(artifact(), [given], tmp_path / "out")
    drawn = tmp_path / "out" / "drawn" / "a.mp4"
    assert len(frames_of(drawn)) == 30
    assert frames_of(drawn)[0].image.shape == (64, 96, 3)
    np.testing.assert_allclose(seconds_of(drawn), np.arange(30) / 25, atol=1e-3)
    with av.open(str(drawn)) as container:
        assert container.streams.video[0].average_rate == 25
        assert container.streams.video[0].frames == 30
        assert container.streams.video[0].codec_context.name == "h264"
    rows = rows_of(tmp_path / "out" / "detections.json")
    assert [(row["frame"], row["video"]) for row in rows] == [(number, name) for number in range(30)]
    np.testing.assert_allclose([row["seconds"] for row in rows], np.arange(30) / 25, atol=1e-3)
    truth = [(2 * number, 24, 16, 16) for number in range(30)]
    np.testing.assert_allclose([row["bbox"] for row in rows], truth, atol=2.1)  # edges are blurred by the encoder


@pytest.mark.parametrize("turned", [90, -90, 180])
def test_a_film_of_a_turned_phone_is_upright(tmp_path: Path, turned: int) -> None:
    """The note turns the picture counter-clockwise by so many degrees."""
    upright = picture(48, 96, ((0, 0, 16, 32), 0))
    given = film(tmp_path / "phone.mp4", [np.rot90(upright, -turned // 90)] * 5, turned=turned)
    write_detections(artifact(), [given], tmp_path / "out")
    for row in rows_of(tmp_path / "out" / "detections.json"):
        np.testing.assert_allclose(row["bbox"], (0, 0, 16, 32), atol=1)
    (first, *_) = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    assert (first["width"], first["height"]) == (48, 96)
    drawn = frames_of(tmp_path / "out" / "drawn" / "phone.mp4")
    assert drawn[0].image.shape == (96, 48, 3)
    assert drawn[0].image[20:30, 4:12, 0].mean() > 200


def test_frames_at_uneven_times_keep_them(tmp_path: Path) -> None:
    times = [0, 40, 90, 100, 180, 400, 401, 402, 1000, 1500]
    given = film(tmp_path / "uneven.mp4", moving(10), times=times)
    write_detections(artifact(), [given], tmp_path / "out")
    expected = np.array(times) / 1000
    np.testing.assert_allclose(seconds_of(tmp_path / "out" / "drawn" / "uneven.mp4"), expected, atol=1e-4)
    listed = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    np.testing.assert_allclose([image["seconds"] for image in listed], expected, atol=1e-6)


def test_television_s_rate_is_kept(tmp_path: Path) -> None:
    given = film(tmp_path / "tv.mp4", moving(40), rate=Fraction(30000, 1001))
    write_detections(artifact(), [given], tmp_path / "out")
    with av.open(str(tmp_path / "out" / "drawn" / "tv.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)


def test_odd_sizes_grow_by_a_pixel(tmp_path: Path) -> None:
    given = film(tmp_path / "odd.avi", moving(5, 97, 63), codec="ffv1")
    write_detections(artifact(), [given], tmp_path / "out")
    (drawn, *_) = frames_of(tmp_path / "out" / "drawn" / "odd.mp4")
    assert drawn.image.shape == (64, 98, 3)
    (first, *_) = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    assert (first["width"], first["height"]) == (97, 63)


def test_pixels_that_are_not_square_stay_so(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "wide.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for image in moving(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    write_detections(artifact(), [tmp_path / "wide.mkv"], tmp_path / "out")
    with av.open(str(tmp_path / "out" / "drawn" / "wide.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_without_an_h264_encoder_it_is_mpeg_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    given = film(tmp_path / "a.mp4", moving(30), rate=Fraction(30000, 1001), times=[33 * n for n in range(30)])
    video = VideoFile(given)
    pace, frames = video.pace, list(video.frames())
    video.close()
    writer = VideoWriter(tmp_path / "out.mp4", pace, 96, 64)
    for frame in frames:
        writer.write(frame.image, frame.ticks, pace.tick)
    writer.close()
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    np.testing.assert_allclose(seconds_of(tmp_path / "out.mp4"), np.arange(30) * 0.033, atol=1e-3)


# --- damaged ones -----------------------------------------------------------------------------------------------------


def noisy(count: int) -> list[np.ndarray]:
    """Hard to compress, so that half a file is half of its frames."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(count)]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("cut.mp4", "mpeg4", {"movflags": "+faststart"}), ("cut.mkv", "libx264", None), ("cut.webm", "libvpx", None)],
)
def test_a_film_that_breaks_off_is_kept_up_to_there(
    tmp_path: Path, name: str, codec: str, options: dict[str, str] | None
) -> None:
    given = film(tmp_path / name, noisy(150), codec=codec, options=options)
    given.write_bytes(given.read_bytes()[: given.stat().st_size // 2])
    with pytest.raises(BadDataError, match=rf"{name}: damaged after frame \d+ at \d\.\d\d s .*up to there") as told:
        write_detections(artifact(), [given], tmp_path / "out")
    assert "\n" not in str(told.value)
    kept = len(json.loads((tmp_path / "out" / "images.json").read_text())["images"])
    assert 30 < kept < 120
    assert len(frames_of(tmp_path / "out" / "drawn" / "cut.mp4")) == kept
    assert len(list((tmp_path / "out" / "labels" / "cut").iterdir())) == kept


def test_damaged_films_do_not_stop_the_others(tmp_path: Path) -> None:
    film(tmp_path / "in" / "good.mp4", moving(5))
    whole = film(tmp_path / "in" / "headless.mp4", noisy(20))
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])  # its index stood at the end
    (tmp_path / "in" / "empty.mkv").write_bytes(b"")
    (tmp_path / "in" / "zeros.avi").write_bytes(bytes(5000))
    with pytest.raises(BadDataError) as told:
        write_detections(artifact(), [tmp_path / "in"], tmp_path / "out")
    first, *lines = str(told.value).splitlines()
    assert first.startswith("3 of 4 files are damaged; the result of the rest is in")
    assert [line.split(": ")[0].rpartition("/")[2] for line in lines] == ["empty.mkv", "headless.mp4", "zeros.avi"]
    assert "is empty" in lines[0]
    assert len(rows_of(tmp_path / "out" / "detections.json")) == 5


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(BadDataError, match=r"sound\.mp4: holds no video"):
        write_detections(artifact(), [tmp_path / "sound.mp4"], tmp_path / "out")


@pytest.mark.parametrize(
    "content",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n",
        "ffconcat version 1.0\nfile real.mp4\n",
    ],
)
def test_a_playlist_opens_no_other_file(tmp_path: Path, content: str) -> None:
    film(tmp_path / "real.mp4", moving(3))
    (tmp_path / "list.mp4").write_text(content)
    with pytest.raises(BadDataError, match=r"list\.mp4: damaged or no video"):
        VideoFile(tmp_path / "list.mp4")


def test_sound_that_is_longer_than_the_picture_is_no_damage(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "long.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        sound = container.add_stream("aac", rate=44100)
        for image in moving(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 5 * 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    assert len(frames_of(tmp_path / "long.mkv")) == 10
