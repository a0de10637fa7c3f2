"""Reads ``.pth`` files from anywhere without unpickling them.

A ``.pth`` file is a zip of one pickle and the raw bytes of each tensor's storage. A pickle is a program, and a hostile
one runs what it likes while it is loaded (also under ``torch.load(weights_only=True)`` before torch 2.6,
CVE-2025-32434). Here `_Reader` walks over that program's operations and carries out those alone that build plain
values and tensors. Names in it are looked up in a table of this file; nothing is imported, called or set by name.
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.errors import BadDataError
from backend.pth_archive import Archive, RefusedError, Storage

_MAX_DEPTH = 64
_MAX_VALUES = 10_000_000
_MAX_EXPANDED = 1 << 24  # elements of a tensor that is larger than its storage (it repeats it)

_STORAGES = {
    f"torch.{name}Storage": dtype
    for name, dtype in {
        "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
        "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
        "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
    }.items()
}  # fmt: skip
_DTYPES = {f"torch.{str(dtype).removeprefix('torch.')}": dtype for dtype in _STORAGES.values()}
_NUMPY_DTYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}


@dataclass(frozen=True, slots=True)
class _Name:
    """A global that a pickle may name; never the thing itself."""

    text: str


@dataclass(eq=False)
class _NumpyDtype:
    """A numpy dtype under construction."""

    code: str


def read_pth(path: Path | str) -> Any:
    """Read what ``torch.save`` wrote (torch 1.6 or newer): plain Python values and tensors on the CPU.

    Ordered dicts come back as dicts, parameters as tensors, ``torch.Size`` as tuples, devices as text, numpy scalars
    as Python numbers. Tensors that shared memory when saved share it again.

    Raises:
        BadDataError: the file is missing, damaged, of the older format without a zip, or holds anything else; what
            it asked for is named, and none of it is carried out.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            value = _Reader(Archive(archive, path.stat().st_size)).run()
            _check_plain(value)
            return value
    except FileNotFoundError:
        raise BadDataError(f"{path}: there is no such file; a weight file (.pth) was expected.") from None
    except RefusedError as refusal:
        raise BadDataError(
            f"{path}: not a plain weight file: {refusal}. Nothing in it was executed; "
            "save the weights alone with torch.save(model.state_dict(), …)."
        ) from None
    except zipfile.BadZipFile as error:
        raise BadDataError(
            f"{path}: not a weight file of torch 1.6 or newer, or damaged ({error}); copy it again, or save it again "
            "with a newer torch."
        ) from None
    except OSError as error:
        raise BadDataError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except Exception as error:  # whatever else a damaged file provokes on the way
        raise BadDataError(f"{path}: damaged weight file ({type(error).__name__}: {error}); copy it again.") from None


class _Reader:
    """Carries out the harmless operations of one pickle."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._storages: dict[str, Tensor] = {}

    def run(self) -> Any:
        """The value that the pickle describes."""
        for opcode, argument, _ in pickletools.genops(self._archive.pickle()):
            if opcode.name == "STOP":
                return self._stack.pop()
            carry_out = _OPERATIONS.get(opcode.name)
            if carry_out is None:
                raise RefusedError(f"its pickle uses the operation {opcode.name}")
            carry_out(self, argument)
        raise RefusedError("its pickle has no end")

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def mark(self, _: None) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def remember(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def recall(self, index: int) -> None:
        self.push(self._memo[index])

    def make_tuple(self, count: int | None) -> None:
        items = self.since_mark() if count is None else [self._stack.pop() for _ in range(count)][::-1]
        self.push(tuple(items))

    def extend(self, items: list[Any]) -> None:
        _expect(self._stack[-1], list).extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = _expect(self._stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_expect(key, str, int, float, bool, type(None))] = value

    def name(self, text: str) -> None:
        """A global; ``text`` is module and name."""
        if text in _DTYPES:
            self.push(_DTYPES[text])
        elif text in _STORAGES or text in _CALLS:
            self.push(_Name(text))
        else:
            raise RefusedError(f"it asks for {text!r}")

    def stack_name(self, _: None) -> None:
        attribute, module = (_expect(self._stack.pop(), str) for _ in range(2))
        self.name(f"{module}.{attribute}")

    def call(self, _: None) -> None:
        arguments = _expect(self._stack.pop(), tuple)
        called = _expect(self._stack.pop(), _Name).text
        if called not in _CALLS:
            raise RefusedError(f"it calls {called!r}")
        self.push(_CALLS[called](self, *arguments))

    def build(self, _: None) -> None:
        """Set attributes: only a state dict's ``_metadata``, which is dropped, and a numpy dtype's byte order."""
        state, target = self._stack.pop(), self._stack[-1]
        if type(target) is dict and type(state) is dict and set(state) <= {"_metadata"}:
            return
        if type(target) is _NumpyDtype and type(state) is tuple and len(state) >= 2 and state[1] in ("<", "|", "="):
            return
        raise RefusedError(f"it sets attributes of a {type(target).__name__}")

    def persistent(self, _: None) -> None:
        """A reference to a storage: ``("storage", type, key, location, numel)``."""
        kind, storage_type, key, _location, numel = _expect(self._stack.pop(), tuple)
        dtype = _STORAGES.get(_expect(storage_type, _Name).text)
        if kind != "storage" or dtype is None:
            raise RefusedError(f"it refers to something outside that is no storage: {kind!r}"[:200])
        self.push(Storage(_expect(key, str), dtype, _natural(numel)))

    def tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, _grad: Any = False, _hooks: Any = None, *_: Any
    ) -> Tensor:
        """``torch._utils._rebuild_tensor_v2``, within the bounds of the storage."""
        _expect(storage, Storage)
        size, stride = ([_natural(n) for n in _expect(v, tuple)] for v in (size, stride))
        if len(size) != len(stride) or len(size) > _MAX_DEPTH:
            raise RefusedError(f"a tensor has {len(size)} sizes and {len(stride)} strides")
        count = math.prod(size)
        last = _natural(offset) + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if (count and last >= storage.numel) or count > max(storage.numel, _MAX_EXPANDED):
            raise RefusedError(f"a tensor of size {size} and stride {stride} reaches beyond its storage"[:300])
        flat = self._flat(storage)
        return flat.as_strided(size, stride, offset) if count else torch.empty(size, dtype=storage.dtype)

    def _flat(self, storage: Storage) -> Tensor:
        known = self._storages.get(storage.key)
        if known is None:
            known = self._storages[storage.key] = self._archive.storage(storage)
        if known.dtype != storage.dtype or known.numel() != storage.numel:
            raise RefusedError(f"storage {storage.key!r} is declared in two ways")
        return known

    def parameter(self, data: Any, _grad: Any = False, _hooks: Any = None) -> Tensor:
        return _expect(data, Tensor)

    def empty_dict(self) -> dict[Any, Any]:
        return {}

    def size(self, values: Any) -> tuple[int, ...]:
        return tuple(_natural(n) for n in _expect(values, tuple))

    def device(self, kind: Any, index: Any = None) -> str:
        return _expect(kind, str) if index is None else f"{_expect(kind, str)}:{_natural(index)}"

    def latin(self, text: Any, encoding: Any) -> bytes:
        if encoding != "latin1":
            raise RefusedError("it encodes text")
        return _expect(text, str).encode("latin1")

    def numpy_dtype(self, code: Any, *_: Any) -> _NumpyDtype:
        if code not in _NUMPY_DTYPES:
            raise RefusedError(f"it uses the numpy dtype {code!r}"[:200])
        return _NumpyDtype(code)

    def numpy_scalar(self, dtype: Any, content: Any) -> Any:
        numpy_dtype = np.dtype(_expect(dtype, _NumpyDtype).code).newbyteorder("<")
        if len(_expect(content, bytes)) != numpy_dtype.itemsize:
            raise RefusedError("a numpy number is not as long as its type")
        return np.frombuffer(content, numpy_dtype)[0].item()


# What a pickle may call, and what is done instead.
_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _Reader.empty_dict,
    "torch._utils._rebuild_tensor_v2": _Reader.tensor,
    "torch._utils._rebuild_parameter": _Reader.parameter,
    "torch.Size": _Reader.size,
    "torch.device": _Reader.device,
    "_codecs.encode": _Reader.latin,
    "numpy.dtype": _Reader.numpy_dtype,
    "numpy.core.multiarray.scalar": _Reader.numpy_scalar,
    "numpy._core.multiarray.scalar": _Reader.numpy_scalar,
}

_Operation = Callable[[_Reader, Any], None]
_OPERATIONS: dict[str, _Operation] = {
    "PROTO": lambda reader, _: None,
    "FRAME": lambda reader, _: None,
    "MARK": _Reader.mark,
    "GLOBAL": lambda reader, names: reader.name(names.replace(" ", ".", 1)),
    "STACK_GLOBAL": _Reader.stack_name,
    "REDUCE": _Reader.call,
    "BUILD": _Reader.build,
    "BINPERSID": _Reader.persistent,
    "EMPTY_DICT": lambda reader, _: reader.push({}),
    "EMPTY_LIST": lambda reader, _: reader.push([]),
    "EMPTY_TUPLE": lambda reader, _: reader.push(()),
    "TUPLE": lambda reader, _: reader.make_tuple(None),
    "TUPLE1": lambda reader, _: reader.make_tuple(1),
    "TUPLE2": lambda reader, _: reader.make_tuple(2),
    "TUPLE3": lambda reader, _: reader.make_tuple(3),
    "APPEND": lambda reader, _: reader.extend([reader._stack.pop()]),
    "APPENDS": lambda reader, _: reader.extend(reader.since_mark()),
    "SETITEM": lambda reader, _: reader.set_items([reader._stack.pop() for _ in range(2)][::-1]),
    "SETITEMS": lambda reader, _: reader.set_items(reader.since_mark()),
    "NONE": lambda reader, _: reader.push(None),
    "NEWTRUE": lambda reader, _: reader.push(True),
    "NEWFALSE": lambda reader, _: reader.push(False),
    **dict.fromkeys(["PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"], _Reader.remember),
    **dict.fromkeys(["GET", "BINGET", "LONG_BINGET"], _Reader.recall),
    **dict.fromkeys(["BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"], _Reader.push),
    **dict.fromkeys(["BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES"], _Reader.push),
}


def _expect(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise RefusedError(f"a {type(value).__name__} stands where a {kinds[0].__name__} belongs")
    return value


def _natural(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise RefusedError(f"{value!r} stands where a size belongs"[:200])
    return value


def _check_plain(value: Any) -> None:
    """Refuse what a consumer could stumble over: leftovers of the reading, cycles, extreme depth, endless sharing."""
    measured: dict[int, tuple[int, int]] = {}

    def measure(node: Any, depth: int) -> tuple[int, int]:
        """How many values ``node`` holds when written out, and how deep they are nested."""
        if isinstance(node, (_Name, Storage, _NumpyDtype)):
            raise RefusedError(f"it holds a bare {type(node).__name__.strip('_')}")
        if type(node) not in (dict, list, tuple):
            return 1, 0
        if depth <= _MAX_DEPTH and id(node) not in measured:
            inner = [measure(child, depth + 1) for child in (node.values() if type(node) is dict else node)]
            measured[id(node)] = 1 + sum(n for n, _ in inner), 1 + max((deep for _, deep in inner), default=0)
        count, height = measured.get(id(node), (1, 1))
        if depth + height > _MAX_DEPTH:
            raise RefusedError(f"its values are nested more than {_MAX_DEPTH} deep, or contain themselves")
        if count > _MAX_VALUES:
            raise RefusedError(f"it holds more than {_MAX_VALUES} values")
        return count, height

    measure(value, 0)
