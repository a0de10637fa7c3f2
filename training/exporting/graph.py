"""A model as an ONNX graph: traced by torch, described, written whole or not at all, and run by ONNX Runtime."""

from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.errors import ConfigError, DiskError, VerificationError
from backend.files import write_atomic
from training.tasks.exported import Exported

OPSET = 17
"""The oldest with all that the models need; ONNX Runtime has known it since 1.12."""

_HARMLESS = (  # what the exporter warns of; whether the graph is right is found out by running it
    (r"(?s).*(legacy TorchScript-based ONNX export|dynamo=True)", DeprecationWarning),
    (r"(?s).*Constant folding", UserWarning),
    (r"(?s)Exporting aten::index operator of advanced indexing", UserWarning),
)


def traced(exported: Exported, example: Mapping[str, Tensor], told: Mapping[str, str]) -> bytes:
    """The content of an ONNX file.

    Args:
        exported: what is traced, in evaluation.
        example: one row of input, by name.
        told: what the file says of itself, as its metadata.

    Raises:
        ConfigError: torch's exporter cannot do it.
    """
    import onnx

    model = onnx.load_from_string(_by_torch(exported, example))
    onnx.helper.set_model_props(model, dict(told))
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _by_torch(exported: Exported, example: Mapping[str, Tensor]) -> bytes:
    names = [*example, exported.output]
    file: Any = io.BytesIO()  # which the exporter's own annotation does not know of
    dynamic = {name: {0: "n"} for name in names} if exported.any_batch else None
    is_new = "dynamo" in inspect.signature(torch.onnx.export).parameters
    options: dict[str, Any] = {"dynamo": False} if is_new else {}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # sizes that are the same for every image
        for message, category in _HARMLESS:
            warnings.filterwarnings("ignore", message, category)
        try:
            torch.onnx.export(
                exported.module,
                tuple(example.values()),
                file,
                input_names=list(example),
                output_names=[exported.output],
                dynamic_axes=dynamic,
                opset_version=OPSET,
                **options,
            )
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            why = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"torch {torch.__version__} cannot export this model to ONNX ({why}); take --format safetensors or pth"
            ) from error
    content: bytes = file.getvalue()
    return content


class Session:
    """An ONNX file, run on the CPU. Raises VerificationError where that fails."""

    def __init__(self, content: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        try:
            (found,) = self._session.run(None, {name: value.numpy() for name, value in inputs.items()})
        except Exception as error:  # its errors have no common class but this one
            why = " ".join(str(error).split())[:200]
            raise VerificationError(
                f"ONNX Runtime cannot run the exported model ({why}); no file was written"
            ) from error
        return torch.from_numpy(np.ascontiguousarray(found))


def write(path: Path, content: bytes) -> None:
    """Raises DiskError."""
    try:
        write_atomic(path, content)
    except OSError as error:
        raise DiskError(f"{path}: cannot be written ({error.strerror}); choose another --out") from error
