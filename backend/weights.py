"""Weight files (``.pth``): weights out of foreign ones, and our own, written so that anything can read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from backend.errors import BadDataError, ConfigError, DiskError
from backend.files import replacing
from backend.pth_reader import read_pth

SAFETENSORS = ".safetensors"
__all__ = ["SAFETENSORS", "class_names_in", "load_matching", "read_pth", "read_state_dict", "write_pth"]


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """A model's weights from a ``.pth`` file (a bare state dict or a checkpoint with one) or a ``.safetensors`` file.

    Looked for under ``model_state_dict``, ``state_dict`` and ``model``. The prefixes that wrappers leave
    (``module.``, ``_orig_mod.``) are taken off where every name has them.

    Raises:
        BadDataError: the file cannot be read safely (see `read_pth`), or holds no state dict.
    """
    if Path(path).suffix == SAFETENSORS:
        return _without_wrappers(_read_safetensors(Path(path)))
    content = read_pth(path)
    if not isinstance(content, dict):
        raise BadDataError(f"{path}: holds a {type(content).__name__}, not a state dict or a checkpoint with one.")
    found = next((content[key] for key in ("model_state_dict", "state_dict", "model") if key in content), content)
    if not isinstance(found, dict) or not found:
        raise BadDataError(f"{path}: its state dict is a {type(found).__name__} without weights.")
    strange = [key for key, value in found.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if strange:
        raise BadDataError(
            f"{path}: no state dict under model_state_dict, state_dict or model, and the file itself is none either: "
            f"{_first(strange)} is no tensor."
        )
    return _without_wrappers(found)


def class_names_in(path: Path) -> list[str] | None:
    """The classes, in order, of a model that this worker published in ``path``; None where the file does not say.

    Raises:
        BadDataError: the file cannot be read safely.
    """
    content = read_pth(path) if path.suffix != SAFETENSORS else None
    facts = content.get("facts") if isinstance(content, dict) else None
    classes = facts.get("classes") if isinstance(facts, dict) else None
    return [str(name) for name in classes] if isinstance(classes, list) else None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadDataError(f"{path}: cannot be read as safetensors ({error})") from error


def _without_wrappers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in ("module.", "_orig_mod.") * 2:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def load_matching(model: nn.Module, weights: Mapping[str, Tensor], path: Path | str) -> None:
    """Put ``weights``, read from ``path``, into ``model``; names and sizes must all agree.

    Raises:
        ConfigError: they do not; the first few that differ are named. The model is left as it was.
    """
    own = model.state_dict()
    problems = []
    if missing := [name for name in own if name not in weights]:
        problems.append(f"without {_first(missing)}, which the model has")
    if surplus := [name for name in weights if name not in own]:
        problems.append(f"with {_first(surplus)}, which the model has not")
    resized = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if resized:
        sizes = [f"{name} ({list(weights[name].shape)}, in the model {list(own[name].shape)})" for name in resized]
        problems.append(f"with other sizes: {_first(sizes)}")
    if problems:
        raise ConfigError(
            f"{path}: its weights are of another model: {'; '.join(problems)}. Set the model's keys (and sizes) to "
            "those that the weights were trained with."
        )
    model.load_state_dict(dict(weights), strict=True)


def _first(names: list[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(str(name) for name in names[:shown]) + more


def write_pth(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write ``content`` so that ``torch.load(weights_only=True)`` of any version, and `read_pth`, can read it.

    Only plain types are written: dicts, lists, tuples, text, numbers, None and tensors, which are moved to the CPU
    and cut loose from what they are views of. The file appears under its name complete or not at all.

    Raises:
        DiskError: the disk is full, read-only or failing.
        TypeError: something in ``content`` is of another type (a mistake of the caller).
    """
    path = Path(path)
    plain = _plain(content)
    try:
        # Into an open file: torch writes a file's name into what it saves, and this one's is temporary.
        with replacing(path) as temporary, temporary.open("wb") as file:
            torch.save(plain, file)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise DiskError(f"{path}: could not be written ({error}); free space or choose another --output.") from error


def _plain(value: Any) -> Any:
    """``value`` with subclasses (ordered dicts, numpy's float, …) brought back to the plain types they stand for."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        return _loose(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    found = f"{type(value).__module__}.{type(value).__name__}"
    raise TypeError(f"a weight file holds plain types and tensors only, not {found}")


def _loose(tensor: Tensor) -> Tensor:
    """A view would be saved with everything it is a view of."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
