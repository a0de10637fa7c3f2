"""Structural similarity where data is valid (Wang et al. 2004, doi:10.1109/TIP.2003.819861).

Window and filter are pytorch-msssim's. What is added is the map (that library returns means only), the choice of valid
positions, and variances kept from falling below zero by rounding.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from pytorch_msssim.ssim import _fspecial_gauss_1d, gaussian_filter
from torch import Tensor

from backend.errors import ConfigError

_C1, _C2 = 0.01**2, 0.03**2  # the customary constants for a data range of 1


@lru_cache(maxsize=8)
def _window(size: int, sigma: float, frames: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # kept from a validation, it must serve training too
        return _fspecial_gauss_1d(size, sigma).repeat(frames, 1, 1, 1).to(device, dtype)


def check_size(height: int, width: int, size: int) -> None:
    """Raise ConfigError where frames are smaller than the SSIM window."""
    if min(height, width) < size:
        raise ConfigError(
            f"loss.ssim_window is {size}, but frames are only {height}x{width}: "
            "take a smaller odd window, larger frames, or loss.ssim_weight: 0."
        )


def ssim_map(x: Tensor, y: Tensor, size: int = 7, sigma: float = 1.5) -> Tensor:
    """SSIM at every position whose window lies inside the frame, each frame by itself.

    Args:
        x, y: ``[rows, frames, H, W]`` with a data range of 1; fp32 or better.
        size: side of the Gaussian window in pixels, odd.
        sigma: its standard deviation in pixels.

    Returns:
        ``[rows, frames, H - size + 1, W - size + 1]``.

    Raises:
        ConfigError: a frame is smaller than the window.
    """
    height, width = x.shape[-2:]
    check_size(height, width, size)
    window = _window(size, sigma, x.shape[1], x.device, x.dtype)
    mean_x, mean_y, xx, yy, xy = (gaussian_filter(moment, window) for moment in (x, y, x * x, y * y, x * y))
    mean_product = mean_x * mean_y
    mean_squares = mean_x.square() + mean_y.square()
    variances = (xx - mean_x.square()).clamp(min=0) + (yy - mean_y.square()).clamp(min=0)
    structure = (2 * (xy - mean_product) + _C2) / (variances + _C2)
    return structure * (2 * mean_product + _C1) / (mean_squares + _C1)


def ssim_valid(valid: Tensor, size: int = 7) -> Tensor:
    """Positions of the SSIM map whose window touches no pixel without data, ``[rows, frames, H', W']`` of bool.

    Raises:
        ConfigError: a frame is smaller than the window.
    """
    check_size(valid.shape[-2], valid.shape[-1], size)
    if not valid.is_cuda and bool(valid.all()):  # on a GPU asking would make the host wait
        return valid[..., size - 1 :, size - 1 :]
    missing = (~valid).float()
    return F.max_pool2d(F.max_pool2d(missing, (size, 1), stride=1), (1, size), stride=1) == 0
