"""Normalisation of whole frames, over channels and space together.

``F.layer_norm`` gives one GPU block to a normalised row. A row here is a whole frame (8 million numbers at 250x250 with
128 channels), so a few blocks would do all the work; and it would first copy channels-last frames to contiguous ones.
Here the moments are ordinary reductions and the rest is element by element, in fp32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_FRAME = (1, 2, 3)


def _moments(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and reciprocal standard deviation of each frame, ``[frames, 1, 1, 1]``, in fp32 or better."""
    wide = torch.promote_types(x.dtype, torch.float32)
    variance, mean = torch.var_mean(x.to(wide), _FRAME, correction=0, keepdim=True)
    return mean, torch.rsqrt(variance + eps)


def _standardise(x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    return torch.addcmul(-mean * rstd, x.to(mean.dtype), rstd)


class _FrameNorm(torch.autograd.Function):
    """See `frame_norm`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        mean, rstd = _moments(x, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return torch.addcmul(bias, _standardise(x, mean, rstd), weight).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, rstd = ctx.saved_tensors
        normed, grad = _standardise(x, mean, rstd), grad.to(mean.dtype)
        summed = [0] if weight.shape[-1] > 1 else [0, 2, 3]
        grad_bias = grad.sum(summed).view_as(weight)
        grad_weight = (grad * normed).sum(summed).view_as(weight)
        grad = grad * weight
        correlation = (grad * normed).mean(_FRAME, keepdim=True)
        grad_x = grad.sub_(grad.mean(_FRAME, keepdim=True)).addcmul_(normed, correlation, value=-1).mul_(rstd)
        return grad_x.to(x.dtype), grad_weight, grad_bias, None


def frame_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalise every frame over channels and space, then scale and shift (Ba et al. 2016, arXiv:1607.06450).

    Equals ``F.layer_norm(x, x.shape[1:], …)`` for a ``weight`` of ``[C, H, W]`` and ``F.group_norm(x, 1, …)`` for one
    of ``[C]``.

    Args:
        x: frames ``[frames, C, H, W]``, channels-last.
        weight: scale, ``[C, H, W]`` or ``[C]``, fp32.
        bias: shift, of the same shape.
        eps: added to the variance.

    Returns:
        Frames in ``x``'s dtype; the arithmetic is fp32 at least.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    weight, bias = weight.to(wide), bias.to(wide)
    if not x.is_cuda:
        return _native(x, weight, bias, eps)
    shape = (1, -1, 1, 1) if weight.dim() == 1 else (1, *weight.shape)
    return _FrameNorm.apply(x, *(_nhwc(p.view(shape)) for p in (weight, bias)), eps)


def _native(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """PyTorch's own kernels, which are faster on a CPU; seen through flat frames, nothing is copied."""
    if weight.dim() == 1:
        return F.group_norm(x, 1, weight, bias, eps)
    flat = x.permute(0, 2, 3, 1).flatten(1)
    flat_weight, flat_bias = (p.permute(1, 2, 0).flatten() for p in (weight, bias))
    normed = F.layer_norm(flat, flat.shape[1:], flat_weight, flat_bias, eps)
    rows, channels, height, width = x.shape
    return normed.view(rows, height, width, channels).permute(0, 3, 1, 2)


def _nhwc(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
