"""Members that do not belong together, as far as they may still be averaged."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from training.ensembles.members import other_origins


def test_members_of_other_images_are_told() -> None:
    def member(label: str, cache: str, sample: bool = False) -> Any:
        told = {"dataset": {"is_sample": sample}}
        return SimpleNamespace(label=label, state=told, facts={"cache": cache})

    alike = [member("a", "0123456789"), member("b", "0123456789")]
    assert other_origins(alike) == []
    assert other_origins([*alike, member("c", "9876543210"), member("d", "0123456789", sample=True)]) == [
        "note: c was trained on dataset 98765432, a on dataset 01234567",
        "note: d was trained on the built-in sample, a on dataset 01234567",
    ]
