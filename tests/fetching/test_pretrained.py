"""Published weights are found, or fetched once, checked and kept where torch.hub keeps its own."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.errors import BadDataError, DiskError, InterruptedRunError, SourceUnavailableError
from backend.models.detector import build_detector
from backend.weights import read_state_dict, write_pth
from tests.fetching.fake_drive import NOWHERE, File, Web
from tests.fetching.world import Place, sha256
from tests.models.detection import section
from training.fetching.pretrained import COCO_RTDETR, DETECTOR_WEIGHTS, IMAGENET_RESNET18, file_here, pretrained_file
from training.pretrained import WITHOUT, load_pretrained_detector


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    write_pth(tmp_path / "made.pth", {"conv1.weight": torch.arange(6.0)})
    return (tmp_path / "made.pth").read_bytes()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return Place(tmp_path)


def hub(place: Place) -> Path:
    return place.root / "torch" / "hub" / "checkpoints"


def name_of(content: bytes) -> str:
    return f"tiny-{sha256(content)[:8]}.pth"


def get(place: Place, name: str, host: str = "files.example") -> Path:
    other = place.datasets / ".pretrained"
    return pretrained_file(f"https://{host}/models/{name}", other, place.tellers(), WITHOUT, backoff=0.001)


def test_it_is_fetched_once_and_read(place: Place, web: Web, weights: bytes) -> None:
    served = web.files[f"/models/{name_of(weights)}"] = File(weights, cuts=[100])
    path = get(place, name_of(weights))
    assert path == hub(place) / name_of(weights)
    torch.testing.assert_close(read_state_dict(path)["conv1.weight"], torch.arange(6.0))
    asked = len(served.asked)
    assert get(place, name_of(weights)) == path
    assert len(served.asked) == asked == 2, "cut once, then continued"
    assert [entry.name for entry in hub(place).iterdir() if not entry.name.endswith(".lock")] == [path.name]
    assert any(what == "download" for what, *_ in place.shown)


def test_a_file_that_is_there_needs_no_network(place: Place, weights: bytes) -> None:
    for folder in (hub(place), place.datasets / ".pretrained"):
        folder.mkdir(parents=True)
        (folder / name_of(weights)).write_bytes(weights)
        assert get(place, name_of(weights), NOWHERE) == folder / name_of(weights)
        (folder / name_of(weights)).unlink()


def test_another_file_under_its_name_is_named_and_kept(place: Place, weights: bytes) -> None:
    hub(place).mkdir(parents=True)
    (hub(place) / name_of(weights)).write_bytes(b"another")
    with pytest.raises(BadDataError, match=f"its sha256 begins with {sha256(b'another')[:8]}, expected"):
        get(place, name_of(weights))
    assert (hub(place) / name_of(weights)).read_bytes() == b"another"


def test_what_comes_with_another_hash_is_not_kept(place: Place, web: Web, weights: bytes) -> None:
    served = web.files["/models/tiny-00000000.pth"] = File(weights)
    with pytest.raises(SourceUnavailableError, match="what came has a sha256 that begins with"):
        get(place, "tiny-00000000.pth")
    assert not (hub(place) / "tiny-00000000.pth").exists()
    assert not [path for path in hub(place).rglob("*") if path.is_file() and path.stat().st_size >= len(weights)]
    served.content = weights + b"more"
    with pytest.raises(SourceUnavailableError, match=sha256(weights + b"more")[:8]):
        get(place, "tiny-00000000.pth")


def test_out_of_reach_says_how_to_go_on(place: Place, web: Web) -> None:
    with pytest.raises(SourceUnavailableError) as raised:
        get(place, "tiny-12345678.pth", NOWHERE)
    line = str(raised.value)
    assert "\n" not in line
    assert str(hub(place)) in line
    assert line.endswith(f"go on without it: {WITHOUT}")
    assert raised.value.exit_code == 69


def test_a_folder_that_cannot_be_written(place: Place, web: Web, weights: bytes) -> None:
    """A file in its place: no rights to take away, which a superuser would have all the same."""
    web.files[f"/models/{name_of(weights)}"] = File(weights)
    (place.root / "torch").write_text("in the way")
    assert get(place, name_of(weights)) == place.datasets / ".pretrained" / name_of(weights)
    (place.root / "other").write_text("in the way")
    with pytest.raises(DiskError, match="set TORCH_HOME"):
        pretrained_file(
            "https://files.example/models/tiny-00000001.pth", place.root / "other", place.tellers(), WITHOUT
        )


def test_a_stop_is_heard(place: Place, web: Web) -> None:
    content = os.urandom(1 << 20)
    web.files[f"/models/{name_of(content)}"] = File(content, stall_after=1000)
    began, stop = time.monotonic(), threading.Event()

    def check_stop() -> None:
        if stop.is_set():
            raise InterruptedRunError("asked to stop")

    place.check_stop = check_stop
    threading.Timer(1.0, stop.set).start()
    with pytest.raises(InterruptedRunError):
        get(place, name_of(content))
    assert time.monotonic() - began < 20


def test_the_address_is_torchvisions() -> None:
    from torchvision.models import ResNet18_Weights

    assert ResNet18_Weights.IMAGENET1K_V1.url == IMAGENET_RESNET18


def test_a_fragment_names_what_is_published_under_another_name(place: Place, web: Web, weights: bytes) -> None:
    """A hub's files are all called alike, and lie where the first address only leads to."""
    web.files["/resolve/1234/model.pth"] = File(location="https://files.example/stored/abc")
    web.files["/stored/abc"] = File(weights)
    url, name = "https://files.example/resolve/1234/model.pth", name_of(weights)
    path = pretrained_file(f"{url}#{name}", place.datasets, place.tellers(), WITHOUT, backoff=0.001)
    assert path == hub(place) / name and path.read_bytes() == weights
    assert file_here(f"{url}#{name}") == path
    with pytest.raises(SourceUnavailableError, match=r"model\.pth: what came has a sha256"):
        pretrained_file(f"{url}#tiny-00000000.pth", place.datasets, place.tellers(), WITHOUT, backoff=0.001)


def test_the_transformer_is_pinned() -> None:
    address, _, name = COCO_RTDETR.partition("#")
    assert "/resolve/5650961749fa93567c0d46fc7f43ea4f9e914107/" in address, "a commit, not what is newest"
    assert name == "rtdetr_v2_r18vd-d18309d0d7ea57048138885c4c6ecfcb1e24506fc6153b94ad484f8ab62c7115.safetensors"


def test_the_addresses_of_detectors_are_torchvisions() -> None:
    from torchvision import models
    from torchvision.models import detection

    published = {
        ("fasterrcnn_resnet50", "coco"): detection.FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
        ("fasterrcnn_mobilenet", "coco"): detection.FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1,
        ("fasterrcnn_resnet50", "imagenet"): models.ResNet50_Weights.IMAGENET1K_V2,
        ("fasterrcnn_mobilenet", "imagenet"): models.MobileNet_V3_Large_Weights.IMAGENET1K_V2,
        ("retinanet_resnet18", "imagenet"): models.ResNet18_Weights.IMAGENET1K_V1,
    }
    urls = {key: weights.url for key, weights in published.items()}
    assert {key: url for key, url in DETECTOR_WEIGHTS.items() if url != COCO_RTDETR} == urls


def test_a_published_detector_is_fetched_and_put_in(place: Place, web: Web, tmp_path: Path) -> None:
    """A detector of torchvision with weights of its own, served under its hash: the classes that are known start."""
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

    torch.manual_seed(0)
    theirs = fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None)
    write_pth(tmp_path / "made.pth", theirs.state_dict())
    content = (tmp_path / "made.pth").read_bytes()
    web.files[f"/models/{name_of(content)}"] = File(content)
    net: Any = build_detector(section("fasterrcnn_mobilenet"), ["car", "tram"], 64)
    path = load_pretrained_detector(net, place.tellers(), f"https://files.example/models/{name_of(content)}")
    assert path == hub(place) / name_of(content)
    rows, published = net.roi_heads.box_predictor.cls_score.weight, theirs.roi_heads.box_predictor.cls_score.weight
    assert torch.equal(rows[:2], published[[0, 3]])
    assert not torch.isin(rows[2], published).all()
    assert any("the head's rows of car with it" in line for line in place.said)
