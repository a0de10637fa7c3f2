"""The ConvLSTM as textbooks write it: the yardstick for the model's results (tests) and speed (benchmarks).

One convolution over the concatenated input and state per frame, layer by layer, plain PyTorch operations throughout.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from backend.models.convlstm import ConvLSTMNowcaster


def textbook(model: ConvLSTMNowcaster, x: Tensor) -> Tensor:
    """What ``model`` computes from ``x`` ``[rows, T, H, W]``, with its weights."""
    frames = [x[:, t : t + 1] for t in range(x.shape[1])]
    last = len(model.layers) - 1
    for n, layer in enumerate(model.layers):
        conv = layer.cell.conv
        hidden = conv.out_channels // 4
        h = c = x.new_zeros(len(x), hidden, *x.shape[2:])
        outputs = []
        for frame in frames:
            gates = F.conv2d(torch.cat([frame, h], 1), conv.weight, conv.bias, padding=conv.kernel_size[0] // 2)
            i, f, o, g = gates.chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        norm = None if n == last else layer.layer_norm or layer.group_norm
        frames = outputs if norm is None else [norm(output) for output in outputs]
    return torch.sigmoid(model.output_conv(frames[-1].unsqueeze(2)).squeeze(2))
