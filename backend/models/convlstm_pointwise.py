"""The gate arithmetic of one frame, forward and backward, and the choice of what computes it.

Shapes throughout: ``gates``, ``from_hidden`` and ``grad_gates`` are ``[rows, 4 * hidden, H, W]`` in the dtype of the
convolutions, gates in the order i, f, o, g; ``h`` and ``grad_h`` are ``[rows, hidden, H, W]`` in the same dtype; ``c``,
``c_prev`` and ``grad_c`` are so in fp32 or better. All are channels-last without holes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

# (gates, from_hidden, c_prev, c, h) and (gates, c_prev, c, grad_h, grad_c, grad_gates); see `torch_forward`.
Forward = Callable[[Tensor, Tensor | None, Tensor | None, Tensor, Tensor], None]
Backward = Callable[[Tensor, Tensor | None, Tensor, Tensor, Tensor, Tensor], None]

_CACHED_VALUES = 128 << 10


@dataclass(frozen=True)
class Pointwise:
    """How the gate arithmetic is computed, and why in this way."""

    name: str
    reason: str
    forward: Forward
    backward: Backward


def torch_forward(gates: Tensor, from_hidden: Tensor | None, c_prev: Tensor | None, c: Tensor, h: Tensor) -> None:
    """Activate ``gates`` [rows, 4h, H, W] in place; write the new ``c`` and ``h`` [rows, h, H, W]."""
    for at in _blocks(c):
        _forward_block(gates[at], _part(from_hidden, at), _part(c_prev, at), c[at], h[at])


def torch_backward(
    gates: Tensor, c_prev: Tensor | None, c: Tensor, grad_h: Tensor, grad_c: Tensor, grad_gates: Tensor
) -> None:
    """Write the gradient before activation to ``grad_gates``; ``grad_c`` becomes that of the state before, in place."""
    blocks = _blocks(c)
    scratch = torch.empty_like(c[blocks[0]]), torch.empty_like(c[blocks[0]])
    for at in blocks:
        fitting = tuple(s[: len(c[at])] for s in scratch)
        _backward_block(gates[at], _part(c_prev, at), c[at], grad_h[at], grad_c[at], grad_gates[at], *fitting)


def _blocks(c: Tensor) -> list[slice]:
    """Rows to treat at once: all on a GPU; on a CPU as many as keep the intermediate values in its cache."""
    rows = len(c) if c.is_cuda else max(1, _CACHED_VALUES // c[0].numel())
    return [slice(n, n + rows) for n in range(0, len(c), rows)]


def _part(x: Tensor | None, at: slice) -> Tensor | None:
    return None if x is None else x[at]


def _forward_block(gates: Tensor, from_hidden: Tensor | None, c_prev: Tensor | None, c: Tensor, h: Tensor) -> None:
    if from_hidden is not None:
        gates.add_(from_hidden)
    hidden = c.shape[1]
    gates[:, : 3 * hidden].sigmoid_()
    gates[:, 3 * hidden :].tanh_()
    i, f, o, g = gates.chunk(4, dim=1)
    if c_prev is None:
        torch.mul(i, g, out=c)
    else:
        torch.mul(f, c_prev, out=c).addcmul_(i, g)
    torch.tanh(c, out=h).mul_(o)


def _backward_block(
    gates: Tensor,
    c_prev: Tensor | None,
    c: Tensor,
    grad_h: Tensor,
    grad_c: Tensor,
    grad_gates: Tensor,
    a: Tensor,
    b: Tensor,
) -> None:
    """Everything goes through two scratch frames ``a`` and ``b``: new memory costs a CPU more than the arithmetic."""
    i, f, o, g = gates.chunk(4, dim=1)
    grad_i, grad_f, grad_o, grad_g = grad_gates.chunk(4, dim=1)
    tanh_c = torch.tanh(c, out=a)
    torch.mul(_slope(o, b).mul_(tanh_c), grad_h, out=grad_o)
    grad_c.add_(torch.mul(grad_h, o, out=b))
    grad_c.addcmul_(b.mul_(tanh_c), tanh_c, value=-1)
    torch.mul(_slope(i, a).mul_(g), grad_c, out=grad_i)
    torch.mul(grad_c, i, out=a)
    torch.addcmul(a, torch.mul(a, g, out=b), g, value=-1, out=grad_g)
    if c_prev is None:
        grad_f.zero_()
    else:
        torch.mul(_slope(f, a).mul_(c_prev), grad_c, out=grad_f)
    grad_c.mul_(f)


def _slope(gate: Tensor, out: Tensor) -> Tensor:
    """The sigmoid's derivative, from its value."""
    return torch.addcmul(gate, gate, gate, value=-1, out=out)


TORCH = Pointwise("torch", "plain PyTorch operations", torch_forward, torch_backward)


@lru_cache
def choose_pointwise(device: torch.device, dtype: torch.dtype = torch.float32) -> Pointwise:
    """The fastest implementation that was seen to work on ``device``; its `reason` says why it was taken.

    Raises:
        torch.OutOfMemoryError: there is no room to try it; nothing is decided then.
    """
    if device.type != "cuda" or dtype == torch.float64:
        here = f"{dtype} on {device.type}".removeprefix("torch.")
        return replace(TORCH, reason=f"Triton kernels are for GPUs and fp32, bf16 or fp16; this is {here}")
    try:
        from backend.models import convlstm_triton as kernels

        pointwise = Pointwise("triton", "one kernel a frame, compared with PyTorch", kernels.forward, kernels.backward)
        problem = _disagreement(pointwise, device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever is wrong with Triton, its compiler or its cache: it is only a short cut
        problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        if shutil.which("cc") is None and shutil.which("gcc") is None:
            problem += " (there is no C compiler, which Triton needs)"
    if problem:
        return replace(TORCH, reason=f"Triton does not work here: {problem}")
    return pointwise


def _disagreement(pointwise: Pointwise, device: torch.device) -> str | None:
    """What is wrong with ``pointwise`` on a small frame in fp32, bf16 and fp16; None when it agrees with PyTorch."""
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)):
        for first in (True, False):
            ours, reference = (_trial(p, device, dtype, first) for p in (pointwise, TORCH))
            if not all(
                torch.allclose(a, b, atol=tolerance, rtol=tolerance) for a, b in zip(ours, reference, strict=True)
            ):
                return f"its results differ from PyTorch's in {dtype}"
    return None


def _trial(pointwise: Pointwise, device: torch.device, dtype: torch.dtype, first: bool) -> list[Tensor]:
    """All outputs of both directions on made-up numbers, in fp32."""
    generator = torch.Generator().manual_seed(0)

    def made(channels: int, dtype: torch.dtype) -> Tensor:
        values = torch.randn(2, channels, 5, 7, generator=generator)
        return values.to(device, dtype).contiguous(memory_format=torch.channels_last)

    gates, from_hidden = made(96, dtype), made(96, dtype)
    c_prev, c, h = made(24, torch.float32), made(24, torch.float32), made(24, dtype)
    grad_h, grad_c, grad_gates = made(24, dtype), made(24, torch.float32), made(96, dtype)
    before = None if first else c_prev
    pointwise.forward(gates, None if first else from_hidden, before, c, h)
    pointwise.backward(gates, before, c, grad_h, grad_c, grad_gates)
    return [t.float() for t in (gates, c, h, grad_c, grad_gates)]
