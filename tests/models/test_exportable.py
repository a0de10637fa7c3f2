"""What is exported answers as the models do."""

from __future__ import annotations

import pytest
import torch

from backend.models.convlstm import ConvLSTMNowcaster
from backend.models.exportable import PlainLandmarks, PlainNowcaster
from backend.models.landmarks import LandmarkNet


@pytest.mark.parametrize("norm", ["layer", "group", "none"])
@pytest.mark.parametrize("kernel", [3, 5])
def test_a_nowcaster_frame_by_frame(norm: str, kernel: int) -> None:
    torch.manual_seed(0)
    model = ConvLSTMNowcaster(5, 3, (12, 10), (6, 4, 5), kernel, norm).eval()  # type: ignore[arg-type]
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    frames = torch.rand(2, 5, 12, 10)
    with torch.no_grad():
        torch.testing.assert_close(PlainNowcaster(model)(frames), model(frames), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", ["deep", "shallow"])
@pytest.mark.parametrize("attention", [True, False])
def test_landmarks_of_bytes(head: str, attention: bool) -> None:
    torch.manual_seed(0)
    model = LandmarkNet(4, attention, head, hidden_dim=32).eval()  # type: ignore[arg-type]
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    plain = PlainLandmarks(model, lambda images: images / 255).eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(images), model(images / 255))
