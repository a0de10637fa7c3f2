"""Rules that the repository as a whole keeps."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from backend import errors
from training.config.keys import keys_of
from training.tasks import TASKS, config_class

ROOT = Path(__file__).parent.parent
LOCKS = {name: ROOT / "training" / f"requirements.{name}.txt" for name in ("train", "torch", "trackers", "dev")}
ONLY_WITH_TORCH = re.compile(r"torch|torchvision|triton|nvidia-.*")

# Package in the lock -> the module it is imported as, and the folders where that belongs.
# opencv-python-headless stands for opencv-python: the same module without the windows that a container cannot show.
TEN_PACKAGES = {
    "torch": ("torch", ["backend/models", "training/engine"]),
    "xarray": ("xarray", ["backend", "training"]),
    "netcdf4": ("netCDF4", ["backend/preprocessing", "training"]),
    "gdown": ("gdown", ["training/fetching"]),
    "torchmetrics": ("torchmetrics", ["training", "tests/scores"]),  # checks the radar scores, which need masks
    "pytorch-msssim": ("pytorch_msssim", ["training/losses"]),
    "numpy": ("numpy", ["backend/preprocessing", "training/data"]),
    "pandas": ("pandas", ["training"]),
    "opencv-python-headless": ("cv2", ["backend/preprocessing"]),
    "pydantic": ("pydantic", ["training"]),
}
UNGUARDED = {"torch.load", "torch.jit.load", "pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load"}


@cache
def requirements(name: str) -> dict[str, list[str]]:
    """Package -> the hashes of its line in a lock file."""
    found: dict[str, list[str]] = {}
    package = ""
    for line in LOCKS[name].read_text().splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==", line):
            package = match[1].lower()
            found.setdefault(package, [])
        found.get(package, []).extend(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
    return found


def tracked(*patterns: str) -> list[Path]:
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", *patterns]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def modules_imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


# --- requirements ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", TEN_PACKAGES)
def test_each_of_the_ten_packages_is_locked_and_used_where_it_belongs(package: str) -> None:
    module, folders = TEN_PACKAGES[package]
    assert package in requirements("torch" if package == "torch" else "train")
    users = [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if module in {name.partition(".")[0] for name in modules_imported(path)}
    ]
    assert users, f"{package} is locked but imported nowhere in {', '.join(folders)}"


def test_what_the_image_brings_is_not_in_the_requirements_for_it() -> None:
    assert [name for name in requirements("train") if ONLY_WITH_TORCH.fullmatch(name)] == []
    assert {"torch", "torchvision"} <= set(requirements("torch"))


@pytest.mark.parametrize("name", LOCKS)
def test_every_requirement_is_pinned_by_hash_and_names_no_place(name: str) -> None:
    assert len(requirements(name)) > 5
    assert [package for package, hashes in requirements(name).items() if not hashes] == []
    text = LOCKS[name].read_text()
    assert not re.search(r"https?:|file:|index-url|find-links|trusted-host| @ ", text)
    rows = [row for row in text.splitlines() if row.strip() and not row.lstrip().startswith("#")]
    assert [
        row for row in rows if not re.match(r"[a-z0-9._-]+==\S+( ;.*)? \\$|    --hash=sha256:[0-9a-f]{64}", row)
    ] == []


def test_the_locks_agree_on_versions() -> None:
    pins: dict[str, set[str]] = {}
    for path in LOCKS.values():
        for package, version, marker in re.findall(r"(?m)^([\w.-]+)==(\S+)(?: ; (.*?))? \\$", path.read_text()):
            pins.setdefault(f"{package.lower()} {marker if 'python' in marker else ''}", set()).add(version)
    assert {package: versions for package, versions in pins.items() if len(versions) > 1} == {}


# --- layout ---------------------------------------------------------------------------------------------------------


def test_serving_code_never_imports_training() -> None:
    guilty = [
        path.relative_to(ROOT)
        for path in (ROOT / "backend").rglob("*.py")
        if "training" in {name.partition(".")[0] for name in modules_imported(path)}
    ]
    assert guilty == []


def test_the_engine_knows_no_task() -> None:
    allowed = {"training.tasks.protocol"}
    of_tasks = ("training.tasks", *(f"training.data.{kind}" for kind in ("radar", "landmarks", "detection")))
    for path in (ROOT / "training" / "engine").rglob("*.py"):
        names = {name for name in modules_imported(path) if name.startswith(of_tasks)}
        assert names <= allowed, path


def test_datasets_and_model_output_hold_a_readme_and_are_no_packages() -> None:
    for folder in ("datasets", "model_output"):
        assert [path.name for path in tracked(folder)] == ["README.md"]


def test_no_code_reads_pickles_or_unpacks_archives_without_a_guard() -> None:
    guilty = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in tracked("*.py")
        if ROOT / "tests" not in path.parents
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and trusts_its_input(node)
    ]
    assert guilty == []


def trusts_its_input(call: ast.Call) -> bool:
    called = ast.unparse(call.func)
    allows_pickle = any(word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in call.keywords)
    return called in UNGUARDED or called.endswith(".extractall") or allows_pickle


@pytest.mark.parametrize(
    ("code", "trusts"),
    [
        ("torch.load(p, weights_only=True)", True),
        ("pickle.loads(b)", True),
        ("archive.extractall(p)", True),
        ("np.load(p, allow_pickle=True)", True),
        ("np.load(p, allow_pickle=False)", False),
        ("json.load(f)", False),
    ],
)
def test_what_trusts_its_input_is_seen(code: str, trusts: bool) -> None:
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    assert trusts_its_input(call) is trusts


def test_no_file_is_too_long_or_too_large() -> None:
    for path in tracked("*.py"):
        assert len(path.read_text("utf-8").splitlines()) <= 500, path
    for path in tracked():
        assert path.stat().st_size <= 1024 * 1024, path


def test_every_markdown_link_leads_somewhere() -> None:
    done = subprocess.run(
        [sys.executable, "tools/check_links.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        "# One two: `three`\n## One two: `three`\n"
        "[ok](b.md) [ok](#one-two-three) [ok](#one-two-three-1) [ok](b.md#bee 'x') [web](https://x.y/z)\n"
        "[gone](c.md) [gone](b.md#cee)\n```\n[code](d.md)\n```\n`[code](e.md)`\n[r]: f.md\n"
    )
    (tmp_path / "b.md").write_text("# Bee\n")
    command = [sys.executable, str(ROOT / "tools" / "check_links.py"), str(tmp_path)]
    environ = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "a.md:4: c.md: no such file",
        "a.md:4: b.md#cee: no such heading in b.md",
        "a.md:9: f.md: no such file",
        "3 dead links",
    ]


# --- documentation --------------------------------------------------------------------------------------------------


def test_settings_named_in_the_documentation_exist() -> None:
    """Of some task: a page may speak of several."""
    tasks = [keys_of(config_class(task)) for task in TASKS]
    known = {path for keys in tasks for path in (*keys.leaves, *keys.sections)}
    heads = "|".join(sorted({path.partition(".")[0] for path in known if "." in path}))
    named = re.compile(rf"\b(?:{heads})\.[a-z_]+(?:\.[a-z_]+)*(?!\w|/|\()")
    files = {"py", "yaml", "md", "jsonl", "api", "cli", "config", "engine", "losses", "schema", "safetensors"}
    wrong = [
        (page.name, path)
        for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
        for path in named.findall(page.read_text("utf-8"))
        if path not in known and path.rpartition(".")[2] not in files
    ]
    assert wrong == []


NAMES_THERE = """
dataset_root_dir model_save_dir predictions_output_dir dataset_gdown_id dataset_archive_name dataset_unpacked_name
downsample_size seq_len pred_len seq_stride train_val_split_ratio min_dbz_norm max_dbz_norm model_input_dim
model_hidden_dims model_kernel_sizes model_num_layers model_use_layer_norm batch_size epochs learning_rate weight_decay
lr_patience use_amp clip_grad_norm accumulation_steps use_ssim_loss ssim_loss_weight high_dbz_threshold_norm
high_penalty_weight log_interval checkpoint_interval seed
setup_dataset prepare_and_split_data RadarDataset ConvLSTMCell ConvLSTM2DLayer Seq2Seq SSIMLoss train_model set_seed
"""


def test_every_setting_and_function_of_the_earlier_pipeline_has_its_row() -> None:
    text = (ROOT / "docs" / "coming-from.md").read_text("utf-8")
    firsts = "\n".join(re.findall(r"(?m)^\|([^|]*)\|", text))
    assert [name for name in NAMES_THERE.split() if f"`{name}`" not in firsts] == []


def test_files_named_in_the_documentation_exist() -> None:
    named = re.compile(r"`((?:backend|training|tests|tools|docker)/[\w/.]+)`")
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "docs" / "coming-from.md",
        ROOT / "docs" / "container.md",
    ]
    found = {path for page in pages for path in named.findall(page.read_text("utf-8"))}
    assert [path for path in sorted(found) if not (ROOT / path).exists()] == []


def test_the_readme_lists_every_exit_code() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    codes = [value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)]
    assert len(codes) > 8
    assert [code for code in codes if f"| {code} |" not in text] == []


# --- make -----------------------------------------------------------------------------------------------------------


def make(*words: str, **environ: str) -> str:
    command = ["make", "--dry-run", "-o", ".venv/.ready", "-o", ".venv/.ready-dev", *words]
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={**plain, **environ})
    return done.stdout + done.stderr


def test_make_passes_everything_on() -> None:
    said = make("train", "TASK=convlstm", "DATA=a b", "CONFIG=cpu", "ARGS=--seed 3")
    command = said.split("train_worker.py ")[1].split()
    assert " ".join(command) == 'train --task "convlstm" --data "a b" --config "cpu" --seed 3'
    assert "exec .venv/bin/python" in said


def test_make_asks_for_a_run_where_one_is_needed() -> None:
    assert "needs RUN=" in make("evaluate")
    assert 'evaluate "2026" --split test' in " ".join(make("evaluate", "RUN=2026", "ARGS=--split test").split())


def test_make_takes_the_members_of_an_ensemble() -> None:
    def command(*words: str) -> str:
        return " ".join(make(*words).split("train_worker.py ")[-1].split())

    assert command("ensemble", "RUNS=a b", "ARGS=--weights 2,1") == "ensemble a b --weights 2,1"
    assert command("ensemble", "CONFIG=ensembles/best.json") == 'ensemble --config "ensembles/best.json"'
    assert command("sweep", "RUNS=a b", "DATA=x y", "ARGS=--k 2 --detach") == 'sweep a b --data "x y" --k 2 --detach'
    assert "sweep needs RUNS=" in make("sweep")
    assert command("train", "TASK=landmarks", "ARGS=--seeds 1,2") == 'train --task "landmarks" --seeds 1,2'


def test_in_the_image_make_uses_the_images_python() -> None:
    said = make("train", TRAIN_WORKER_IMAGE="1")
    assert "exec python training/train_worker.py" in said
    assert ".venv" not in said


def test_make_takes_common_words_from_its_command_line_alone() -> None:
    said = make("train", DATA="x", CONFIG="y", RUN="z", RUNS="v", ARGS="--w", TASK="convlstm")
    assert said.split("train_worker.py ")[1].split() == ["train", "--task", '"convlstm"']


STOPPABLE = """
import os, signal, sys, time
def stop(number, frame):
    os.write(1, b"saved\\n")  # print may be at work in what was interrupted
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
print("at work", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("number", "whole_group"), [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_signals_reach_the_worker_through_make(tmp_path: Path, number: signal.Signals, whole_group: bool) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "train_worker.py").write_text(STOPPABLE)
    for name in LOCKS:
        (tmp_path / "training" / f"requirements.{name}.txt").touch()
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {"PATH": path, "TRAIN_WORKER_IMAGE": "1"}
    # A terminal's Ctrl-C goes to make and to the worker alike; `kill` only to make, which hands it on.
    with subprocess.Popen(
        ["make", "train"], cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "at work\n"
        os.killpg(running.pid, number) if whole_group else running.send_signal(number)
        assert running.stdout.read().startswith("saved\n")
    assert running.returncode != 0


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"(?m)^([a-z-]+):(?!=)", text)
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert len(targets) > 12
    assert [target for target in targets if f"make {target} " not in said] == []


def test_a_package_that_is_missing_is_told_in_a_line(tmp_path: Path) -> None:
    """A Python that has the standard library alone, as `python` is where only .venv has the packages."""
    command = [sys.executable, "-S", "-I", str(ROOT / "training" / "train_worker.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the package ") and "make setup" in line
