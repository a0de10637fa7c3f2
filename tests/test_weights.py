"""Weights out of files that hold them in many ways, and our own files, which everything can read."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from backend.errors import BadDataError, ConfigError, DiskError
from backend.weights import load_matching, read_pth, read_state_dict, write_pth


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


class TestStateDicts:
    @pytest.mark.parametrize("wrap", [lambda w: w, *(lambda w, k=k: {k: w, "epoch": 1} for k in
                                      ("model_state_dict", "state_dict", "model"))])  # fmt: skip
    @pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
    def test_where_weights_are_found(self, tmp_path: Path, wrap: Any, prefix: str) -> None:
        weights = nn.Linear(3, 2).state_dict()
        path = saved(tmp_path / "w.pth", wrap({prefix + name: value for name, value in weights.items()}))
        assert list(read_state_dict(path)) == ["weight", "bias"]

    def test_a_submodule_called_module_keeps_its_name(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "w.pth", {"module.a": torch.ones(1), "b": torch.ones(1)})
        assert list(read_state_dict(path)) == ["module.a", "b"]

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ([1], "holds a list"),
            ({"epoch": 3, "loss": 0.1}, "epoch"),
            ({"model": 5}, "int without weights"),
            ({"state_dict": {}}, "without weights"),
            ({}, "without weights"),
        ],
    )
    def test_files_without_weights(self, tmp_path: Path, content: Any, words: str) -> None:
        with pytest.raises(BadDataError, match=words):
            read_state_dict(saved(tmp_path / "w.pth", content))

    def test_matching_weights_are_loaded(self) -> None:
        source, target = nn.Linear(3, 2), nn.Linear(3, 2)
        load_matching(target, source.state_dict(), "w.pth")
        assert torch.equal(source.weight, target.weight)

    def test_differences_are_named_and_nothing_is_loaded(self) -> None:
        model = nn.Linear(3, 2)
        before = model.weight.clone()
        with pytest.raises(
            ConfigError, match=r"w\.pth.*without bias.*with extra.*weight \(\[2, 4\], in the model \[2, 3\]"
        ):
            load_matching(model, {"weight": torch.zeros(2, 4), "extra": torch.zeros(1)}, "w.pth")
        assert torch.equal(model.weight, before)

    def test_only_the_first_few_are_named(self) -> None:
        with pytest.raises(ConfigError, match="and 7 more"):
            load_matching(
                nn.Linear(1, 1), {**nn.Linear(1, 1).state_dict(), **{f"x{n}": torch.ones(1) for n in range(10)}}, ""
            )


class TestWriting:
    def test_torch_and_the_guarded_reader_read_it(self, tmp_path: Path) -> None:
        model = nn.Linear(3, 2)
        content = {
            "epoch": 2, "model_state_dict": model.state_dict(), "config": {"a": [1, 2.5, None, "x", True]},
            "metrics": OrderedDict(loss=np.float64(0.5)), "size": torch.Size([1, 2]),
        }  # fmt: skip
        write_pth(tmp_path / "best.pth", content)
        for read in (torch.load(tmp_path / "best.pth", weights_only=True), read_pth(tmp_path / "best.pth")):
            assert torch.equal(read["model_state_dict"]["weight"], model.weight)
            assert read["config"] == content["config"]
            assert read["metrics"] == {"loss": 0.5}
            assert type(read["metrics"]["loss"]) is float
            assert read["size"] == (1, 2)

    def test_views_take_no_more_room_than_they_show(self, tmp_path: Path) -> None:
        write_pth(tmp_path / "w.pth", {"a": torch.zeros(1_000_000)[:10]})
        assert (tmp_path / "w.pth").stat().st_size < 10_000

    def test_other_types_are_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        with pytest.raises(TypeError, match=r"pathlib\."):
            write_pth(tmp_path / "w.pth", {"path": tmp_path})
        assert not list(tmp_path.iterdir())

    def test_a_file_that_cannot_be_written(self, tmp_path: Path) -> None:
        with pytest.raises(DiskError, match="none"):
            write_pth(tmp_path / "none" / "w.pth", {})

    def test_the_old_file_stays_when_writing_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "w.pth"
        write_pth(path, {"a": 1})

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(DiskError, match="No space"):
            write_pth(path, {"a": 2})
        assert read_pth(path) == {"a": 1}
        assert list(tmp_path.iterdir()) == [path]
