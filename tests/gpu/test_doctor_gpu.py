"""Doctor on a real GPU: facts, a trial at the configured size, an estimate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.runs import SHORT, places
from training.cli import main
from training.engine.gpu import read_gpu, why_unusable

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_the_gpu_computes_in_every_precision() -> None:
    for dtype in (None, torch.float16):
        facts = read_gpu(dtype)
        assert why_unusable(facts) is None
        assert facts.total >= facts.free > 0


def test_doctor_tries_the_real_thing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [word for text in (*SHORT["convlstm"], "training.device=cuda") for word in ("--set", text)]
    assert main(["doctor", "--json", "--data", "sample", *places(tmp_path), *sets]) == 0
    found = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert found["GPU"]["state"] == "ok"
    assert found["GPU memory"]["facts"]["free_bytes"] > 0
    assert found["trial step"]["facts"]["share_of_row_timed"] == 1
