"""The ConvLSTM and its loss on a CPU, each beside its named alternative in the same run; medians, a few minutes.

OMP_NUM_THREADS=1 python benchmarks/convlstm_cpu.py
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytorch_msssim
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from backend.models.convlstm import ConvLSTMNowcaster
from backend.models.convlstm_norm import frame_norm
from benchmarks.convlstm_textbook import textbook
from training.losses.ssim import ssim_map

REPEATS = 5


def compare(what: str, ours: Callable[[], object], name: str, other: Callable[[], object]) -> None:
    """Print both medians, measured in turns, and their ratio."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS + 1):
        for run, seconds in zip((ours, other), times, strict=True):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
    mine, theirs = (statistics.median(seconds[1:]) for seconds in times)
    print(f"{what}: {1e3 * mine:.1f} ms; {name}: {1e3 * theirs:.1f} ms; {theirs / mine:.2f} times as fast", flush=True)


def nhwc(x: Tensor) -> Tensor:
    """``x`` channels-last."""
    return x.contiguous(memory_format=torch.channels_last)


def models() -> None:
    """A training step's forward and backward pass."""
    for rows, steps, size, hidden in [(2, 8, 64, 32), (2, 8, 64, 64), (8, 8, 64, 32), (1, 2, 250, 64)]:
        model = ConvLSTMNowcaster(steps, 7, (size, size), (hidden, hidden))
        x = torch.rand(rows, steps, size, size)
        ours = lambda m=model, x=x: m(x).mean().backward()  # noqa: E731
        other = lambda m=model, x=x: textbook(m, x).mean().backward()  # noqa: E731
        compare(f"step, {rows} rows of {steps} frames {size}x{size}, hidden 2x{hidden}", ours, "textbook", other)


@torch.no_grad()
def convolutions() -> None:
    """The gates' convolution in either layout of memory."""
    for rows, hidden, size in [(2, 32, 64), (2, 64, 64), (1, 128, 250)]:
        x, weight = torch.rand(rows, hidden, size, size), torch.rand(4 * hidden, hidden, 3, 3)
        last = nhwc(x), nhwc(weight)
        ours = lambda tensors=last: F.conv2d(*tensors, padding=1)  # noqa: E731
        other = lambda tensors=(x, weight): F.conv2d(*tensors, padding=1)  # noqa: E731
        compare(f"gates, {rows} rows {size}x{size}, hidden {hidden}, channels-last", ours, "contiguous", other)


def norms() -> None:
    """Normalisation of channels-last frames, with the backward pass."""
    for frames, channels, size in [(16, 48, 64), (2, 128, 250)]:
        x = nhwc(torch.rand(frames, channels, size, size)).requires_grad_()
        weight, bias = (torch.rand(channels, size, size, requires_grad=True) for _ in range(2))
        gradient = nhwc(torch.rand_like(x))
        ours = lambda x=x, w=weight, b=bias, g=gradient: frame_norm(x, w, b).backward(g)  # noqa: E731
        other = lambda x=x, w=weight, b=bias, g=gradient: nhwc(F.layer_norm(x, x.shape[1:], w, b)).backward(g)  # noqa: E731
        compare(f"norm, {frames} frames {channels}x{size}x{size}", ours, "F.layer_norm", other)


def similarities() -> None:
    """SSIM with its gradient."""
    for shape in [(16, 7, 64, 64), (1, 7, 250, 250)]:
        x, y = torch.rand(shape, requires_grad=True), torch.rand(shape)
        ours = lambda x=x, y=y: ssim_map(x, y).mean().backward()  # noqa: E731
        other = lambda x=x, y=y: pytorch_msssim.ssim(x, y, data_range=1, win_size=7).backward()  # noqa: E731
        compare(f"SSIM of {list(shape)}", ours, "pytorch-msssim", other)


if __name__ == "__main__":
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for part in (similarities, convolutions, norms, models):
        part()
