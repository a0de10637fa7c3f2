"""The gate arithmetic as one Triton kernel a direction: each number is read and written once. Import it only to try it.

Shapes and meaning are those of `convlstm_pointwise.torch_forward` and `torch_backward`. Arithmetic is fp32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit
def _tanh(x):  # type: ignore[no-untyped-def]
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit
def _forward_kernel(  # type: ignore[no-untyped-def]
    gates, from_hidden, c_prev, c, h, size, hidden: tl.constexpr, moving: tl.constexpr, block: tl.constexpr
):
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < size
    first = at // hidden * (4 * hidden) + at % hidden
    i = tl.load(gates + first, inside, 0.0).to(tl.float32)
    f = tl.load(gates + first + hidden, inside, 0.0).to(tl.float32)
    o = tl.load(gates + first + 2 * hidden, inside, 0.0).to(tl.float32)
    g = tl.load(gates + first + 3 * hidden, inside, 0.0).to(tl.float32)
    if moving:
        i += tl.load(from_hidden + first, inside, 0.0).to(tl.float32)
        f += tl.load(from_hidden + first + hidden, inside, 0.0).to(tl.float32)
        o += tl.load(from_hidden + first + 2 * hidden, inside, 0.0).to(tl.float32)
        g += tl.load(from_hidden + first + 3 * hidden, inside, 0.0).to(tl.float32)
    i, f, o, g = tl.sigmoid(i), tl.sigmoid(f), tl.sigmoid(o), _tanh(g)
    state = i * g
    if moving:
        state += f * tl.load(c_prev + at, inside, 0.0)
    tl.store(gates + first, i, inside)
    tl.store(gates + first + hidden, f, inside)
    tl.store(gates + first + 2 * hidden, o, inside)
    tl.store(gates + first + 3 * hidden, g, inside)
    tl.store(c + at, state, inside)
    tl.store(h + at, o * _tanh(state), inside)


@triton.jit
def _backward_kernel(  # type: ignore[no-untyped-def]
    gates, c_prev, c, grad_h, grad_c, grad_gates, size, hidden: tl.constexpr, moving: tl.constexpr, block: tl.constexpr
):
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < size
    first = at // hidden * (4 * hidden) + at % hidden
    i = tl.load(gates + first, inside, 0.0).to(tl.float32)
    f = tl.load(gates + first + hidden, inside, 0.0).to(tl.float32)
    o = tl.load(gates + first + 2 * hidden, inside, 0.0).to(tl.float32)
    g = tl.load(gates + first + 3 * hidden, inside, 0.0).to(tl.float32)
    tanh_c = _tanh(tl.load(c + at, inside, 0.0))
    of_h = tl.load(grad_h + at, inside, 0.0).to(tl.float32)
    of_c = tl.load(grad_c + at, inside, 0.0) + of_h * o * (1.0 - tanh_c * tanh_c)
    of_f = tl.zeros_like(of_c)
    if moving:
        of_f = of_c * tl.load(c_prev + at, inside, 0.0) * f * (1.0 - f)
    tl.store(grad_gates + first, of_c * g * i * (1.0 - i), inside)
    tl.store(grad_gates + first + hidden, of_f, inside)
    tl.store(grad_gates + first + 2 * hidden, of_h * tanh_c * o * (1.0 - o), inside)
    tl.store(grad_gates + first + 3 * hidden, of_c * i * (1.0 - g * g), inside)
    tl.store(grad_c + at, of_c * f, inside)


def forward(gates: Tensor, from_hidden: Tensor | None, c_prev: Tensor | None, c: Tensor, h: Tensor) -> None:
    """Activate ``gates`` in place; write ``c`` and ``h``. A state before needs both ``from_hidden`` and ``c_prev``."""
    moving = c_prev is not None
    grid = (triton.cdiv(c.numel(), _BLOCK),)
    with torch.cuda.device_of(gates):
        _forward_kernel[grid](
            gates,
            from_hidden if moving else gates,
            c_prev if moving else c,
            c,
            h,
            c.numel(),
            c.shape[1],
            moving,
            _BLOCK,
        )


def backward(
    gates: Tensor, c_prev: Tensor | None, c: Tensor, grad_h: Tensor, grad_c: Tensor, grad_gates: Tensor
) -> None:
    """Write ``grad_gates``, before activation; ``grad_c`` becomes that of the state before, in place."""
    moving = c_prev is not None
    grid = (triton.cdiv(c.numel(), _BLOCK),)
    with torch.cuda.device_of(gates):
        _backward_kernel[grid](
            gates, c_prev if moving else c, c, grad_h, grad_c, grad_gates, c.numel(), c.shape[1], moving, _BLOCK
        )
