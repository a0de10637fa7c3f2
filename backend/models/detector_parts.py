"""What torchvision's detectors have in common here: input, norms, anchors, and what one image costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from backend.models.detector_select import Selection

MEAN = (123.675, 116.28, 103.53)  # of ImageNet, of each colour from 0 to 255, as published weights expect
STD = (58.395, 57.12, 57.375)

Inputs = Tensor | list[Tensor]


class Detector(nn.Module, ABC):
    """Finds objects in square images; a subclass says how.

    It expects of a subclass the module ``backbone`` with the trunk ``body`` and the feature pyramid ``fpn``
    (`torchvision.models.detection.backbone_utils.BackboneWithFPN`), and the anchors' generator.

    Args:
        section: the settings in `model`.
        classes: how many there are, or their names, by which published weights find their rows in the head.
        image_size: side of the square, in pixels.
        sides: rows and columns of each level of features, fine to coarse.
        anchors: torchvision's AnchorGenerator for these levels.
    """

    backbone: nn.Module
    anchors: Tensor  # [A, 4] in pixels of the input, level by level
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        section: Mapping[str, Any],
        classes: int | Sequence[str],
        image_size: int,
        sides: Sequence[int],
        anchors: nn.Module,
    ) -> None:
        super().__init__()
        self.class_names = [] if isinstance(classes, int) else list(classes)
        self.classes = classes if isinstance(classes, int) else len(classes)
        self.image_size, self.sides = image_size, list(sides)
        self.norm_frozen = section["norm"] == "frozen"
        self.select = Selection(section["min_score"], section["nms_iou"], section["max_detections"])
        self.per_position: int = anchors.num_anchors_per_location()[0]
        self.anchors_per_level = [self.per_position * side**2 for side in sides]
        self.register_buffer("anchors", _laid_out(anchors, image_size, sides), persistent=False)
        for name, values in {"mean": MEAN, "std": STD}.items():
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    @abstractmethod
    def raw(self, images: Tensor) -> Any:
        """What the network says to uint8 images ``[n, 3, S, S]``, from which detections and losses are made."""

    @abstractmethod
    def detect(self, raw: Any, frames: Tensor) -> Tensor:
        """Detections as those of `forward`, from what `raw` gave."""

    def forward(self, images: Tensor, frames: Tensor) -> Tensor:
        """Detections ``[n, D, 6]`` in uint8 RGB images ``[n, 3, S, S]`` with frames ``[n, 6]``.

        Each is x1, y1, x2, y2 in pixels of the original image, clipped to it, then score (0 to 1) and label (from 0).
        They are sorted, the surest first; what is missing has score 0, label -1 and a box of zeros.
        """
        return self.detect(self.raw(images), frames)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The pyramid of features ``[n, c, side, side]``, fine to coarse, of uint8 images ``[n, 3, S, S]``."""
        normalised = (images.to(self.mean.dtype) - self.mean) / self.std
        found: dict[str, Tensor] = self.backbone(normalised.contiguous(memory_format=_layout(images)))
        return found

    def freeze_norms(self) -> None:
        """Call it when all parts are there: where `norm` is frozen, batch norms keep what they start from.

        That is their statistics, and in the trunk also scale and shift. Those of the other parts learn, which are new
        where only a trunk is loaded, and have no other shift.
        """
        if self.norm_frozen:
            for norm in _batch_norms(self._trunk()):
                norm.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Detector:
        """As every module's, but frozen norms stay in evaluation: in training their statistics move."""
        super().train(mode)
        if self.norm_frozen:
            for norm in _batch_norms(self):
                norm.eval()
        return self

    def trunk_parameters(self) -> list[nn.Parameter]:
        """Parameters of the trunk that learn: those that ImageNet weights can start."""
        return [parameter for parameter in self._trunk().parameters() if parameter.requires_grad]

    def activation_bytes_per_row(self, dtype: torch.dtype = torch.float32) -> int:
        """Memory that one image takes in a training step, without the weights: what is kept for the backward pass.

        Args:
            dtype: of the convolutions: fp32, or autocast's.
        """
        return sum(_kept_bytes(part, inputs, dtype) for part, inputs in self._work(training=True))

    def flops_per_row(self) -> int:
        """Multiplications and additions of one image's forward pass, the usual two per weight and position."""
        return sum(_flops(part, inputs) for part, inputs in self._work(training=False))

    @abstractmethod
    def _work(self, training: bool) -> list[tuple[nn.Module, Inputs]]:
        """The parts that take time and memory, each with its input for one image on the device `meta`."""

    def _blank_image(self) -> Tensor:
        return torch.empty(1, 3, self.image_size, self.image_size, device="meta")

    def _blank_features(self) -> list[Tensor]:
        channels: int = self.backbone.out_channels
        return [torch.empty(1, channels, side, side, device="meta", requires_grad=True) for side in self.sides]

    def _trunk(self) -> nn.Module:
        trunk = self.backbone.body
        assert isinstance(trunk, nn.Module)
        return trunk


def _layout(images: Tensor) -> torch.memory_format:
    """Channels last is what tensor cores want; not on a CPU, nor where determinism was asked for (see LandmarkNet)."""
    wanted = images.is_cuda and not torch.are_deterministic_algorithms_enabled()
    return torch.channels_last if wanted else torch.contiguous_format


def _batch_norms(part: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in part.modules() if isinstance(module, nn.BatchNorm2d)]


def _laid_out(generator: nn.Module, image_size: int, sides: Sequence[int]) -> Tensor:
    """All anchors of an image, ``[A, 4]``: once and in fp32; the generator would take the features' type."""
    from torchvision.models.detection.image_list import ImageList

    images = ImageList(torch.empty(1, 3, image_size, image_size), [(image_size, image_size)])
    anchors: Tensor = generator(images, [torch.empty(1, 1, side, side) for side in sides])[0]
    return anchors


def _stand_ins(part: nn.Module) -> dict[str, Tensor]:
    """The state of ``part`` without memory: `torch.func.functional_call` with it does no arithmetic."""
    state = {**dict(part.named_parameters()), **dict(part.named_buffers())}
    return {
        name: torch.empty_like(value, device="meta", requires_grad=value.requires_grad) for name, value in state.items()
    }


def _flops(part: nn.Module, inputs: Inputs) -> int:
    state = {name: value.detach() for name, value in _stand_ins(part).items()}
    still = inputs.detach() if isinstance(inputs, Tensor) else [one.detach() for one in inputs]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        torch.func.functional_call(part, state, (still,))
    return int(counter.get_total_flops())


def _kept_bytes(part: nn.Module, inputs: Inputs, dtype: torch.dtype) -> int:
    """What autograd keeps of a pass through ``part`` for the way back, each tensor once, without weights."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    state = _stand_ins(part)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        torch.func.functional_call(part, state, (inputs,))
    for weights in state.values():
        kept.pop(weights.untyped_storage()._cdata, None)
    return sum(t.numel() * (dtype.itemsize if t.is_floating_point() else t.itemsize) for t in kept.values())
