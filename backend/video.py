"""Video files: their frames, upright and with their times, and the writing of others at the same pace."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from backend.errors import BadDataError, DiskError

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".wmv", ".flv", ".3gp")

# What only names other files or places in the network, and tty, which makes a film of any text, are no video files.
_NO_VIDEO_FILES = {"applehttp", "concat", "dash", "hls", "image2", "lavfi", "rtsp", "sdp", "tty"}
_ONE_FILE = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(sorted(av.formats_available - _NO_VIDEO_FILES)),
}
_LARGEST_TICKS = 65_535  # ticks a second that MPEG-4 part 2 can say
_DEFAULT_RATE = Fraction(25)


@dataclass(frozen=True)
class Pace:
    """When the frames of a video are shown, and the shape of its pixels."""

    rate: Fraction  # frames a second, on average
    tick: Fraction  # seconds; frames stand at multiples of it
    pixel_aspect: Fraction  # width over height of an upright pixel


@dataclass(frozen=True)
class Frame:
    """One picture of a video, upright."""

    number: int  # from 0
    ticks: int  # since the first frame, in `Pace.tick`
    seconds: float
    image: np.ndarray  # RGB uint8 [height, width, 3]


class VideoFile:
    """The frames of a video file, one after another; nothing of it is kept in memory.

    Raises:
        BadDataError: it is missing, empty, damaged at its beginning, or no video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if path.stat().st_size == 0:
                raise BadDataError(f"{path}: is empty; expected a video")
            self._container = av.open(str(path), options=_ONE_FILE)
        except (OSError, av.FFmpegError) as error:
            raise BadDataError(f"{path}: damaged or no video ({_reason(error)})") from error
        streams = [one for one in self._container.streams.video if one.codec_context is not None]
        if not streams:
            self.close()
            raise BadDataError(f"{path}: holds no video that can be read; expected {', '.join(VIDEO_SUFFIXES)}")
        self._stream = streams[0]
        self._stream.thread_type = "AUTO"
        self._quarter_turns = 0

    def close(self) -> None:
        """Release the file."""
        self._container.close()

    @property
    def pace(self) -> Pace:
        """Known for certain once the first frame was read, which tells how the video is turned."""
        stream = self._stream
        rate = stream.average_rate or stream.guessed_rate or _DEFAULT_RATE
        aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
        tick = Fraction(stream.time_base or 1 / rate)
        return Pace(Fraction(rate), tick, 1 / aspect if self._quarter_turns % 2 else aspect)

    def frames(self) -> Iterator[Frame]:
        """The frames in the order in which they are shown.

        Raises:
            BadDataError: after the last frame that could be read, where others should follow, or where there is none.
        """
        number, seconds, first, before = 0, 0.0, 0, -1
        pace = self.pace
        try:
            for decoded in self._container.decode(self._stream):
                pts = decoded.pts if decoded.pts is not None else round(number / pace.rate / pace.tick)
                first = pts if number == 0 else first
                ticks = max(pts - first, before + 1)  # some files say a time twice
                self._quarter_turns = round(decoded.rotation / 90) % 4
                image = np.rot90(decoded.to_ndarray(format="rgb24"), self._quarter_turns)
                seconds = float(ticks * pace.tick)
                yield Frame(number, ticks, seconds, np.ascontiguousarray(image))
                number, before = number + 1, ticks
        except (OSError, av.FFmpegError, ValueError) as error:
            raise BadDataError(self._broken_off(number, seconds, _reason(error))) from error
        if number == 0 or self._lacks_frames(number, seconds, pace):
            raise BadDataError(self._broken_off(number, seconds, "the file ends there"))

    def _lacks_frames(self, count: int, seconds: float, pace: Pace) -> bool:
        """Whether the file's own account of itself, where it has one, says that more should have come."""
        stream = self._stream
        expected = float(stream.duration * pace.tick) if stream.duration else self._length_of_container()
        ended = seconds + 1 / float(pace.rate)
        slack = max(1.0, 3 / float(pace.rate))  # containers round, and some encoders leave out the last frames
        return expected - ended > slack

    def _length_of_container(self) -> float:
        """Seconds, where the video alone decides on them; else 0."""
        alone = len(self._container.streams) == 1
        return (self._container.duration or 0) / av.time_base if alone else 0.0

    def _broken_off(self, count: int, seconds: float, reason: str) -> str:
        if count == 0:
            return f"{self.path}: damaged, no frame can be read ({reason})"
        return (
            f"{self.path}: damaged after frame {count - 1} at {seconds:.2f} s ({reason}); the frames up to there are "
            "in the result"
        )


class VideoWriter:
    """An MP4 file with the frames that it is given: H.264 where the encoder is there, else MPEG-4 part 2.

    An odd width or height grows by one, which both formats need. Raises DiskError where the file cannot be written.
    """

    def __init__(self, path: Path, pace: Pace, width: int, height: int) -> None:
        self.path = path
        self._size = (width, height)
        self._unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            self._container = av.open(str(self._unfinished), "w", format="mp4", options={"movflags": "+faststart"})
            self._stream = _encoder(self._container, pace, width + width % 2, height + height % 2)
        except (OSError, av.FFmpegError) as error:
            raise self._unwritable(error) from error

    def write(self, image: np.ndarray, ticks: int, tick: Fraction) -> None:
        """Append RGB uint8 [height, width, 3], shown ``ticks`` of ``tick`` seconds after the first."""
        frame = av.VideoFrame.from_ndarray(self._fitted(image), format="rgb24")
        frame.time_base = self._stream.codec_context.time_base
        frame.pts = round(ticks * tick / frame.time_base)
        self._mux(frame)

    def close(self) -> None:
        """Write what the encoder still holds, and the index; only then the file has its name."""
        self._mux(None)
        try:
            self._container.close()
            self._unfinished.replace(self.path)
        except (OSError, av.FFmpegError) as error:
            raise self._unwritable(error) from error

    def give_up(self) -> None:
        """Leave nothing."""
        with suppress(OSError, av.FFmpegError):
            self._container.close()
        self._unfinished.unlink(missing_ok=True)

    def _mux(self, frame: av.VideoFrame | None) -> None:
        try:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except (OSError, av.FFmpegError) as error:
            raise self._unwritable(error) from error

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        """At the size that the first frame had, made even by its last column and row again."""
        width, height = self._size
        if image.shape[:2] != (height, width):
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        if width % 2 or height % 2:
            image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        return np.ascontiguousarray(image)

    def _unwritable(self, error: Exception) -> DiskError:
        return DiskError(f"{self.path}: cannot be written ({_reason(error)}); free some space or choose another --out")


def _encoder(container: Any, pace: Pace, width: int, height: int) -> Any:
    rate = pace.rate.limit_denominator(_LARGEST_TICKS)
    has_h264 = "libx264" in av.codecs_available
    stream = container.add_stream("libx264" if has_h264 else "mpeg4", rate=rate)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    tick = pace.tick if has_h264 or pace.tick.denominator <= _LARGEST_TICKS else 1 / Fraction(_LARGEST_TICKS)
    stream.codec_context.time_base = stream.time_base = tick
    stream.codec_context.sample_aspect_ratio = pace.pixel_aspect
    if has_h264:
        stream.options = {"crf": "20", "preset": "veryfast"}
    else:
        stream.bit_rate = round(0.2 * width * height * float(rate))
    return stream


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
