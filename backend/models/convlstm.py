"""ConvLSTM radar nowcasting: past frames in, all future frames out at once (Shi et al. 2015, arXiv:1506.04214).

Layers of convolutional LSTM cells, a normalisation over whole frames between them, and a convolution that reads every
lead time from the last hidden state. `convlstm_cell` says how a layer is computed and why it is fast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from backend.errors import ConfigError
from backend.models.convlstm_cell import recur
from backend.models.convlstm_norm import frame_norm
from backend.models.convlstm_pointwise import Pointwise, choose_pointwise

Norm = Literal["layer", "group", "none"]
State = tuple[Tensor, Tensor]

# Gates of this many bytes are computed at once: enough to fill the device, little beside a layer's activations.
_STRETCH_BYTES = {"cuda": 1 << 30, "cpu": 512 << 20}


class ConvLSTMCell(nn.Module):
    """The weights of one layer's gates: ``conv.weight`` is ``[4 * hidden, in + hidden, k, k]``, order i, f, o, g."""

    def __init__(self, input_dim: int, hidden_dim: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(input_dim + hidden_dim, 4 * hidden_dim, kernel_size, padding=kernel_size // 2)
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(cast(Tensor, self.conv.bias))


class ConvLSTMLayer(nn.Module):
    """One cell and the normalisation of its output frames, which the next layer reads."""

    def __init__(
        self, input_dim: int, hidden_dim: int, kernel_size: int, image_size: tuple[int, int], norm: Norm, last: bool
    ) -> None:
        super().__init__()
        self.cell = ConvLSTMCell(input_dim, hidden_dim, kernel_size)
        self.layer_norm: nn.LayerNorm | None = None
        self.group_norm: nn.GroupNorm | None = None
        if norm == "layer":
            # The last layer's has no use: it is there because published weights hold it.
            self.layer_norm = nn.LayerNorm([hidden_dim, *image_size]).requires_grad_(not last)
        elif norm == "group" and not last:
            self.group_norm = nn.GroupNorm(1, hidden_dim)

    def normalise(self, frames: Tensor) -> Tensor:
        """What the next layer sees of this layer's hidden states ``[frames, hidden, H, W]``."""
        norm = self.layer_norm or self.group_norm
        return frames if norm is None else frame_norm(frames, norm.weight, norm.bias, norm.eps)


class ConvLSTMNowcaster(nn.Module):
    """Forecasts ``prediction_steps`` frames from ``input_steps`` frames, normalised to [0, 1].

    Args:
        input_steps: frames that the memory estimates assume; ``forward`` takes any number.
        prediction_steps: frames forecast, all from the last hidden state.
        image_size: (H, W) in pixels; ``norm="layer"`` ties the weights to it.
        hidden_dims: channels of each layer's state.
        kernel_size: of the gates' convolution, odd.
        norm: between layers: over [C, H, W] with a scale per value (``layer``), per channel (``group``), or none.
        gradient_checkpointing: keep the states between stretches of frames only and compute the rest again in the
            backward pass: a third more arithmetic for about a third of the memory.

    Raises:
        ConfigError: a size is not positive, or the kernel is even.
    """

    def __init__(
        self,
        input_steps: int = 18,
        prediction_steps: int = 7,
        image_size: Sequence[int] = (250, 250),
        hidden_dims: Sequence[int] = (128, 128, 128),
        kernel_size: int = 3,
        norm: Norm = "layer",
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        height, width = _checked(input_steps, prediction_steps, image_size, hidden_dims, kernel_size)
        self.input_steps, self.image_size, self.norm = input_steps, (height, width), norm
        self.gradient_checkpointing = gradient_checkpointing
        self.pointwise: Pointwise | None = None  # None: the best that works on the device
        last = len(hidden_dims) - 1
        self.layers = nn.ModuleList(
            ConvLSTMLayer(into, hidden, kernel_size, self.image_size, norm, n == last)
            for n, (into, hidden) in enumerate(pairwise([1, *hidden_dims]))
        )
        self.output_conv = nn.Conv3d(
            hidden_dims[-1],
            prediction_steps,
            (1, kernel_size, kernel_size),
            padding=(0, kernel_size // 2, kernel_size // 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Forecast ``[rows, prediction_steps, H, W]`` in (0, 1), fp32 or better, from ``x`` ``[rows, T, H, W]``.

        Raises:
            ConfigError: the frames are not of the size that the weights are tied to.
        """
        self._check_input(x)
        rows, device = len(x), x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self._weight_dtype()
        with torch.autocast(device, enabled=False):
            h = self._last_hidden(x.to(dtype).transpose(0, 1), rows)
            weight, bias = self.output_conv.weight.squeeze(2), cast(Tensor, self.output_conv.bias)
            logits = F.conv2d(h, weight.to(dtype), bias.to(dtype), padding=weight.shape[-1] // 2)
            return torch.sigmoid(logits.to(torch.promote_types(dtype, torch.float32))).contiguous()

    def _last_hidden(self, frames: Tensor, rows: int) -> Tensor:
        """The last layer's hidden state after the last of ``frames`` ``[T, rows, H, W]``."""
        how = self.pointwise or choose_pointwise(frames.device, frames.dtype)
        gate_values = self._widest() * rows * frames[0, 0].numel()
        at_once = self._stretch(len(frames), gate_values * frames.element_size(), frames.device.type)
        stretches = list(frames.flatten(0, 1).unsqueeze(1).split(at_once * rows))
        for below, layer in pairwise([None, *self.layers]):
            state: State | None = None
            outputs = []
            for stretch in stretches:
                hidden, state = self._run(below, layer, stretch, state, rows, how)
                outputs.append(hidden)
            stretches = outputs
        assert state is not None
        return state[0]

    def _run(self, *arguments: Any) -> tuple[Tensor, State]:
        if not (self.gradient_checkpointing and torch.is_grad_enabled()):
            return _run_stretch(*arguments)
        with set_checkpoint_early_stop(False):  # stopping early leaves a reference cycle that holds every stretch
            return checkpoint(_run_stretch, *arguments, use_reentrant=False, preserve_rng_state=False)

    def _stretch(self, steps: int, frame_bytes: int, device_type: str) -> int:
        """Frames computed at once, when the gates of one take ``frame_bytes``."""
        fitting = max(1, _STRETCH_BYTES.get(device_type, _STRETCH_BYTES["cpu"]) // frame_bytes)
        return min(fitting, _segment(steps) if self.gradient_checkpointing else steps)

    def _widest(self) -> int:
        """Gate channels of the widest layer."""
        return max(layer.cell.conv.out_channels for layer in self.layers)

    def activation_bytes_per_row(self, dtype: torch.dtype = torch.float32, device_type: str = "cpu") -> int:
        """Memory that one row of ``input_steps`` frames takes in a training step at its peak, without the weights.

        Args:
            dtype: of the convolutions: fp32, or autocast's.
            device_type: ``cpu`` or ``cuda``.
        """
        size = dtype.itemsize
        at_once = self._stretch(self.input_steps, self._widest() * math.prod(self.image_size) * size, device_type)
        # Per pixel and frame: activated gates, h and the normalised input in `size` bytes each, c in 4.
        inner = [h * (5 * size + 4) + below * size for below, h in self._widths()]
        passing = [h * 4 * size + below * 2 * size for below, h in self._widths()]  # gradients of one stretch
        if self.gradient_checkpointing:
            states = sum(h * (size + 4) for _, h in self._widths()) * math.ceil(self.input_steps / at_once)
            outputs = sum(h * size for _, h in self._widths()) * self.input_steps
            values = states + outputs + at_once * max(i + p for i, p in zip(inner, passing, strict=True))
        else:
            values = sum(inner) * self.input_steps + max(passing) * at_once
        return values * math.prod(self.image_size)

    def flops_per_row(self, steps: int | None = None) -> int:
        """Multiplications and additions of all convolutions of one forward pass of one row, the usual two per weight.

        A training step takes three times as many; a state of zero is counted like any other.
        """
        weights = sum(layer.cell.conv.weight.numel() for layer in self.layers) * (steps or self.input_steps)
        return 2 * (weights + self.output_conv.weight.numel()) * math.prod(self.image_size)

    def _widths(self) -> list[tuple[int, int]]:
        """Input and hidden channels of each layer."""
        convs = [layer.cell.conv for layer in self.layers]
        return [(conv.in_channels - conv.out_channels // 4, conv.out_channels // 4) for conv in convs]

    def _weight_dtype(self) -> torch.dtype:
        return self.output_conv.weight.dtype

    def _check_input(self, x: Tensor) -> None:
        tied = self.norm == "layer"
        if x.dim() != 4 or (tied and tuple(x.shape[2:]) != self.image_size):
            raise ConfigError(
                f"the model takes frames as [rows, T, {self.image_size[0]}, {self.image_size[1]}], but got "
                f"{list(x.shape)}; its layer normalisation is tied to that size (model.norm: group is not)."
            )


def _run_stretch(
    below: ConvLSTMLayer | None, layer: ConvLSTMLayer, frames: Tensor, state: State | None, rows: int, how: Pointwise
) -> tuple[Tensor, State]:
    """One layer over consecutive ``frames`` of the layer below, normalised here so that a checkpoint covers it."""
    x = frames if below is None else below.normalise(frames)
    conv = layer.cell.conv
    return recur(x, conv.weight.to(x.dtype), cast(Tensor, conv.bias).to(x.dtype), state, rows, how)


def _segment(steps: int) -> int:
    """Frames between two checkpoints: the square root balances what is kept against what is computed again."""
    return math.ceil(math.sqrt(steps))


def _checked(
    input_steps: int, prediction_steps: int, image_size: Sequence[int], hidden_dims: Sequence[int], kernel_size: int
) -> tuple[int, int]:
    """The image size, when all sizes make sense."""
    if len(image_size) != 2 or not hidden_dims or min(input_steps, prediction_steps, *image_size, *hidden_dims) < 1:
        raise ConfigError(
            "the model needs positive sizes: "
            f"input_steps {input_steps}, prediction_steps {prediction_steps}, image_size {list(image_size)}, "
            f"hidden_dims {list(hidden_dims)}."
        )
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ConfigError(f"model.kernel_size must be odd, so that frames keep their size; it is {kernel_size}.")
    return image_size[0], image_size[1]
