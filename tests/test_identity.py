"""What a run is known by, and what its metadata say of how it was made."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from backend.artifact import best_checkpoint, read_state
from backend.files import sha256_of
from backend.weights import write_pth
from tests.runs import register_tiny, run_of, train
from training.cli import main
from training.runs import provenance
from training.runs.provenance import determinism, git_state, undetermined_operation
from training.runs.run import Run
from training.yaml_core import read_yaml

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    register_tiny(monkeypatch)


def runs(place: Path, task: str) -> list[Path]:
    return sorted(path for path in (place / "out" / task).iterdir() if not path.name.startswith("."))


def weights_of(run: Path) -> str:
    return sha256_of(best_checkpoint(run) / "model.safetensors")


# --- config.yaml and metadata.yaml ------------------------------------------------------------------------------------


def test_the_saved_config_alone_repeats_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("task: tiny\ntraining: {epochs: 3, schedule: cosine}\nmodel: {hidden: 5}\n")
    monkeypatch.setenv("TRAIN_WORKER_SEED", "5")
    where = ["--output", str(tmp_path / "a" / "out"), "--datasets", str(tmp_path / "a" / "datasets")]
    changed = ["--set", "training.learning_rate=1e-3", "--set", "data.rows_per_item=3"]
    assert main(["train", "--config", str(mine), "--data", "sample", *changed, *where]) == 0
    first = run_of(tmp_path / "a", "tiny")
    monkeypatch.delenv("TRAIN_WORKER_SEED")
    where = ["--output", str(tmp_path / "b" / "out"), "--datasets", str(tmp_path / "b" / "datasets")]
    assert main(["train", "--config", str(first / "config.yaml"), *where]) == 0
    second = run_of(tmp_path / "b", "tiny")
    one, other = Run(first).metadata, Run(second).metadata
    assert one["config_hash"] == other["config_hash"]
    assert (first / "config.yaml").read_text() == (second / "config.yaml").read_text()
    assert weights_of(first) == weights_of(second)
    assert one["seed"] == 5
    assert one["overrides"] == {"training.seed": 5, "training.learning_rate": 0.001, "data.rows_per_item": 3}
    assert other["overrides"] == {}
    assert one["dataset"]["name"] == "built-in sample"


def test_a_datasets_name_stands_in_the_metadata(tmp_path: Path) -> None:
    from tests.tiny_task import TinyTask

    data = tmp_path / "storms"
    data.mkdir()
    TinyTask.make_sample(data)
    assert train(tmp_path, "tiny", data=str(data)) == 0
    dataset = read_yaml(run_of(tmp_path, "tiny") / "metadata.yaml")["dataset"]
    assert (dataset["name"], dataset["version"]) == ("storms", None)


# --- files that settings name -----------------------------------------------------------------------------------------


def trained_from(place: Path, path: Path, *words: str) -> int:
    return train(place, "tiny", *words, sets=(f"model.init_from={path}",))


def test_other_content_under_the_same_name_is_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "source", "tiny") == 0
    weights = run_of(tmp_path / "source", "tiny") / "best_model.pth"
    path = tmp_path / "start.pth"
    path.write_bytes(weights.read_bytes())
    assert trained_from(tmp_path, path) == 0
    first = run_of(tmp_path, "tiny")
    assert read_yaml(first / "metadata.yaml")["files_sha256"] == {"model.init_from": sha256_of(path)}
    assert read_state(best_checkpoint(first))["files_sha256"] == {"model.init_from": sha256_of(path)}
    assert sha256_of(path) not in (first / "config.yaml").read_text()
    capsys.readouterr()
    assert trained_from(tmp_path, path) == 0
    assert "finished before" in capsys.readouterr().out

    other = {name: 2 * value for name, value in torch_weights(first).items()}
    write_pth(path, {"model_state_dict": other})
    assert trained_from(tmp_path, path) == 0
    one, second = runs(tmp_path, "tiny")
    assert one == first
    hashes = [Run(run).metadata["config_hash"] for run in (first, second)]
    assert hashes[0] == hashes[1]
    assert weights_of(first) != weights_of(second)

    path.unlink()  # what has its weights needs the file no more
    capsys.readouterr()
    assert trained_from(tmp_path, path) == 0
    assert "finished before" in capsys.readouterr().out


def torch_weights(run: Path) -> dict[str, torch.Tensor]:
    from backend.artifact import open_artifact

    return open_artifact(run).weights


def test_a_run_does_not_begin_from_another_file_than_it_was_made_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "start.pth"
    path.write_bytes(b"no weights")
    assert trained_from(tmp_path, path) == 65
    run = run_of(tmp_path, "tiny")
    path.write_bytes(b"other weights")
    capsys.readouterr()
    assert trained_from(tmp_path, path, "--resume", run.name) == 78
    line = capsys.readouterr().err
    assert f"is no longer the file that {run.name} was made for" in line
    assert line.count("\n") == 1


# --- code -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "commit", "dirty"),
    [
        ("a" * 40, "a" * 40, False),
        ("a" * 40 + "-dirty", "a" * 40, True),
        ("unknown", "unknown", None),
        ("", "unknown", None),
    ],
)
def test_an_image_tells_commit_and_dirt_by_a_variable(
    told: str, commit: str, dirty: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "_ROOT", tmp_path)
    monkeypatch.setenv("TRAIN_WORKER_GIT_COMMIT", told)
    assert git_state() == {"commit": commit, "dirty": dirty}


# --- determinism ------------------------------------------------------------------------------------------------------


def scatter_twice() -> None:
    torch.zeros(4).put_(torch.tensor([1, 1]), torch.tensor([1.0, 2.0]))


def test_operations_that_are_not_deterministic_are_named_every_time() -> None:
    for _ in range(2):  # a warning that was shown before counts again
        with determinism(True, CPU) as names:
            assert names == set()
            scatter_twice()
        assert names == {"put_"}
    assert not torch.are_deterministic_algorithms_enabled()


def test_without_the_switch_nothing_is_noted() -> None:
    with determinism(False, CPU) as names:
        scatter_twice()
    assert names == set()


def test_other_warnings_are_shown_as_before() -> None:
    with pytest.warns(UserWarning, match="something else"), determinism(True, CPU) as names:
        warnings.warn("something else", UserWarning, stacklevel=1)
    assert names == set()


@pytest.mark.parametrize(
    ("warning", "name"),
    [
        ("cumsum_cuda_kernel does not have a deterministic implementation, but you set …", "cumsum_cuda_kernel"),
        (
            "Deterministic behavior was enabled, but this operation is not deterministic because it uses CuBLAS",
            "cuBLAS (CUBLAS_WORKSPACE_CONFIG is not set)",
        ),
        (
            "Memory Efficient attention defaults to a non-deterministic algorithm.",
            "memory-efficient or flash attention",
        ),
        ("The given buffer is not writable", None),
    ],
)
def test_torchs_words_lead_to_the_operation(warning: str, name: str | None) -> None:
    assert undetermined_operation(warning) == name


def test_the_names_stand_in_the_metadata_of_all_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.tiny_task import TinyTask

    loss = TinyTask.loss

    def scattering(self: TinyTask, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> object:
        scatter_twice()
        return loss(self, model, batch)

    monkeypatch.setattr(TinyTask, "loss", scattering)
    assert train(tmp_path, "tiny", sets=("training.deterministic=true",)) == 0
    run = run_of(tmp_path, "tiny")
    noted = {"asked": True, "not_deterministic": ["put_"]}
    assert read_yaml(run / "metadata.yaml")["determinism"] == noted
    monkeypatch.setattr(TinyTask, "loss", loss)
    assert train(tmp_path, "tiny", "--resume", run.name, sets=("training.deterministic=true", "training.epochs=5")) == 0
    assert read_yaml(run / "metadata.yaml")["determinism"] == noted
