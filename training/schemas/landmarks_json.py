"""The flat JSON configuration of the lung-contour system (`phase1_epochs`, `phase2_head_lr`, …) as settings here.

What such a file leaves out has this worker's default, not that program's.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from backend.errors import ConfigError

_KEYS = {
    "batch_size": "training.batch_size",
    "num_workers": "training.num_workers",
    "seed": "training.seed",
    "split_seed": "training.split_seed",
    "deterministic": "training.deterministic",
    "phase1_epochs": "frozen.epochs",
    "phase1_lr": "frozen.learning_rate",
    "phase1_patience": "frozen.patience",
    "phase2_epochs": "training.epochs",
    "phase2_head_lr": "training.learning_rate",
    "phase2_backbone_lr": "training.trunk_learning_rate",
    "phase2_patience": "training.patience",
    "flip_prob": "augmentation.flip",
    "rotation": "augmentation.rotation",
    "clahe": "data.clahe",
    "clahe_clip": "data.clahe_clip",
    "clahe_tile": "data.clahe_tile",
    "coord_attention": "model.coordinate_attention",
    "deep_head": "model.head",
    "hidden_dim": "model.hidden_dim",
    "dropout": "model.dropout",
    "loss": "loss.kind",
    "weight_strategy": "loss.point_weights",
    "central_weight": "loss.central_weight",
    "symmetry_weight": "loss.symmetry_weight",
    "tta": "evaluation.tta",
}
_CLASSES = {"covid_weight": "COVID", "normal_weight": "Normal", "viral_weight": "Viral_Pneumonia"}
_CLASS_WEIGHTS = {"COVID": 2.0, "Normal": 1.0, "Viral_Pneumonia": 1.2}  # that program's, with category_weights alone
_PLACES = {
    "csv_path": "--data FOLDER names the dataset",
    "data_root": "--data FOLDER names the dataset",
    "save_dir": "--output FOLDER names where runs are kept",
    "output_dir": "--output FOLDER names where runs are kept",
    "checkpoint": "model.init_from names weights to start from",
}
_NEEDS = {  # old key -> the old key and values without which it does nothing, there and here
    "clahe_clip": ("clahe", (True,)),
    "clahe_tile": ("clahe", (True,)),
    "weight_strategy": ("loss", ("weighted_wing",)),
    "central_weight": ("loss", ("combined",)),
    "symmetry_weight": ("loss", ("combined",)),
}
_OF_PHASE_1 = ("phase1_lr", "phase1_patience")
_ABSENT = {"clahe": True, "loss": "wing"}  # what holds here where the file says nothing


def is_old(content: Any) -> bool:
    """Whether a file's content is such a flat configuration: names of that program, and no sections."""
    return (
        isinstance(content, Mapping)
        and any(key in content for key in _KEYS)
        and not any(isinstance(value, Mapping) for value in content.values())
    )


def converted(content: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """The same as dotted keys of this worker; what had no effect there is left out.

    Raises:
        ConfigError: a key that the program did not have, or one that names a place.
    """
    known = {*_KEYS, *_CLASSES, "category_weights"}
    problems = [_unknown(key, known, origin) for key in content if key not in known]
    if problems:
        raise ConfigError("\n  ".join(problems))
    settings = {
        _KEYS[key]: _head(value) if key == "deep_head" else value
        for key, value in content.items()
        if key in _KEYS and _counts(key, content)
    }
    if content.get("category_weights"):
        said = {name: content[key] for key, name in _CLASSES.items() if key in content}
        settings["loss.class_weights"] = {**_CLASS_WEIGHTS, **said}
    return settings


def _head(deep: Any) -> Any:
    """Anything but true or false is left for the schema to refuse."""
    if not isinstance(deep, bool):
        return deep
    return "deep" if deep else "shallow"


def _counts(key: str, content: Mapping[str, Any]) -> bool:
    if key in _OF_PHASE_1:
        return content.get("phase1_epochs") != 0
    if key not in _NEEDS:
        return True
    other, wanted = _NEEDS[key]
    return content.get(other, _ABSENT[other]) in wanted


def _unknown(key: str, known: set[str], origin: str) -> str:
    if key in _PLACES:
        return f"{origin}: {key} is a place, not a setting: {_PLACES[key]}"
    near = get_close_matches(key, known, n=1)
    return f"{origin}: {key} is no setting of the flat form" + (f"; did you mean {near[0]}?" if near else "")
