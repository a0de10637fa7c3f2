"""Files beside a run's results that somebody damaged: told in a line, and the training ends as it would have."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs import places, register_tiny, run_of, train
from training.cli import main
from training.files import read_json
from training.runs.run import Run

TORN = ("evaluations/val/metrics.json", "evaluations/test/metrics.json", "micro_batch.json", "usage.json")


@pytest.mark.parametrize("content", ['{"looks": ', "[]", "\0\0"])
def test_a_training_goes_on_with_damaged_side_files(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register_tiny(monkeypatch)
    assert train(tmp_path, "tiny") == 0
    folder = run_of(tmp_path, "tiny")
    assert main(["evaluate", folder.name, "--split", "test", *places(tmp_path)]) == 0
    scores = read_json(folder / "evaluations/test/metrics.json")
    Run(folder).update(state="interrupted")  # as if it had been killed before its end
    for name in TORN:
        (folder / name).write_text(content)
    capsys.readouterr()
    assert train(tmp_path, "tiny") == 0
    out, log = capsys.readouterr().out.replace("\n", ""), (folder / "train.log").read_text()
    for name in TORN:
        assert f"warning: damaged, so taken as not there: {folder / name}" in log
        assert str(folder / name) in out
    assert log.count(f"taken as not there: {folder / 'evaluations/test'}") == 1
    again = read_json(folder / "evaluations/test/metrics.json")
    assert again["metrics"] == scores["metrics"]
    assert (scores["looks"], again["looks"]) == (2, 3)  # looks at test are not forgotten with the file


def test_an_evaluation_beside_a_damaged_one_counts_it_as_a_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_tiny(monkeypatch)
    assert train(tmp_path, "tiny", sets=("training.max_steps=1",)) == 0
    folder = run_of(tmp_path, "tiny")
    (folder / "evaluations/test/metrics.json").write_text("{")
    assert main(["evaluate", folder.name, "--split", "test", *places(tmp_path)]) == 0
    assert read_json(folder / "evaluations/test/metrics.json")["looks"] == 2
