"""From image and video files to the objects that a detector finds in them: as data, as text, and as pictures."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from backend.ahead import ahead
from backend.artifact import Artifact
from backend.boxes_drawing import BoxDrawing
from backend.boxes_files import DETECTIONS, DRAWN, LABELS, CocoResults, coco_results, write_whole, yolo_lines
from backend.boxes_inputs import Source, find_sources
from backend.errors import BadDataError, DiskError
from backend.files import writable_folder
from backend.left_out import tell_left_out
from backend.models import build
from backend.preprocessing.detection import DetectionPreprocessing
from backend.preprocessing.images import read_image
from backend.video import Pace, VideoFile, VideoWriter
from backend.weights import load_matching

_AT_ONCE = 16  # pictures that the model sees together
_BYTES_AT_ONCE = 96 << 20  # of them as they came; a few such batches are in memory at a time
_JPEG_QUALITY = 90


@dataclass(frozen=True)
class Picture:
    """An image, or a frame of a video, as the model and as people see it."""

    source: Source
    image: np.ndarray  # RGB uint8 [height, width, 3]
    seen: np.ndarray  # uint8 [3, S, S], what the model sees
    frame: np.ndarray  # float32 [6], where the image lies in it
    number: int = 0  # of a video: which frame, from 0
    ticks: int = 0  # of a video: when, in ``pace.tick``
    pace: Pace | None = None  # of a video

    @property
    def seconds(self) -> float:
        """Since the video's first frame; 0 for an image."""
        return float(self.ticks * self.pace.tick) if self.pace else 0.0


def write_detections(
    artifact: Artifact,
    inputs: Sequence[Path],
    out: Path,
    confidence: float | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write what a detector finds in images and videos into ``out``, and give the path of ``detections.json``.

    ``detections.json`` (COCO results) has everything that the model gives, and ``images.json`` says what the image ids
    are. ``labels/`` (YOLO text) and ``drawn/`` have what is at least ``confidence`` sure, which is the run's own
    ``evaluation.confidence`` where it is None. ``tell`` hears how much that is.

    Raises:
        UsageError: there are no images or videos, or two of one name.
        BadDataError: files that are damaged; the result of the others is written first.
        DiskError: ``out`` cannot be written.
    """
    sources = find_sources(inputs, out)
    writable_folder(out)
    sure = artifact.config["evaluation"]["confidence"] if confidence is None else confidence
    left_out: list[str] = []
    found = detect(artifact, sources, left_out)
    try:
        first = next(found, None)
        if first is not None:
            tell(_write(artifact, _chained(first, found), out, sure))
    except OSError as error:
        place = error.filename or out
        reason = error.strerror or error
        raise DiskError(f"{place}: cannot be written ({reason}); free some space or choose another --out") from error
    finally:
        found.close()
    tell_left_out(left_out, len(sources), out if first is not None else None)
    return out / DETECTIONS


def detect(
    artifact: Artifact, sources: Sequence[Source], left_out: list[str]
) -> Generator[tuple[Picture, np.ndarray], None, None]:
    """Each picture with its detections, float32 [k, 6]: x1, y1, x2, y2 (its pixels), score, label; the surest first.

    Reading and letterboxing, the model, and whoever takes the results each work in a thread of their own.
    ``left_out`` gets a line for each source that is damaged.
    """
    preprocessing = DetectionPreprocessing.from_dict(artifact.preprocessing["detection"])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build(artifact.state["task"], artifact.config, artifact.facts)
    load_matching(model, artifact.weights, artifact.folder)
    model.to(device).eval()
    with (
        ahead(_batches(_pictures(sources, preprocessing, left_out))) as batches,
        ahead((batch, _detections(model, batch, device)) for batch in batches) as results,
    ):
        for batch, detections in results:
            yield from zip(batch, detections, strict=True)


def _detections(model: nn.Module, batch: Sequence[Picture], device: torch.device) -> list[np.ndarray]:
    """Of each picture, float32 [k, 6]; in two halves where memory does not hold all of them together."""
    try:
        return _at_once(model, batch, device)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    half = len(batch) // 2
    return _detections(model, batch[:half], device) + _detections(model, batch[half:], device)


def _at_once(model: nn.Module, batch: Sequence[Picture], device: torch.device) -> list[np.ndarray]:
    images = torch.from_numpy(np.stack([picture.seen for picture in batch])).to(device)
    frames = torch.from_numpy(np.stack([picture.frame for picture in batch])).to(device)
    with torch.inference_mode():
        found = model(images, frames).float().cpu().numpy()
    return [rows[rows[:, 5] >= 0] for rows in found]


def _pictures(
    sources: Sequence[Source], preprocessing: DetectionPreprocessing, left_out: list[str]
) -> Iterator[Picture]:
    for source in sources:
        try:
            if source.is_image:
                image = read_image(source.path, upright=True)
                yield Picture(source, image, *preprocessing.letterbox(image))
            else:
                yield from _frames(source, preprocessing)
        except BadDataError as error:
            left_out.append(str(error))


def _frames(source: Source, preprocessing: DetectionPreprocessing) -> Iterator[Picture]:
    video = VideoFile(source.path)
    try:
        for one in video.frames():
            seen, frame = preprocessing.letterbox(one.image)
            yield Picture(source, one.image, seen, frame, one.number, one.ticks, video.pace)
    finally:
        video.close()


def _batches(pictures: Iterator[Picture]) -> Iterator[list[Picture]]:
    batch: list[Picture] = []
    size = 0
    for picture in pictures:
        batch.append(picture)
        size += picture.image.nbytes
        if len(batch) == _AT_ONCE or size >= _BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _chained(
    first: tuple[Picture, np.ndarray], others: Iterator[tuple[Picture, np.ndarray]]
) -> Iterator[tuple[Picture, np.ndarray]]:
    yield first
    yield from others


def _write(artifact: Artifact, found: Iterator[tuple[Picture, np.ndarray]], out: Path, confidence: float) -> str:
    """Writes it all, and says how much it is."""
    facts, state = artifact.facts, artifact.state
    pictures_seen = boxes = sure_boxes = 0
    info = {"description": f"detections of run {state['run_id']}, checkpoint {artifact.folder.name}"}
    with (
        coco_results(out, facts["classes"], facts["category_ids"], info) as results,
        _Pictures(out, BoxDrawing(facts["classes"])) as pictures,
    ):
        for picture, detections in found:
            sure = detections[detections[:, 4] >= confidence]
            _add(results, picture, detections)
            pictures.add(picture, sure)
            pictures_seen, boxes, sure_boxes = pictures_seen + 1, boxes + len(detections), sure_boxes + len(sure)
    return (
        f"{pictures_seen:,} pictures: {sure_boxes:,} boxes at least {confidence:g} sure, drawn and labelled; "
        f"{boxes:,} in all, in {DETECTIONS}"
    )


def _add(results: CocoResults, picture: Picture, detections: np.ndarray) -> None:
    height, width = picture.image.shape[:2]
    name = str(picture.source.name)
    if picture.pace is None:
        results.add(name, width, height, detections)
    else:
        timed = {"video": name, "frame": picture.number, "seconds": round(picture.seconds, 6)}
        results.add(f"{picture.source.stem}/{picture.number:06d}", width, height, detections, **timed)


class _Pictures:
    """The files for people and labelling tools: a text and a drawing of each image, of each video's frames one film."""

    def __init__(self, out: Path, drawing: BoxDrawing) -> None:
        self._labels, self._drawn, self._drawing = out / LABELS, out / DRAWN, drawing
        self._video: Source | None = None
        self._writer: VideoWriter | None = None

    def __enter__(self) -> _Pictures:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._end_video()
        elif self._writer is not None:
            self._writer.give_up()

    def add(self, picture: Picture, sure: np.ndarray) -> None:
        """Write what was found in one picture."""
        if self._video is not None and picture.source is not self._video:
            self._end_video()
        height, width = picture.image.shape[:2]
        stem = picture.source.stem
        label = stem if picture.pace is None else stem / f"{picture.number:06d}"
        write_whole(self._labels / f"{label}.txt", yolo_lines(sure, width, height))
        drawn = self._drawing.draw(picture.image, sure)
        if picture.pace is None:
            self._write_image(picture.source, drawn)
        else:
            self._write_frame(picture, picture.pace, drawn)

    def _write_image(self, source: Source, drawn: np.ndarray) -> None:
        is_png = source.path.suffix.lower() == ".png"
        suffix, how = (".png", []) if is_png else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        _, content = cv2.imencode(suffix, cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), how)
        write_whole(self._drawn / f"{source.stem}{suffix}", content.tobytes())

    def _write_frame(self, picture: Picture, pace: Pace, drawn: np.ndarray) -> None:
        if self._writer is None:
            place = self._drawn / f"{picture.source.stem}.mp4"
            place.parent.mkdir(parents=True, exist_ok=True)
            height, width = drawn.shape[:2]
            self._video, self._writer = picture.source, VideoWriter(place, pace, width, height)
        self._writer.write(drawn, picture.ticks, pace.tick)

    def _end_video(self) -> None:
        if self._writer is not None:
            try:
                self._writer.close()
            except DiskError:
                self._writer.give_up()
                raise
        self._video = self._writer = None
