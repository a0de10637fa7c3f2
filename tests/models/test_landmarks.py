"""The landmark network: its size, what is frozen, determinism, estimates, and weights of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from backend.errors import ConfigError
from backend.models import build
from backend.models.coordinate_attention import CoordinateAttention
from backend.models.landmarks import LandmarkNet, predict_points
from backend.models.landmarks_weights import start_from, start_trunk
from backend.preprocessing.landmark_set import LandmarkSet
from backend.weights import read_state_dict, write_pth

SIZE = 64


def images(n: int = 2, size: int = SIZE, seed: int = 0) -> Tensor:
    return torch.randn((n, 3, size, size), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def published() -> LandmarkNet:
    """The model that is published: fifteen points, attention, a deep head of 768."""
    torch.manual_seed(0)
    return LandmarkNet(15)


@pytest.fixture
def net(published: LandmarkNet) -> LandmarkNet:
    published.freeze_trunk(False)
    return published.train()


def test_its_parameters_are_as_many_as_the_published_models(net: LandmarkNet) -> None:
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == 11_883_390
    trunk, head = net.trunk_parameters(), list(net.head.parameters())
    assert sum(p.numel() for p in trunk) + sum(p.numel() for p in head) == 11_883_390


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("head", ["deep", "shallow"])
def test_points_come_out(attention: bool, head: Any) -> None:
    config = {
        "model": {"coordinate_attention": attention, "head": head, "hidden_dim": 32, "dropout": 0.3},
    }
    net = build("landmarks", config, {"landmark_set": LandmarkSet(("a", "b", "c"), ((0, 2),)).to_json()}).eval()
    for size in (SIZE, 50):
        points = net(images(2, size))
        assert points.shape == (2, 3, 2)
        assert points.dtype == torch.float32
        assert 0 < float(points.min()) < float(points.max()) < 1
    assert cast(LandmarkNet, net).mirrored_order == [2, 1, 0]


def test_the_mirrored_prediction_is_mirrored_back() -> None:
    """A net that finds the brightest column of each half, which a mirror exchanges."""

    class Brightest(nn.Module):
        mirrored_order: ClassVar = [1, 0]

        def forward(self, x: Tensor) -> Tensor:
            left, right = (half.argmax(1) for half in x[:, 0].mean(1).chunk(2, dim=1))
            across = torch.stack([left + 0.5, right + 4.5], dim=1) / 8
            return torch.stack([across, torch.full_like(across, 0.3)], dim=2)

    x = torch.zeros(1, 3, 8, 8)
    x[..., 1], x[..., 5] = 1, 1
    plain, tta = predict_points(Brightest(), x, mirrored=True)
    torch.testing.assert_close(plain, torch.tensor([[[1.5 / 8, 0.3], [5.5 / 8, 0.3]]]))
    torch.testing.assert_close(tta, plain)
    assert predict_points(Brightest(), x)[1] is None


def test_without_pairs_there_is_no_mirrored_prediction(net: LandmarkNet) -> None:
    with pytest.raises(ConfigError, match=r"set evaluation\.tta to false"):
        predict_points(net.eval(), images(), mirrored=True)


def test_attention_is_the_papers() -> None:
    """Against pooling layers and concatenation as the paper draws them."""
    torch.manual_seed(0)
    attention, x = CoordinateAttention(64, mid=8).eval(), torch.randn(2, 64, 5, 7)
    nn.init.normal_(attention.norm.running_mean)
    by_row, by_column = nn.AdaptiveAvgPool2d((None, 1))(x), nn.AdaptiveAvgPool2d((1, None))(x)
    squeezed = [torch.relu(attention.norm(attention.squeeze(part))) for part in (by_row, by_column)]
    expected = x * attention.rows(squeezed[0]).sigmoid() * attention.columns(squeezed[1]).sigmoid()
    torch.testing.assert_close(attention(x), expected)
    assert CoordinateAttention(512).squeeze.out_channels == 16


class TestFrozen:
    def statistics(self, net: LandmarkNet) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in net.named_buffers()}

    def test_statistics_stay_whatever_train_is_called(self, net: LandmarkNet) -> None:
        net.freeze_trunk(True)
        before = self.statistics(net)
        net.eval()
        net.train()
        net(images()).sum().backward()
        for name, value in net.named_buffers():
            torch.testing.assert_close(value, before[name], rtol=0, atol=0)
        assert not any(p.requires_grad for p in net.trunk_parameters())
        assert all(p.grad is not None for p in net.head.parameters())
        assert all(part.training for part in net.head)

    def test_thawed_they_move_again(self, net: LandmarkNet) -> None:
        net.freeze_trunk(True)
        net.freeze_trunk(False)
        before = self.statistics(net)
        net(images()).sum().backward()
        moved = [name for name, value in net.named_buffers() if not torch.equal(value, before[name])]
        assert moved == list(before)
        assert all(p.grad is not None for p in net.parameters())


def test_a_step_is_deterministic_and_without_a_warning(net: LandmarkNet) -> None:
    """Strict: an operation without a deterministic form raises."""
    torch.use_deterministic_algorithms(True)
    try:
        found = []
        for _ in range(2):
            net.zero_grad()
            torch.manual_seed(1)
            net(images()).square().sum().backward()
            found.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_coordinates_are_as_fine_as_fp32_under_autocast(net: LandmarkNet) -> None:
    net.eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        points = net(images())
    assert points.dtype == torch.float32
    assert not torch.equal(points, points.bfloat16().float())


@pytest.mark.parametrize("size", [64, 75])
def test_estimates_are_what_is_counted(size: int) -> None:
    net = LandmarkNet(15)
    with FlopCounterMode(display=False) as counter:
        net(images(2, size))
    assert counter.get_total_flops() == 2 * net.flops_per_row(size)
    parameters = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        output = net(images(4, size))
    assert output.requires_grad
    measured = sum(kept.values()) / 4
    assert measured < net.activation_bytes_per_row(image_size=size) < 1.6 * measured
    assert net.activation_bytes_per_row(torch.bfloat16, size) < 0.6 * net.activation_bytes_per_row(image_size=size)


def test_sizes_that_make_no_model_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.hidden_dim must be a multiple of 16 .* it is 40"):
        LandmarkNet(15, hidden_dim=40)
    with pytest.raises(ConfigError, match="at least one point"):
        LandmarkNet(0)


class EarlierNet(nn.Module):
    """The earlier program's layout, made from its weights' names: a flat trunk, attention, a head that flattens."""

    def __init__(self, deep: bool, hidden: int = 32) -> None:
        super().__init__()
        from torchvision.models import resnet18

        self.backbone_conv = nn.Sequential(*list(resnet18(weights=None).children())[:8])
        self.coord_attention = nn.ModuleDict(
            {
                "conv1": nn.Conv2d(512, 16, 1, bias=False),
                "bn1": nn.BatchNorm2d(16),
                "conv_h": nn.Conv2d(16, 512, 1, bias=False),
                "conv_w": nn.Conv2d(16, 512, 1, bias=False),
            }
        )
        layers: list[nn.Module] = [nn.Flatten()]
        if deep:
            layers += [nn.Linear(512, 512), nn.GroupNorm(32, 512), nn.ReLU(), nn.Dropout(0.3)]
            layers += [nn.Linear(512, hidden), nn.GroupNorm(16, hidden), nn.ReLU(), nn.Dropout(0.15)]
        else:
            layers += [nn.Dropout(0.3), nn.Linear(512, hidden), nn.ReLU(), nn.Dropout(0.15)]
        self.head = nn.Sequential(*layers, nn.Linear(hidden, 30), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        attention, x = self.coord_attention, self.backbone_conv(x)
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True)
        rows, columns = (torch.relu(attention["bn1"](attention["conv1"](part))) for part in (rows, columns))
        x = x * attention["conv_h"](rows).sigmoid() * attention["conv_w"](columns).sigmoid()
        output: Tensor = self.head(x.mean((2, 3), keepdim=True))
        return output


class TestWeights:
    @pytest.mark.parametrize("head", ["deep", "shallow"])
    def test_of_the_earlier_program(self, head: Any, tmp_path: Path) -> None:
        torch.manual_seed(3)
        earlier = EarlierNet(head == "deep").eval()
        path = tmp_path / "final_model.pt"
        write_pth(path, {"model_state_dict": earlier.state_dict(), "history": {"train_loss": []}})
        net = LandmarkNet(15, head=head, hidden_dim=32)
        assert "earlier program" in start_from(net, read_state_dict(path), path)
        with torch.no_grad():
            torch.testing.assert_close(net.eval()(images()).flatten(1), earlier(images()))

    def test_of_an_earlier_model_with_other_settings(self, tmp_path: Path) -> None:
        net = LandmarkNet(15, head="shallow", hidden_dim=48)
        with pytest.raises(ConfigError, match=r"old.pt: its weights are of another model.*head\.1\.weight"):
            start_from(net, EarlierNet(False).state_dict(), "old.pt")
        weights = EarlierNet(False).state_dict()
        weights["mystery.weight"] = torch.zeros(1)
        with pytest.raises(ConfigError, match=r"mystery\.weight is no weight"):
            start_from(net, weights, "old.pt")

    def test_of_a_classifier(self) -> None:
        from torchvision.models import resnet18

        classifier = resnet18(weights=None)
        weights = {name: value for name, value in classifier.state_dict().items() if "num_batches" not in name}
        net = LandmarkNet(4, head="shallow", hidden_dim=16)
        head = net.head[1].weight.clone()
        assert "classifier" in start_from(net, weights, "resnet18.pth")
        torch.testing.assert_close(net.trunk.layer4[1].conv2.weight, classifier.layer4[1].conv2.weight)
        assert torch.equal(net.head[1].weight, head)
        with pytest.raises(ConfigError, match="other sizes"):
            start_trunk(net, {**weights, "conv1.weight": torch.zeros(64, 1, 7, 7)}, "gray.pth")

    def test_of_its_own(self) -> None:
        one, other = (LandmarkNet(2, head="shallow", hidden_dim=16) for _ in range(2))
        assert start_from(one, other.state_dict(), "own.pth") == "a landmark model"
        assert torch.equal(one.head[1].weight, other.head[1].weight)
