"""How fast the ConvLSTM trains on this machine's GPU, beside the textbook formulation. Under 8 minutes.

    python benchmarks/gpu.py            all of it: gpu-marked tests, then step time, memory, share of the matrix rate
    python benchmarks/gpu.py --tiny     the same code at toy size, also on a CPU (what the tests run)

Needs torch 2.5 or newer, numpy and this repository, nothing else. A step is forward, loss, backward and AdamW. The
share of the chip's rate counts the convolutions' arithmetic once (what checkpointing computes again is not counted),
against the rate of a large matrix product measured in the same run. Times are medians.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from backend.models.convlstm import ConvLSTMNowcaster  # noqa: E402
from backend.models.convlstm_pointwise import TORCH, choose_pointwise  # noqa: E402
from benchmarks.convlstm_textbook import textbook  # noqa: E402

OPTIONAL = ("pytest", "pydantic", "pytorch_msssim", "safetensors", "triton")
LossFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """What is trained: ``rows`` sequences a step."""

    name: str
    rows: int
    input_steps: int
    size: int
    hidden_dims: tuple[int, ...]
    prediction_steps: int = 7


@dataclass(frozen=True)
class Way:
    """How it is trained. ``micro`` rows run at once, fewer where memory ends."""

    name: str
    micro: int
    dtype: torch.dtype = torch.bfloat16
    formulation: str = "model"
    checkpointing: bool = False
    plain_gates: bool = False


@dataclass(frozen=True)
class Result:
    """One line of the table; ``problem`` says why numbers are missing."""

    case: str
    way: str
    micro: int
    seconds: float | None = None
    memory_gib: float | None = None
    share: float | None = None
    problem: str = ""


def cases(tiny: bool) -> list[tuple[Case, list[Way]]]:
    """The two workloads and the ways to run each."""
    if tiny:
        default = Case("default", 4, 3, 16, (8, 8))
        single = Case("one level", 4, 2, 16, (8, 8))
    else:
        default = Case("default (18 in, 7 out, 18 levels, 250x250, 3x128)", 18, 18, 250, (128,) * 3)
        single = Case("one level (batch 16, 8 in, 7 out, 250x250, 3x128)", 16, 8, 250, (128,) * 3)
    ours = Way("this worker, bf16", default.rows)
    return [
        (single, [
            replace(ours, micro=single.rows),
            replace(ours, name="this worker, bf16, gates in plain PyTorch", micro=single.rows, plain_gates=True),
            replace(ours, name="this worker, bf16, checkpointing", micro=single.rows, checkpointing=True),
            Way("this worker, fp32", single.rows, torch.float32),
            Way("textbook, bf16", single.rows, formulation="textbook"),
            Way("textbook, fp32", single.rows, torch.float32, "textbook"),
        ]),
        (default, [
            ours,
            replace(ours, name="this worker, bf16, checkpointing", checkpointing=True),
            Way("textbook, bf16, levels one after another", 1, formulation="textbook"),
        ]),
    ]  # fmt: skip


def loss_function() -> tuple[LossFunction, str]:
    """The worker's loss, or Huber alone where its libraries are missing."""
    try:
        from training.losses.radar import radar_loss
        from training.schemas.convlstm import RadarLossSection
    except ImportError as error:
        return F.huber_loss, f"Huber without SSIM ({error.name} is not installed)"
    settings = RadarLossSection()

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        terms = radar_loss(prediction, target, torch.ones_like(target, dtype=torch.bool), settings)
        return sum((t.weight * t.sum / t.count for t in terms.values()), torch.zeros((), device=target.device))

    return loss, "weighted Huber and SSIM"


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(run: Callable[[], object], device: torch.device, repeats: int, limit: float) -> float:
    """The median of up to ``repeats`` runs after two unmeasured ones, at least one, within about ``limit`` seconds."""
    for _ in range(2):
        run()
    synchronize(device)
    times: list[float] = []
    while len(times) < repeats and sum(times) < limit:
        start = time.perf_counter()
        run()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def matrix_rate(device: torch.device, tiny: bool) -> float:
    """Operations a second of a large bf16 matrix product."""
    size = 256 if tiny else 8192
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / median_seconds(lambda: torch.mm(a, b), device, 20, 10)


def training_step(
    model: ConvLSTMNowcaster, way: Way, x: Tensor, target: Tensor, loss: LossFunction
) -> Callable[[], None]:
    """One optimizer step over all rows, in micro-batches."""
    device = x.device.type
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-4, fused=device == "cuda")
    forward = (lambda rows: textbook(model, rows)) if way.formulation == "textbook" else model

    def step() -> None:
        for at in range(0, len(x), way.micro):
            rows = slice(at, at + way.micro)
            with torch.autocast(device, dtype=way.dtype, enabled=way.dtype != torch.float32):
                prediction = forward(x[rows])
            (loss(prediction.float(), target[rows]) * len(x[rows]) / len(x)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def measure(case: Case, way: Way, loss: LossFunction, device: torch.device, rate: float) -> Result:
    """Step time, peak memory and share of ``rate``. Raises torch.OutOfMemoryError."""
    torch.manual_seed(0)
    model = ConvLSTMNowcaster(
        case.input_steps,
        case.prediction_steps,
        (case.size, case.size),
        case.hidden_dims,
        gradient_checkpointing=way.checkpointing,
    ).to(device)
    model.pointwise = TORCH if way.plain_gates else None
    x = torch.rand(case.rows, case.input_steps, case.size, case.size, device=device)
    target = torch.rand(case.rows, case.prediction_steps, case.size, case.size, device=device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = median_seconds(training_step(model, way, x, target, loss), device, 7, 20)
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    share = 3 * model.flops_per_row() * case.rows / seconds / rate
    return Result(case.name, way.name, way.micro, seconds, memory, share)


def measure_what_fits(case: Case, way: Way, loss: LossFunction, device: torch.device, rate: float) -> Result:
    """`measure`, with half the rows at once as often as memory runs out."""
    while True:
        try:
            return measure(case, way, loss, device, rate)
        except torch.OutOfMemoryError:
            if way.micro == 1:
                return Result(case.name, way.name, 1, problem="out of memory")
            way = replace(way, micro=max(1, way.micro // 2))
        gc.collect()
        torch.cuda.empty_cache()


def results(tiny: bool, device: torch.device, rate: float, deadline: float) -> Iterator[Result]:
    """All lines of the table, as they are measured."""
    loss, _ = loss_function()
    for case, ways in cases(tiny):
        for way in ways:
            if time.monotonic() > deadline:
                yield Result(case.name, way.name, way.micro, problem="not measured: out of time")
                continue
            yield measure_what_fits(case, way, loss, device, rate)


def table(lines: list[Result]) -> str:
    """The results in Markdown; ratios are to the textbook's line of the same case and precision."""
    rows = ["| workload | way | rows at once | s a step | GiB | share of matrix rate |", "|---|---|---|---|---|---|"]
    for line in lines:
        cells = (
            [line.problem, "", ""]
            if line.seconds is None
            else [
                f"{line.seconds:.3f}" + _ratio(line, lines),
                "" if line.memory_gib is None else f"{line.memory_gib:.1f}",
                f"{line.share:.0%}",
            ]
        )
        rows.append(f"| {line.case} | {line.way} | {line.micro} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _ratio(line: Result, lines: list[Result]) -> str:
    precision = "fp32" if "fp32" in line.way else "bf16"
    for other in lines:
        if (
            other.case == line.case
            and other.way.startswith(f"textbook, {precision}")
            and other.seconds
            and line.seconds
        ):
            return "" if other is line else f" ({other.seconds / line.seconds:.2f}x)"
    return ""


def run_gpu_tests() -> str:
    """The gpu-marked tests, without this project's pytest plugins and pins."""
    if importlib.util.find_spec("pytest") is None:
        return "gpu tests: not run (pytest is not installed)"
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(ROOT), "-q", "-W", "ignore"]
    command += ["-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            [*command, str(ROOT / "tests" / "gpu")],
            cwd=ROOT,
            env=environment,
            timeout=150,
            capture_output=True,
            text=True,
        )
    except subprocess.TimeoutExpired:
        return "gpu tests: FAILED (not done after 150 s)"
    print(done.stdout[-6000:])
    return f"gpu tests: {'passed' if done.returncode == 0 else 'FAILED'} ({done.stdout.strip().splitlines()[-1]})"


def environment(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on."""
    chosen = choose_pointwise(device)
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32_in_fp32_convolutions": torch.backends.cudnn.allow_tf32,
        "gates": f"{chosen.name}: {chosen.reason}",
        "loss": loss_function()[1],
        "missing": [name for name in OPTIONAL if importlib.util.find_spec(name) is None],
    }


def main(arguments: list[str] | None = None) -> int:
    """Run everything; 0 when it ran and no gpu test failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="toy sizes; runs on a CPU as well")
    parser.add_argument("--minutes", type=float, default=7, help="begin no measurement after this long (default: 7)")
    parser.add_argument("--out", type=Path, help="folder for gpu.md and gpu.json (default: none are written)")
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + 60 * options.minutes
    if not torch.cuda.is_available() and not options.tiny:
        print("No CUDA device is at hand, so there is nothing to measure (--tiny runs the code on a CPU).")
        return 1
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    tests = "gpu tests: not run (--tiny)" if options.tiny else run_gpu_tests()
    facts = environment(device)
    rate = matrix_rate(device, options.tiny)
    facts |= {"tests": tests, "matrix_tflops": rate / 1e12}
    print(json.dumps(facts, indent=1), flush=True)
    lines = []
    for line in results(options.tiny, device, rate, deadline):
        lines.append(line)
        print(line, flush=True)
    print("\n" + table(lines))
    if options.out:
        _write(options.out, facts, lines)
    return 1 if "FAILED" in tests else 0


def _write(folder: Path, facts: dict[str, Any], lines: list[Result]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    header = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    (folder / "gpu.md").write_text(f"{header}\n\n{table(lines)}\n")
    (folder / "gpu.json").write_text(
        json.dumps({**facts, "results": [asdict(line) for line in lines]}, indent=1) + "\n"
    )


if __name__ == "__main__":
    sys.exit(main())
