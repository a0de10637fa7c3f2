"""SSIM equals the library's where everything is valid, and looks at valid positions alone where not."""

from __future__ import annotations

import pytest
import pytorch_msssim
import torch
from torch import Tensor

from backend.errors import ConfigError
from training.losses.ssim import ssim_map, ssim_valid


def frames(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


class TestMap:
    @pytest.mark.parametrize("size", [(7, 1.5), (11, 1.5), (5, 0.8)])
    @pytest.mark.parametrize("shape", [(2, 7, 24, 31), (1, 1, 11, 11)])
    def test_its_mean_is_the_librarys(self, shape: tuple[int, ...], size: tuple[int, float]) -> None:
        x = frames(*shape)
        y = (x + 0.2 * frames(*shape, seed=1)).clamp(0, 1)
        expected = pytorch_msssim.ssim(x, y, data_range=1, size_average=False, win_size=size[0], win_sigma=size[1])
        torch.testing.assert_close(ssim_map(x, y, *size).mean((1, 2, 3)), expected, atol=1e-5, rtol=0)

    def test_its_gradient_is_the_librarys(self) -> None:
        x, y = frames(1, 2, 20, 20).requires_grad_(), frames(1, 2, 20, 20, seed=1)
        (ours,) = torch.autograd.grad(ssim_map(x, y).mean(), x)
        (expected,) = torch.autograd.grad(pytorch_msssim.ssim(x, y, data_range=1, win_size=7, win_sigma=1.5), x)
        torch.testing.assert_close(ours, expected, atol=1e-7, rtol=1e-3)

    def test_training_after_a_validation_in_inference_mode(self) -> None:
        with torch.inference_mode():
            ssim_map(frames(1, 3, 20, 20), frames(1, 3, 20, 20), 9, 1.7)
        x = frames(1, 3, 20, 20).requires_grad_()
        ssim_map(x, frames(1, 3, 20, 20, seed=1), 9, 1.7).mean().backward()
        assert x.grad is not None

    def test_one_for_equal_frames(self) -> None:
        x = frames(1, 2, 20, 20)
        torch.testing.assert_close(ssim_map(x, x), torch.ones(1, 2, 14, 14))

    @pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
    def test_flat_frames_stay_within_bounds(self, level: float) -> None:
        """Rounding makes the variance of a flat frame negative; unclamped, similarity could leave [-1, 1]."""
        x = torch.full((1, 1, 30, 30), level)
        similarity = ssim_map(x, x + 1e-4 * frames(1, 1, 30, 30))
        assert similarity.isfinite().all()
        assert similarity.max() <= 1 + 1e-4

    def test_a_frame_smaller_than_the_window(self) -> None:
        with pytest.raises(ConfigError, match=r"ssim_window is 7.*only 6x20"):
            ssim_map(frames(1, 1, 6, 20), frames(1, 1, 6, 20))


class TestValidPositions:
    def test_all(self) -> None:
        assert ssim_valid(torch.ones(2, 3, 20, 10, dtype=torch.bool)).sum() == 2 * 3 * 14 * 4

    def test_exactly_the_windows_without_a_missing_pixel(self) -> None:
        valid = frames(2, 3, 20, 18) > 0.02
        windows = valid.unfold(2, 7, 1).unfold(3, 7, 1).all(-1).all(-1)
        assert 0 < windows.sum() < windows.numel()
        assert torch.equal(ssim_valid(valid), windows)

    def test_a_frame_smaller_than_the_window(self) -> None:
        with pytest.raises(ConfigError, match="ssim_window"):
            ssim_valid(torch.ones(1, 1, 20, 6, dtype=torch.bool))
