"""RT-DETRv2 (Lv et al. 2024, arXiv:2407.17140), a detector without anchors and suppression, of transformers' modules.

An image's features become a sequence of places; the most promising of them are the first guesses of ``queries``
objects, which a decoder refines. transformers is an optional package (`training/requirements.transformers.txt`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from backend.errors import ConfigError
from backend.models.boxes import clipped, to_image, to_network, wide

STRIDES = (8, 16, 32)
"""Pixels between two places of each level of features."""

LEAST_SIDE = 1e-2  # pixels of the original image: what is smaller lies outside of it
_GREATEST = 255.0


@dataclass(frozen=True)
class Sizes:
    """How large the network is; the defaults are those of the published PekingU/rtdetr_v2_r18vd."""

    stem: int = 64
    stages: tuple[int, ...] = (64, 128, 256, 512)  # channels of the ResNet-18's four stages
    depths: tuple[int, ...] = (2, 2, 2, 2)
    width: int = 256
    expansion: float = 0.5  # of the blocks that mix levels of features
    inner: int = 1024  # width of the feed-forward layers
    heads: int = 8
    layers: int = 3  # of the decoder


PUBLISHED = Sizes()


@dataclass(frozen=True)
class Noisy:
    """Noisy copies of true boxes, which the decoder is to repair: M queries of each image, padded.

    Attributes:
        labels: ``[n, M]`` int64; the number of classes stands for none.
        boxes: ``[n, M, 4]`` (centre, width, height; shares of the image) before the sigmoid.
        hidden: ``[n, M, M]`` bool, what the copies must not see of each other; each sees itself.
    """

    labels: Tensor
    boxes: Tensor
    hidden: Tensor


@dataclass(frozen=True)
class Answers:
    """What the network says of n images: after each of L layers about Q objects and M noisy copies. fp32.

    Boxes are centre, width and height, as shares of the network's image.
    """

    logits: Tensor  # [n, L, Q, K]
    boxes: Tensor  # [n, L, Q, 4]
    first_logits: Tensor  # [n, Q, K], the first guesses
    first_boxes: Tensor  # [n, Q, 4]
    noisy_logits: Tensor  # [n, L, M, K]
    noisy_boxes: Tensor  # [n, L, M, 4]


class RTDetr(nn.Module):
    """Finds boxes of ``classes`` classes.

    Args:
        model_section: the settings ``queries``, ``denoising``, ``norm``, ``min_score`` and ``max_detections``.
        classes: how many.
        image_size: side of the network's square images, a multiple of 32.
        sizes: of the network; smaller ones are for tests.

    Raises:
        ConfigError: transformers is not installed, or does not work with this PyTorch.
    """

    def __init__(
        self, model_section: Mapping[str, Any], classes: int, image_size: int, sizes: Sizes = PUBLISHED
    ) -> None:
        super().__init__()
        self.classes, self.image_size, self.sizes = classes, image_size, sizes
        self.queries, self.denoising = int(model_section["queries"]), int(model_section["denoising"])
        self.min_score = float(model_section["min_score"])
        self.max_detections = int(model_section["max_detections"])
        self.norms_frozen = model_section["norm"] == "frozen"
        self.net = _network(self.queries, self.denoising, classes, sizes)
        _start_norms(self.net)
        self.freeze_norms(self.norms_frozen)

    def forward(self, images: Tensor, frames: Tensor) -> Tensor:
        """Boxes ``[n, D, 6]`` of images (uint8 ``[n, 3, S, S]``) as x1, y1, x2, y2, score, label; the surest first.

        Boxes are in pixels of the original image, by ``frames`` (``[n, 6]``), and clipped to it. What is missing has
        score 0, label -1 and zeros.
        """
        answers = self.answers(images)
        return self.detections(answers, frames)

    def answers(self, images: Tensor, noisy: Noisy | None = None) -> Answers:
        """What the network says of uint8 ``images``, and of ``noisy`` copies of true boxes.

        Only the features are computed in autocast's precision: a box would be off by pixels in bf16.
        """
        features = self._features(images)
        with torch.autocast(images.device.type, enabled=False):
            return self._decoded([wide(level) for level in features], noisy)

    def detections(self, answers: Answers, frames: Tensor) -> Tensor:
        """The surest boxes of the last layer, as `forward` gives them."""
        with torch.autocast(frames.device.type, enabled=False):
            boxes = corners(answers.boxes[:, -1], frames.to(answers.boxes.dtype), self.image_size)
            seen = ((boxes[..., 2:] - boxes[..., :2]) >= LEAST_SIDE).all(-1, keepdim=True)
            scores = (answers.logits[:, -1].sigmoid() * seen).flatten(1)
            best, place = scores.topk(min(self.max_detections, scores.shape[1]), dim=1)
            chosen = boxes.gather(1, (place // self.classes).unsqueeze(-1).expand(-1, -1, 4))
            labels = (place % self.classes).to(best.dtype)
            kept = ((best >= self.min_score) & (best > 0)).unsqueeze(-1)
            found = torch.cat([chosen, best.unsqueeze(-1), labels.unsqueeze(-1)], dim=-1)
            nothing = found.new_tensor([0.0, 0.0, 0.0, 0.0, 0.0, -1.0])
            found = torch.where(kept, found, nothing)
            missing = self.max_detections - found.shape[1]
            return torch.cat([found, nothing.expand(len(found), missing, 6)], dim=1) if missing else found

    def freeze_norms(self, frozen: bool) -> None:
        """Keep scale, shift and statistics of all batch norms as they are, or let them learn again."""
        self.norms_frozen = frozen
        for norm in self._norms():
            norm.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> RTDetr:
        """As every module's, but frozen batch norms stay in evaluation."""
        super().train(mode)
        if self.norms_frozen:
            for norm in self._norms():
                norm.eval()
        return self

    def trunk_parameters(self) -> list[nn.Parameter]:
        """Parameters of the ResNet."""
        return list(self.net.backbone.parameters())

    def activation_bytes_per_row(self, dtype: torch.dtype = torch.float32) -> int:
        """Memory that one image takes in a training step at its peak, without the weights: what backward needs.

        Args:
            dtype: of the features: fp32, or autocast's.
        """
        features, decoder = self._measured[1:]
        return features * dtype.itemsize // torch.float32.itemsize + decoder

    def flops_per_row(self) -> int:
        """Multiplications and additions of one image's forward pass."""
        return self._measured[0]

    @cached_property
    def _measured(self) -> tuple[int, int, int]:
        """Operations of a forward pass, and bytes (in fp32) that features and decoder keep for the backward pass."""
        from torch.utils.flop_counter import FlopCounterMode

        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            twin = RTDetr(self._section(), self.classes, self.image_size, self.sizes).eval()
            images = torch.zeros(1, 3, self.image_size, self.image_size, dtype=torch.uint8)
        with FlopCounterMode(display=False) as counter:
            features, kept = _kept_by(lambda: twin._features(images))
            _, more = _kept_by(lambda: twin._decoded(features, None))
        return counter.get_total_flops(), kept, more

    def _section(self) -> dict[str, Any]:
        return {
            "queries": self.queries,
            "denoising": self.denoising,
            "norm": "batch",
            "min_score": self.min_score,
            "max_detections": self.max_detections,
        }

    def _norms(self) -> list[nn.BatchNorm2d]:
        return [module for module in self.net.modules() if isinstance(module, nn.BatchNorm2d)]

    def _features(self, images: Tensor) -> list[Tensor]:
        """Three levels of features, fine to coarse, ``[n, C, S/8, S/8]`` and so on."""
        net = self.net
        levels = net.backbone.model(images.to(self._dtype()) / _GREATEST).feature_maps
        mixed = net.encoder(_projected(net.encoder_input_proj, levels)).last_hidden_state
        return _projected(net.decoder_input_proj, mixed)

    def _dtype(self) -> torch.dtype:
        return next(self.net.parameters()).dtype

    def _decoded(self, features: Sequence[Tensor], noisy: Noisy | None) -> Answers:
        """First guesses at the most promising places, then what each layer of the decoder makes of them."""
        net, copies = self.net, 0 if noisy is None else noisy.labels.shape[1]
        shapes = [(level.shape[2], level.shape[3]) for level in features]
        places = torch.cat([level.flatten(2).transpose(1, 2) for level in features], 1)
        anchors, valid = net.generate_anchors(tuple(shapes), device=places.device, dtype=places.dtype)
        memory = net.enc_output(valid.to(places.dtype) * places)
        logits, boxes = net.enc_score_head(memory), net.enc_bbox_head(memory) + anchors
        count = min(self.queries, places.shape[1])
        best = logits.max(-1).values.topk(count, dim=1).indices.unsqueeze(-1)
        first_logits, first_boxes, target = (
            field.gather(1, best.expand(-1, -1, field.shape[-1])) for field in (logits, boxes, memory)
        )
        queries, guesses, mask = target.detach(), first_boxes.detach(), None
        if noisy is not None:
            queries = torch.cat([net.denoising_class_embed(noisy.labels), queries], 1)
            guesses = torch.cat([noisy.boxes.to(guesses.dtype), guesses], 1)
            mask = _mask(noisy.hidden, count, queries.dtype)
        refined = net.decoder(
            inputs_embeds=queries,
            encoder_hidden_states=places,
            encoder_attention_mask=mask,
            reference_points=guesses,
            spatial_shapes=torch.tensor(shapes, device="cpu"),  # on a GPU it would be waited for in each layer
            spatial_shapes_list=shapes,
        )
        all_logits, all_boxes = refined.intermediate_logits, refined.intermediate_reference_points
        return Answers(
            all_logits[:, :, copies:],
            all_boxes[:, :, copies:],
            first_logits,
            first_boxes.sigmoid(),
            all_logits[:, :, :copies],
            all_boxes[:, :, :copies],
        )


def corners(boxes: Tensor, frames: Tensor, image_size: int) -> Tensor:
    """Boxes ``[n, Q, 4]`` (centre, width, height; shares of the network's image) as corners in the original image.

    In its pixels, clipped to it.
    """
    centre, half = boxes[..., :2] * image_size, boxes[..., 2:] * (image_size / 2)
    return clipped(to_image(torch.cat([centre - half, centre + half], dim=-1), frames), frames)


def shares(boxes: Tensor, frame: Tensor, image_size: int) -> Tensor:
    """The way back for one image: corners ``[k, 4]`` as centre, width and height, clipped to the network's image."""
    start, end = (to_network(boxes, frame).clamp(0, image_size) / image_size).chunk(2, dim=1)
    return torch.cat([(start + end) / 2, end - start], dim=1)


def _projected(projections: Iterable[nn.Module], levels: Sequence[Tensor]) -> list[Tensor]:
    """Each level through its convolution and batch norm.

    A sequence's gradient comes back with its channels last. On a CPU batch norm in evaluation takes that for another
    order where the batch is a single image (seen in PyTorch 2.5.1), and the gradients are wrong; hence the hook.
    """
    projected = [project(level) for project, level in zip(projections, levels, strict=True)]
    for level in projected:
        if level.requires_grad:
            level.register_hook(lambda gradient: gradient.contiguous())
    return projected


def _mask(hidden: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """What attention adds, ``[n, 1, M + Q, M + Q]``: the objects see no copies; the copies see the objects."""
    rows, copies = hidden.shape[:2]
    blind = torch.zeros(rows, 1, copies + count, copies + count, dtype=torch.bool, device=hidden.device)
    blind[:, 0, :copies, :copies] = hidden
    blind[:, 0, copies:, :copies] = True
    return torch.zeros_like(blind, dtype=dtype).masked_fill(blind, -torch.inf)


def _kept_by(work: Callable[[], Any]) -> tuple[Any, int]:
    """What ``work`` gives, and the bytes of all tensors that its backward pass would need, weights aside."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        return work(), sum(kept.values())


def _start_norms(net: nn.Module) -> None:
    """Scales of 1: transformers draws those of the encoder around 0, where hardly a signal comes through at first."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)


def _network(queries: int, denoising: int, classes: int, sizes: Sizes) -> Any:
    """transformers' RTDetrV2Model with the decoder's heads, its weights drawn from torch's random numbers.

    Raises:
        ConfigError: transformers is not installed, or does not work with this PyTorch.
    """
    config_type, trunk_type, detector_type = _transformers()
    trunk = trunk_type(
        embedding_size=sizes.stem,
        hidden_sizes=list(sizes.stages),
        depths=list(sizes.depths),
        layer_type="basic",
        out_indices=[2, 3, 4],
    )
    config = config_type(
        backbone_config=trunk,
        freeze_backbone_batch_norms=False,  # ours are frozen all or none
        encoder_in_channels=list(sizes.stages[1:]),
        feat_strides=list(STRIDES),
        encoder_hidden_dim=sizes.width,
        encoder_ffn_dim=sizes.inner,
        encoder_attention_heads=sizes.heads,
        hidden_expansion=sizes.expansion,
        d_model=sizes.width,
        decoder_in_channels=[sizes.width] * len(STRIDES),
        decoder_ffn_dim=sizes.inner,
        decoder_attention_heads=sizes.heads,
        decoder_layers=sizes.layers,
        num_queries=queries,
        num_denoising=denoising,
        num_labels=classes,
    )
    return detector_type(config).model  # its decoder has the heads; the detector around it would name them twice


def _transformers() -> tuple[Any, Any, Any]:
    """The three classes of transformers that a detector is made of.

    Raises:
        ConfigError: it is not installed, or does not work with this PyTorch.
    """
    install = (
        "install it with `pip install -r training/requirements.transformers.txt`, or choose another model.name, such "
        "as fasterrcnn_mobilenet"
    )
    try:
        import transformers
        from transformers import RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection
    except ImportError as error:
        raise ConfigError(f"model.name rtdetr_v2 needs the package transformers ({error}): {install}") from error
    if not transformers.is_torch_available():
        raise ConfigError(
            f"model.name rtdetr_v2 needs a transformers that works with PyTorch {torch.__version__}, and "
            f"{transformers.__version__} does not: {install}"
        )
    return cast(Any, RTDetrV2Config), cast(Any, RTDetrResNetConfig), cast(Any, RTDetrV2ForObjectDetection)
