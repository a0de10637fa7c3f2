"""Weights for an RT-DETR: our own, or a file under the names that transformers published RT-DETRv2 with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from backend.errors import ConfigError
from backend.models.detector_rtdetr import RTDetr
from backend.weights import load_matching

_RENAMED = (
    (re.compile(r"^model\."), "net."),
    (re.compile(r"^(class_embed|bbox_embed)\."), r"net.decoder.\1."),
    (re.compile(r"\.encoder\.encoder\.(\d+)\.layers\."), r".encoder.aifi.\1.layers."),
    (re.compile(r"\.layers\.(\d+)\.(fc[12])\."), r".layers.\1.mlp.\2."),
    (re.compile(r"\.self_attn\.out_proj\."), ".self_attn.o_proj."),
)
_OF_CLASSES = (
    "net.enc_score_head.weight",
    "net.enc_score_head.bias",
    "net.denoising_class_embed.weight",
)
_CLASS_HEAD = re.compile(r"^net\.decoder\.class_embed\.\d+\.(weight|bias)$")
_CONSTANT = (".num_batches_tracked", ".n_points_scale")  # of no learning, and not in every file


def start_from(model: RTDetr, weights: Mapping[str, Tensor], path: Path | str) -> str:
    """Put ``weights``, read from ``path``, into ``model``, and say what they were.

    Where they are of another number of classes, what tells classes apart stays as it was drawn: which of the published
    classes are the dataset's is not known. A model without denoising leaves what belongs to it.

    Raises:
        ConfigError: they are of another model; the model is left as it was.
    """
    own = model.state_dict()
    named = {renamed(name): value for name, value in weights.items()}
    if not own.keys() & named.keys():
        raise ConfigError(f"{path}: holds no weights of an RT-DETR, whose names begin with model. or net.")
    drawn = {name for name in own if _is_of_classes(name) and _has_other_classes(name, own, named)}
    kept = {name: own[name] for name in own if name in drawn or (name.endswith(_CONSTANT) and name not in named)}
    if model.denoising and "net.denoising_class_embed.weight" not in named:
        kept["net.denoising_class_embed.weight"] = own["net.denoising_class_embed.weight"]
    if not model.denoising:
        named.pop("net.denoising_class_embed.weight", None)
    load_matching(model, named | kept, path)
    return f"an RT-DETR{' of other classes, whose last layers are begun anew' if drawn else ''}"


def renamed(name: str) -> str:
    """A published name as `RTDetr` has it; one of its own stays."""
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return name


def _is_of_classes(name: str) -> bool:
    return name in _OF_CLASSES or _CLASS_HEAD.match(name) is not None


def _has_other_classes(name: str, own: Mapping[str, Tensor], named: Mapping[str, Tensor]) -> bool:
    return name in named and own[name].shape[0] != named[name].shape[0] and own[name].shape[1:] == named[name].shape[1:]
