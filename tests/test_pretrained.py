"""A landmark network starts from a published ResNet-18."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backend.files import sha256_of
from backend.models.landmarks import LandmarkNet
from backend.weights import write_pth
from training.fetching.archive import Tellers
from training.pretrained import load_pretrained


def test_the_trunk_takes_what_lies_in_torchs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import resnet18

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    published = resnet18(weights=None)
    write_pth(folder / "made.pth", published.state_dict())
    path = (folder / "made.pth").rename(folder / f"made-{sha256_of(folder / 'made.pth')[:8]}.pth")
    quiet = Tellers(lambda line: None, lambda *args, **keys: None, lambda: None)
    net = LandmarkNet(3, head="shallow", hidden_dim=16)
    assert load_pretrained(net, quiet, url=f"https://no-such-host.example/{path.name}") == path
    assert torch.equal(net.trunk.layer3[0].conv1.weight, published.layer3[0].conv1.weight)
