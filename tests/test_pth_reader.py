"""The guarded reader gives what torch.save wrote, and refuses everything else without carrying it out."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from backend.errors import BadDataError
from backend.pth_reader import read_pth
from backend.weights import read_state_dict

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64,
]  # fmt: skip


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def packed(path: Path, program: bytes, storages: dict[str, bytes] | None = None, **members: bytes) -> Path:
    """A weight file whose pickle is ``program``."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for key, content in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", content)
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)
    return path


def tensor_program(
    numel: int = 4, offset: int = 0, size: tuple[int, ...] = (4,), stride: tuple[int, ...] = (1,), key: str = "0"
) -> bytes:
    """A pickle of one fp32 tensor, with whatever it declares about itself."""

    class Storage:
        pass

    class Rebuilt:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, size, stride, False, OrderedDict())

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, key, "cpu", numel) if isinstance(value, Storage) else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(Rebuilt())
    return buffer.getvalue()


class TestReading:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_every_dtype(self, tmp_path: Path, dtype: torch.dtype) -> None:
        value = torch.randn(3, 4).mul(10).to(dtype)
        assert torch.equal(read_pth(saved(tmp_path / "w.pth", value)), value)

    @pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 4, 5)])
    def test_every_shape(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        value = torch.rand(shape)
        read = read_pth(saved(tmp_path / "w.pth", value))
        assert read.shape == value.shape
        assert torch.equal(read, value)

    def test_views_keep_strides_and_shared_memory(self, tmp_path: Path) -> None:
        base = torch.arange(24.0).view(4, 6)
        read = read_pth(saved(tmp_path / "w.pth", [base, base.T, base[1:3, ::2], base[0].expand(3, 6)]))
        for ours, theirs in zip(read, [base, base.T, base[1:3, ::2], base[0].expand(3, 6)], strict=True):
            assert torch.equal(ours, theirs)
            assert ours.stride() == theirs.stride()
        read[0][0, 0] = -1
        assert read[1][0, 0] == -1

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_plain_values_in_every_protocol(self, tmp_path: Path, protocol: int) -> None:
        content = {
            "epoch": 3, "loss": 0.5, "name": "größe", "none": None, "flags": [True, False], "big": 2**40, "less": -7,
            "pair": (1, "a"), "triple": (1, 2, 3), "many": tuple(range(9)), "nested": {"a": {"b": [{}]}}, 7: [],
        }  # fmt: skip
        assert read_pth(saved(tmp_path / "w.pth", content, pickle_protocol=protocol)) == content

    def test_what_checkpoints_hold_besides(self, tmp_path: Path) -> None:
        content = {
            "score": np.float64(0.25), "n": np.int64(7), "size": torch.Size([2, 3]), "dtype": torch.bfloat16,
            "device": torch.device("cuda:1"), "parameter": nn.Parameter(torch.ones(2)), "ordered": OrderedDict(a=1),
        }  # fmt: skip
        read = read_pth(saved(tmp_path / "w.pth", content))
        assert torch.equal(read.pop("parameter"), torch.ones(2))
        assert read == {
            "score": 0.25, "n": 7, "size": (2, 3), "dtype": torch.bfloat16, "device": "cuda:1", "ordered": {"a": 1},
        }  # fmt: skip

    def test_a_model_and_its_optimizer(self, tmp_path: Path) -> None:
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.rand(1, 1, 4, 4)).sum().backward()
        optimizer.step()
        content = {"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}
        path = saved(tmp_path / "w.pth", content)
        read = read_pth(path)
        assert read["optimizer_state_dict"]["param_groups"] == optimizer.state_dict()["param_groups"]
        for name, value in read_state_dict(path).items():
            assert torch.equal(value, model.state_dict()[name])


class Command:
    """Runs a program when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


def shared(levels: int) -> bytes:
    """A list of two references to a list of two references to …"""
    pairs = b"".join(b"](" + b"h" + bytes([n]) + b"h" + bytes([n]) + b"eq" + bytes([n + 1]) for n in range(levels))
    return b"\x80\x02]q\x00" + pairs + b"."


def hidden_depth(levels: int) -> bytes:
    """Lists nested ``levels`` deep, in the order in which each is first met close to the surface."""
    nested = b"".join(b"](h" + bytes([n]) + b"eq" + bytes([n + 1]) for n in range(levels))
    return b"\x80\x02]q\x00" + nested + b"](" + b"".join(b"h" + bytes([n]) for n in range(levels)) + b"e."


SHELL = "touch pwned"  # in the working directory: the file would prove that it ran
HOSTILE = {
    "reduce_system": pickle.dumps(Command(os.system, SHELL), 2),
    "reduce_system_protocol_4": pickle.dumps(Command(os.system, SHELL), 4),
    "reduce_eval": pickle.dumps(Command(eval, "open('pwned', 'w')"), 2),
    "bare_global": b"\x80\x02cos\nsystem\n.",
    "bare_allowed_global": b"\x80\x02ccollections\nOrderedDict\n.",
    "inst": b"(S'" + SHELL.encode() + b"'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'" + SHELL.encode() + b"'\no.",
    "newobj": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "build_attributes": b"\x80\x02ccollections\nOrderedDict\n)R}X\x09\x00\x00\x00__class__K\x01sb.",
    "build_on_global": b"\x80\x02ccollections\nOrderedDict\n}X\x08\x00\x00\x00__call__K\x01sb.",
    "call_of_a_storage_type": b"\x80\x02ctorch\nFloatStorage\nK\x08\x85R.",
    "call_of_a_dtype": b"\x80\x02ctorch\nfloat32\n)R.",
    "dotted_name": b"\x80\x04\x8c\x05torch\x8c\x09os.system\x93\x8c\x02id\x85R.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent_text": b"Pstorage\n.",
    "persistent_else": b"\x80\x02X\x03\x00\x00\x00abcctorch\nFloatStorage\nN\x87Q.",
    "deep": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "deep_key": b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.",
    "hidden_depth": hidden_depth(200),
    "contains_itself": b"\x80\x02]q\x00h\x00a.",
    "shared_beyond_measure": shared(60),
    "wrong_call": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
    "huge_text": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "no_end": b"\x80\x02}",
    "nothing": b"",
    "stack_underflow": b"\x80\x02R.",
    "unknown_memo": b"\x80\x02h\x05.",
    "list_as_key": b"\x80\x02}]K\x01s.",
}


CULPRITS = [
    ("reduce_system", "system"),
    ("reduce_system_protocol_4", "system"),
    ("newobj", "NEWOBJ"),
    ("extension", "EXT1"),
    ("build_attributes", "attributes of a dict"),
    ("call_of_a_storage_type", r"calls 'torch\.FloatStorage'"),
    ("deep", "nested"),
    ("hidden_depth", "nested"),
    ("contains_itself", "contain themselves"),
    ("shared_beyond_measure", "more than"),
]


class TestRefusing:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_hostile_pickles(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.chdir(tmp_path)
        path = packed(tmp_path / "w.pth", HOSTILE[name])
        with pytest.raises(BadDataError, match=r"w\.pth") as refusal:
            read_pth(path)
        assert len(str(refusal.value).splitlines()) == 1
        assert not (tmp_path / "pwned").exists()

    def test_the_attack_is_real(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        pickle.loads(HOSTILE["reduce_system"])  # noqa: S301
        assert (tmp_path / "pwned").exists()

    @pytest.mark.parametrize(("name", "word"), CULPRITS)
    def test_the_culprit_is_named(self, tmp_path: Path, name: str, word: str) -> None:
        with pytest.raises(BadDataError, match=word):
            read_pth(packed(tmp_path / "w.pth", HOSTILE[name]))

    def test_a_whole_model_is_refused_by_name(self, tmp_path: Path) -> None:
        with pytest.raises(BadDataError, match=r"torch\.nn\.modules\.linear\.Linear"):
            read_pth(saved(tmp_path / "w.pth", nn.Linear(2, 2)))

    @pytest.mark.parametrize(
        "declared",
        [
            {"size": (5,)},
            {"offset": 1},
            {"offset": -1},
            {"stride": (-1,)},
            {"stride": (2,)},
            {"size": (2, 2), "stride": (1,)},
            {"size": (2**40,), "stride": (0,)},
            {"size": (2**31, 2**31, 2**31), "stride": (0, 0, 0)},
            {"numel": 5},
            {"numel": 2**40},
            {"key": "1"},
            {"key": "../data.pkl"},
        ],
        ids=str,
    )
    def test_tensors_out_of_bounds(self, tmp_path: Path, declared: dict[str, Any]) -> None:
        path = packed(tmp_path / "w.pth", tensor_program(**declared), {"0": bytes(16)})
        with pytest.raises(BadDataError):
            read_pth(path)

    def test_the_same_tensor_within_bounds(self, tmp_path: Path) -> None:
        read = read_pth(packed(tmp_path / "w.pth", tensor_program(), {"0": struct.pack("<4f", 1, 2, 3, 4)}))
        assert read.tolist() == [1, 2, 3, 4]

    def test_truth_values_other_than_0_and_1(self, tmp_path: Path) -> None:
        program = tensor_program().replace(b"FloatStorage", b"BoolStorage")
        with pytest.raises(BadDataError, match="truth"):
            read_pth(packed(tmp_path / "w.pth", program, {"0": bytes([0, 1, 2, 1])}))

    def test_compressed_members(self, tmp_path: Path) -> None:
        path = tmp_path / "w.pth"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", bytes(10_000_000))
        with pytest.raises(BadDataError, match="compressed"):
            read_pth(path)

    def test_foreign_byte_order(self, tmp_path: Path) -> None:
        path = packed(tmp_path / "w.pth", b"\x80\x02N.", byteorder=b"big")
        with pytest.raises(BadDataError, match="endian"):
            read_pth(path)

    def test_a_zip_of_something_else(self, tmp_path: Path) -> None:
        path = tmp_path / "w.pth"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "hello")
        with pytest.raises(BadDataError, match=r"no data\.pkl"):
            read_pth(path)

    def test_the_format_before_the_zip(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "w.pth", {"a": torch.ones(2)}, _use_new_zipfile_serialization=False)
        with pytest.raises(BadDataError, match=r"torch 1\.6"):
            read_pth(path)

    def test_no_file_and_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(BadDataError, match="no such file"):
            read_pth(tmp_path / "none.pth")
        with pytest.raises(BadDataError, match="cannot be read"):
            read_pth(tmp_path)


class TestDamage:
    @pytest.fixture
    def whole(self, tmp_path: Path) -> bytes:
        content = {"epoch": 1, "model_state_dict": nn.Linear(3, 2).state_dict(), "score": np.float32(0.5)}
        return saved(tmp_path / "whole.pth", content).read_bytes()

    def test_every_truncation(self, tmp_path: Path, whole: bytes) -> None:
        path = tmp_path / "w.pth"
        for length in range(0, len(whole), 37):
            path.write_bytes(whole[:length])
            with pytest.raises(BadDataError):
                read_pth(path)

    def test_flipped_bytes_of_the_file(self, tmp_path: Path, whole: bytes) -> None:
        """Nothing but BadDataError escapes, and what is read in spite of the damage is plain."""
        random = np.random.default_rng(0)
        path = tmp_path / "w.pth"
        for _ in range(400):
            damaged = bytearray(whole)
            for at in random.integers(len(damaged), size=random.integers(1, 4)):
                damaged[at] = random.integers(256)
            path.write_bytes(damaged)
            self.read_or_refuse(path)

    def test_flipped_bytes_of_the_pickle(self, tmp_path: Path, whole: bytes) -> None:
        """The same past the zip's checksum, where every byte reaches the reader."""
        (tmp_path / "whole.pth").write_bytes(whole)
        with zipfile.ZipFile(tmp_path / "whole.pth") as archive:
            members = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
        program = members.pop("data.pkl")
        storages = {name.removeprefix("data/"): members[name] for name in members if name.startswith("data/")}
        random = np.random.default_rng(0)
        for _ in range(1000):
            damaged = bytearray(program)
            for at in random.integers(len(damaged), size=random.integers(1, 4)):
                damaged[at] = random.integers(256)
            self.read_or_refuse(packed(tmp_path / "w.pth", bytes(damaged), storages))

    @staticmethod
    def read_or_refuse(path: Path) -> None:
        try:
            value = read_pth(path)
        except BadDataError as error:
            assert "w.pth" in str(error)
        else:
            repr(value)
