"""Published weights that a model starts from: found where torch.hub keeps them, else downloaded there and checked."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

from backend.errors import BadDataError, DiskError, SourceUnavailableError
from backend.files import replacing, sha256_of
from training.fetching.archive import Tellers
from training.fetching.download import Job, Received, SourceError
from training.fetching.download_process import OutOfTimeError, Watch, download
from training.fetching.download_stream import remove
from training.fetching.turn import turn
from training.reporting.units import size_in_words

IMAGENET_RESNET18 = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
"""torchvision's ResNet18_Weights.IMAGENET1K_V1."""

COCO_RTDETR = (
    "https://huggingface.co/PekingU/rtdetr_v2_r18vd/resolve/5650961749fa93567c0d46fc7f43ea4f9e914107/model.safetensors"
    "#rtdetr_v2_r18vd-d18309d0d7ea57048138885c4c6ecfcb1e24506fc6153b94ad484f8ab62c7115.safetensors"
)
"""RT-DETRv2 with a ResNet-18, as its authors published it (Apache-2.0)."""

_AT = "https://download.pytorch.org/models"
DETECTOR_WEIGHTS = {
    ("fasterrcnn_resnet50", "coco"): f"{_AT}/fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth",
    ("fasterrcnn_mobilenet", "coco"): f"{_AT}/fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth",
    ("fasterrcnn_resnet50", "imagenet"): f"{_AT}/resnet50-11ad3fa6.pth",
    ("fasterrcnn_mobilenet", "imagenet"): f"{_AT}/mobilenet_v3_large-5c1a4163.pth",
    ("retinanet_resnet18", "imagenet"): IMAGENET_RESNET18,
    ("rtdetr_v2", "coco"): COCO_RTDETR,
}
"""Where is published what a detector may start from, by `model.name` and `model.pretrained`."""

SPARE = Path(tempfile.gettempdir()) / "pretrained"
"""Where files are kept where torch.hub's folder cannot be written."""

_CONNECT, _READ, _STALL, _TOTAL = 15.0, 60.0, 120.0, 3600.0  # seconds
_HASH = re.compile(r"-([0-9a-f]{8,64})\.[a-z]+$")


def pretrained_file(url: str, other: Path, tell: Tellers, without: str, backoff: float = 1.0) -> Path:
    """The file at ``url``, whose name ends in the first digits of its sha256, such as ``resnet18-f37072fd.pth``.

    Where it is published under another name, a fragment (``#resnet18-f37072fd.pth``) gives the one it is kept under.

    It is kept in torch.hub's folder (``$TORCH_HOME/hub/checkpoints``), where other programs leave and find it, or in
    ``other`` where that cannot be written.

    Args:
        url: where it is published.
        other: a folder, made where it is needed.
        tell: who is told, and who may stop it.
        without: how to go on without the file, as the end of an error's line.
        backoff: the longest first pause between two tries, in seconds.

    Raises:
        SourceUnavailableError: it cannot be reached, or what comes has another hash.
        BadDataError: a file of that name is there, but is another one.
        DiskError: no folder can be written, or the disk fails.
    """
    name = _name_of(url)
    if (here := file_here(url, other)) is not None:
        return here
    folder = _writable(_shared(), other)
    with turn(folder / f".{name}.lock", name, tell):
        if not (folder / name).is_file():
            _fetch(url, folder / name, tell, without, backoff)
    return folder / name


def file_here(url: str, *others: Path) -> Path | None:
    """The file at ``url`` where torch.hub keeps it, or in one of ``others``; None where it is not here.

    Raises:
        BadDataError: a file of that name is there, but is another one.
    """
    places = (folder / _name_of(url) for folder in (_shared(), *others))
    found = next((place for place in places if place.is_file()), None)
    return _checked(found) if found is not None else None


def _shared() -> Path:
    """Where torch.hub keeps files, and other programs find them."""
    from torch import hub

    return Path(hub.get_dir()) / "checkpoints"


def _name_of(url: str) -> str:
    return urlsplit(url).fragment or Path(urlsplit(url).path).name


def _checked(path: Path) -> Path:
    try:
        found = sha256_of(path)
    except OSError as error:
        raise BadDataError(f"{path}: cannot be read ({error.strerror}); make it readable, or delete it") from error
    if not found.startswith(_digits(path.name)):
        raise BadDataError(
            f"{path}: its sha256 begins with {found[:8]}, expected {_digits(path.name)}: it is damaged or another "
            "file; delete it, and it is fetched anew"
        )
    return path


def _digits(name: str) -> str:
    """The first digits of the sha256, which a published file's name ends in."""
    match = _HASH.search(name)
    if match is None:
        raise ValueError(f"expected a name such as resnet18-f37072fd.pth, got {name}")
    return match[1]


def _writable(*folders: Path) -> Path:
    """The first of ``folders`` that can be written to, made where it is not there."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    places = " nor ".join(map(str, folders))
    raise DiskError(f"neither {places} can be written, where weights are to be kept; set TORCH_HOME to a folder")


def _fetch(url: str, place: Path, tell: Tellers, without: str, backoff: float) -> None:
    """Download ``place`` beside itself, and give it its name when it is whole and right."""
    url = urldefrag(url).url
    tell.say(f"fetching {place.name} from {urlsplit(url).netloc} into {place.parent}")
    job = Job("https", url, place.parent / f".{place.name}.download", None, True, _CONNECT, _READ, backoff)
    try:
        job.folder.mkdir(exist_ok=True)
        received = download(job, _watch(tell))
        _check_received(received, place.name)
        with replacing(place) as temporary:
            received.path.replace(temporary)
    except (SourceError, OutOfTimeError) as fault:
        why = str(fault) or "it was not done within an hour"
        raise SourceUnavailableError(
            f"{place.name} (weights to start from) cannot be had from {url}: {why}. Run the same command later, put "
            f"the file into {place.parent}, or go on without it: {without}"
        ) from fault
    except OSError as error:
        raise DiskError(f"{place}: could not be written ({error.strerror}); free some space") from error
    shutil.rmtree(job.folder, ignore_errors=True)
    tell.say(f"{place.name}: {size_in_words(received.size)}, its sha256 is the one in its name")


def _watch(tell: Tellers) -> Watch:
    def reading(done: int, total: int) -> None:
        tell.progress("verifying", done, total, unit="B")

    def received(done: int, total: int | None) -> None:
        tell.progress("download", done, total, unit="B")

    return Watch(_STALL, time.monotonic() + _TOTAL, received, reading, tell.say, tell.check_stop)


def _check_received(received: Received, name: str) -> None:
    if not received.sha256.startswith(_digits(name)):
        remove(received.path.parent)
        raise SourceError(f"what came has a sha256 that begins with {received.sha256[:8]}, not {_digits(name)}")
