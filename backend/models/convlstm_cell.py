"""The recurrence of one ConvLSTM layer over a stretch of frames, as one autograd function.

Equations (Shi et al. 2015, arXiv:1506.04214, without peepholes), gates in the order i, f, o, g:

    [i, f, o, g] = W * [x_t, h_(t-1)] + b        one convolution
    c_t = sigmoid(f) c_(t-1) + sigmoid(i) tanh(g)
    h_t = sigmoid(o) tanh(c_t)

Why a function of its own instead of plain operations:

* ``W * [x, h] = Wx * x + Wh * h``, so ``Wx`` is applied to all frames of the stretch as one batched convolution; only
  ``Wh * h`` stays sequential, and at a zero state it is not computed at all.
* A frame keeps its four activated gates and its cell state, each written once in the place where the convolution
  left its result. Plain operations keep about twice as much.
* The weight's gradient is one batched convolution over the stretch instead of one per frame.

Frames are stored time-major and channels-last: ``[frames * rows, channels, H, W]``. Channels-last is what tensor cores
read, and on a CPU it is 1.1 to 1.2 times as fast as contiguous (``benchmarks/convlstm_cpu.py``). The cell state stays
in fp32 under mixed precision: it is a sum over all frames, and in bf16 an increment below 1/256 of it would vanish.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from backend.models.convlstm_pointwise import TORCH, Pointwise


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


def _transposed(weight: Tensor) -> Tensor:
    """The weight whose forward convolution is the input gradient of ``weight``'s (stride 1, odd kernel)."""
    return _nhwc(weight.flip(2, 3).transpose(0, 1))


def _nhwc(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _weight_grad(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    pad = weight.shape[-1] // 2
    conv_backward = torch.ops.aten.convolution_backward
    return conv_backward(grad, x, weight, None, [1, 1], [pad, pad], [1, 1], False, [0, 0], 1, [False, True, False])[1]


def _align(x: Tensor) -> Tensor:
    """Pad channels to a multiple of eight for half precision on a GPU: tensor-core kernels read eight at a time."""
    short = -x.shape[1] % 8
    if not short or not x.is_cuda or x.element_size() != 2:
        return _nhwc(x)
    return _nhwc(F.pad(x, (0, 0, 0, 0, 0, short)))


class _Recurrence(torch.autograd.Function):
    """See `recur`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        h0: Tensor | None,
        c0: Tensor | None,
        rows: int,
        how: Pointwise,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        wx, wh = _align(weight[:, : x.shape[1]]), _nhwc(weight[:, x.shape[1] :])
        gates = _nhwc(_conv(_align(x), wx, bias))
        frames, hidden = len(x) // rows, wh.shape[1]
        hs = torch.empty_like(gates[:, :hidden], memory_format=torch.channels_last)
        cs = torch.empty_like(hs, dtype=torch.promote_types(x.dtype, torch.float32))
        h, c = h0, c0
        for t in range(frames):
            at = slice(t * rows, (t + 1) * rows)
            from_hidden = None if h is None else _nhwc(_conv(h, wh))
            how.forward(gates[at], from_hidden, c, cs[at], hs[at])
            h, c = hs[at], cs[at]
        ctx.save_for_backward(x, weight, h0, c0, gates, hs, cs)
        ctx.rows, ctx.how = rows, how
        return hs, hs[-rows:].clone(), cs[-rows:].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_hs: Tensor | None, grad_h: Tensor | None, grad_c: Tensor | None) -> tuple[Any, ...]:
        kept = _Kept(*ctx.saved_tensors)  # once: a checkpoint gives them out only once
        inputs = kept.x.shape[1]
        with torch.autocast(kept.x.device.type, enabled=False):
            grad_gates, grad_h0, grad_c0 = _through_time(kept, ctx.rows, ctx.how, grad_hs, grad_h, grad_c)
            grad_x = grad_weight = grad_bias = None
            if ctx.needs_input_grad[0]:
                grad_x = _conv(grad_gates, _transposed(kept.weight[:, :inputs]))
            if ctx.needs_input_grad[1]:
                grad_weight = _whole_weight_grad(kept, grad_gates, ctx.rows)
            if ctx.needs_input_grad[2]:
                grad_bias = grad_gates.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias, grad_h0, grad_c0, None, None


class _Kept(NamedTuple):
    """What the backward pass of a stretch needs."""

    x: Tensor
    weight: Tensor
    h0: Tensor | None
    c0: Tensor | None
    gates: Tensor
    hs: Tensor
    cs: Tensor


def _through_time(
    kept: _Kept, rows: int, how: Pointwise, grad_hs: Tensor | None, grad_h: Tensor | None, grad_c: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Back-propagation through time: gradients of all gates before activation, and of the first states."""
    x, weight, h0, c0, gates, hs, cs = kept
    wh = _transposed(weight[:, x.shape[1] :])
    grad_gates = torch.empty_like(gates)
    grad_c = torch.zeros_like(cs[:rows]) if grad_c is None else grad_c.clone(memory_format=torch.channels_last)
    for t in reversed(range(len(x) // rows)):
        at, before = slice(t * rows, (t + 1) * rows), slice((t - 1) * rows, t * rows)
        total = _total(grad_h, None if grad_hs is None else grad_hs[at])
        total = torch.zeros_like(hs[at]) if total is None else _nhwc(total)
        how.backward(gates[at], cs[before] if t else c0, cs[at], total, grad_c, grad_gates[at])
        grad_h = _conv(grad_gates[at], wh) if t or h0 is not None else None
    return grad_gates, grad_h, None if c0 is None else grad_c


def _total(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return a if b is None else b if a is None else a + b


def _whole_weight_grad(kept: _Kept, grad_gates: Tensor, rows: int) -> Tensor:
    x, weight, h0, _, _, hs, _ = kept
    inputs = x.shape[1]
    wx, wh = _align(weight[:, :inputs]), _nhwc(weight[:, inputs:])
    of_input = _weight_grad(grad_gates, _align(x), wx)[:, :inputs]
    of_hidden = torch.zeros_like(wh)
    if len(hs) > rows:
        of_hidden += _weight_grad(grad_gates[rows:], hs[:-rows], wh)
    if h0 is not None:
        of_hidden += _weight_grad(grad_gates[:rows], h0, wh)
    return torch.cat([of_input, of_hidden], dim=1)


def recur(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    state: tuple[Tensor, Tensor] | None,
    rows: int,
    how: Pointwise = TORCH,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Run one layer over consecutive frames.

    Args:
        x: ``[frames * rows, in, H, W]``, time-major, in the dtype to compute in.
        weight: ``[4 * hidden, in + hidden, k, k]``, k odd, the gates in the order i, f, o, g; same dtype.
        bias: ``[4 * hidden]``, same dtype.
        state: hidden and cell state ``[rows, hidden, H, W]`` before the first frame; None is zero.
        rows: how many sequences run side by side.
        how: the implementation of the gate arithmetic.

    Returns:
        All hidden states ``[frames * rows, hidden, H, W]``, and the last hidden and cell state.
    """
    h0, c0 = state or (None, None)
    hs, h, c = _Recurrence.apply(x, weight, bias, h0, c0, rows, how)
    return hs, (h, c)
