"""The ConvLSTM is the textbook's, to rounding, in every way of running it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import profile

from backend.errors import ConfigError
from backend.models.convlstm import ConvLSTMNowcaster
from backend.models.convlstm_cell import recur
from backend.models.convlstm_norm import _FrameNorm, frame_norm
from backend.models.convlstm_pointwise import TORCH, Pointwise, choose_pointwise
from benchmarks.convlstm_textbook import textbook

ROOT = Path(__file__).parents[2]


def small(**options: object) -> ConvLSTMNowcaster:
    torch.manual_seed(0)
    sizes: dict[str, object] = {"input_steps": 6, "image_size": (12, 10), "hidden_dims": (8, 12, 8)}
    model = ConvLSTMNowcaster(**(sizes | options))  # type: ignore[arg-type]
    for parameter in model.parameters():  # away from the neutral values that biases and norms begin with
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def gradients(model: nn.Module, output: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    (output * torch.linspace(0, 1, output.numel()).view_as(output)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


class TestAgainstTheTextbook:
    @pytest.mark.parametrize("norm", ["layer", "group", "none"])
    @pytest.mark.parametrize("checkpointing", [False, True])
    @pytest.mark.parametrize("steps", [1, 2, 6])
    def test_outputs_and_gradients(self, norm: str, checkpointing: bool, steps: int) -> None:
        model = small(norm=norm, gradient_checkpointing=checkpointing)
        x = torch.rand(3, steps, 12, 10)
        ours, expected = model(x), textbook(model, x)
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
        of_ours, of_expected = gradients(model, ours), gradients(model, expected)
        assert of_ours.keys() == of_expected.keys()
        for name, gradient in of_expected.items():
            scale = gradient.abs().max().item()
            torch.testing.assert_close(of_ours[name], gradient, atol=1e-5 * max(scale, 1), rtol=1e-4, msg=name)

    @pytest.mark.parametrize("hidden_dims", [(8,), (4, 6), (3, 5, 4, 6)])
    def test_any_number_of_layers(self, hidden_dims: tuple[int, ...]) -> None:
        model = small(hidden_dims=hidden_dims)
        x = torch.rand(2, 4, 12, 10)
        torch.testing.assert_close(model(x), textbook(model, x), atol=1e-5, rtol=0)

    @pytest.mark.parametrize("kernel_size", [1, 5])
    def test_other_kernels(self, kernel_size: int) -> None:
        model = small(kernel_size=kernel_size)
        x = torch.rand(2, 4, 12, 10)
        torch.testing.assert_close(model(x), textbook(model, x), atol=1e-5, rtol=0)

    def test_stretches_of_frames_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = small()
        x = torch.rand(2, 6, 12, 10)
        whole = model(x)
        of_whole = gradients(model, whole)
        monkeypatch.setattr("backend.models.convlstm._STRETCH_BYTES", {"cpu": 1})
        split = model(x)
        torch.testing.assert_close(split, whole, atol=1e-6, rtol=0)
        for name, gradient in gradients(model, split).items():
            torch.testing.assert_close(gradient, of_whole[name], atol=1e-4, rtol=1e-4)

    def test_double_precision(self) -> None:
        model = small().double()
        x = torch.rand(2, 4, 12, 10, dtype=torch.float64)
        torch.testing.assert_close(model(x), textbook(model, x), atol=1e-12, rtol=0)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
    def test_mixed_precision_stays_near(self, dtype: torch.dtype, tolerance: float) -> None:
        model = small()
        x = torch.rand(2, 6, 12, 10)
        exact = textbook(model, x)
        with torch.autocast("cpu", dtype=dtype):
            mixed = model(x)
        assert mixed.dtype == torch.float32
        torch.testing.assert_close(mixed, exact, atol=tolerance, rtol=0)
        assert all(gradient.isfinite().all() for gradient in gradients(model, mixed).values())

    def test_rows_do_not_touch_each_other(self) -> None:
        model = small()
        x = torch.rand(3, 4, 12, 10)
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), atol=1e-6, rtol=0)

    def test_output_lies_between_0_and_1(self) -> None:
        output = small()(torch.rand(2, 4, 12, 10))
        assert output.shape == (2, 7, 12, 10)
        assert 0 < output.min() <= output.max() < 1


class TestRecurrence:
    @pytest.mark.parametrize("started", [False, True])
    def test_gradients_by_finite_differences(self, started: bool) -> None:
        torch.manual_seed(0)
        rows, inputs, hidden, frames = 2, 1, 2, 3

        def made(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64).mul(0.5).requires_grad_()

        tensors = [made(frames * rows, inputs, 2, 3), made(4 * hidden, inputs + hidden, 3, 3), made(4 * hidden)]
        tensors += [made(rows, hidden, 2, 3), made(rows, hidden, 2, 3)] if started else []

        def run(x: Tensor, weight: Tensor, bias: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
            hs, (h, c) = recur(x, weight, bias, state or None, rows)  # type: ignore[arg-type]
            return hs, h, c

        assert torch.autograd.gradcheck(run, tensors, fast_mode=True)

    @pytest.mark.parametrize("shape", [(2, 4, 3), (2,)])
    def test_frame_norm_by_finite_differences(self, shape: tuple[int, ...]) -> None:
        torch.manual_seed(0)
        x = torch.randn(3, 2, 4, 3, dtype=torch.float64, requires_grad=True)
        weight, bias = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(2))
        assert torch.autograd.gradcheck(frame_norm, (x, weight, bias))
        as_on_a_gpu = [p.detach().view(1, -1, *(shape[1:] or (1, 1))).requires_grad_() for p in (weight, bias)]
        assert torch.autograd.gradcheck(lambda *a: _FrameNorm.apply(*a, 1e-5), (x, *as_on_a_gpu))
        on_a_gpu = _FrameNorm.apply(x, *as_on_a_gpu, 1e-5)
        torch.testing.assert_close(on_a_gpu, frame_norm(x, weight, bias))

    def test_frame_norm_is_layer_norm_and_group_norm(self) -> None:
        x = torch.randn(3, 4, 6, 5).contiguous(memory_format=torch.channels_last) * 30 + 100
        weight, bias = torch.randn(4, 6, 5), torch.randn(4, 6, 5)
        torch.testing.assert_close(frame_norm(x, weight, bias), F.layer_norm(x, x.shape[1:], weight, bias))
        grouped = F.group_norm(x, 1, weight[:, 0, 0], bias[:, 0, 0])
        torch.testing.assert_close(frame_norm(x, weight[:, 0, 0], bias[:, 0, 0]), grouped)


class TestWeights:
    def test_names_and_sizes_of_published_weights(self) -> None:
        with torch.device("meta"):
            model = ConvLSTMNowcaster()
        shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        expected: dict[str, tuple[int, ...]] = {}
        for n, inputs in enumerate([1, 128, 128]):
            expected[f"layers.{n}.cell.conv.weight"] = (512, inputs + 128, 3, 3)
            expected[f"layers.{n}.cell.conv.bias"] = (512,)
            expected[f"layers.{n}.layer_norm.weight"] = expected[f"layers.{n}.layer_norm.bias"] = (128, 250, 250)
        expected |= {"output_conv.weight": (7, 128, 1, 3, 3), "output_conv.bias": (7,)}
        assert shapes == expected
        assert sum(p.numel() for p in model.parameters()) == 50_963_335

    def test_the_last_norm_takes_no_part(self) -> None:
        model = small()
        idle = [name for name, p in model.named_parameters() if not p.requires_grad]
        assert idle == ["layers.2.layer_norm.weight", "layers.2.layer_norm.bias"]

    def test_initialisation(self) -> None:
        torch.manual_seed(0)
        conv = ConvLSTMNowcaster(image_size=(4, 4), hidden_dims=(64, 64)).layers[1].cell.conv
        bound = (6 / (9 * (128 + 256))) ** 0.5
        assert conv.bias.abs().max() == 0
        assert 0.99 * bound < conv.weight.abs().max() <= bound

    def test_group_norm_takes_any_image_size(self) -> None:
        model = small(norm="group")
        assert model(torch.rand(1, 3, 20, 16)).shape == (1, 7, 20, 16)
        assert [name for name in model.state_dict() if "norm" in name] == [
            f"layers.{n}.group_norm.{kind}" for n in range(2) for kind in ("weight", "bias")
        ]


class TestBadInput:
    @pytest.mark.parametrize("shape", [(1, 3, 20, 16), (3, 12, 10)])
    def test_frames_of_another_size(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ConfigError, match=r"12, 10.*group"):
            small()(torch.rand(shape))

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"kernel_size": 4}, "odd"),
            ({"hidden_dims": ()}, "hidden_dims"),
            ({"hidden_dims": (8, 0)}, "hidden_dims"),
            ({"prediction_steps": 0}, "prediction_steps 0"),
            ({"image_size": (8,)}, "image_size"),
        ],
    )
    def test_impossible_sizes(self, options: dict[str, object], words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            small(**options)


def peak_bytes(model: ConvLSTMNowcaster, x: Tensor) -> int:
    """The most memory that tensors took at once in a training step, beyond weights and their gradients."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with profile(profile_memory=True) as trace:
        model(x).mean().backward()
    events = [event for event in trace.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = torch.tensor([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return int(held.cumsum(0).max())


class TestMemory:
    @pytest.mark.parametrize("checkpointing", [False, True])
    @pytest.mark.parametrize(("steps", "hidden_dims"), [(9, (12, 12, 12)), (8, (16, 16)), (4, (24,))])
    def test_the_estimate_is_near_the_truth(
        self, checkpointing: bool, steps: int, hidden_dims: tuple[int, ...]
    ) -> None:
        model = ConvLSTMNowcaster(steps, 7, (32, 40), hidden_dims, gradient_checkpointing=checkpointing)
        measured = peak_bytes(model, torch.rand(2, steps, 32, 40)) / 2
        assert 0.85 < model.activation_bytes_per_row() / measured < 1.35

    def test_checkpointing_takes_less_than_half(self) -> None:
        x = torch.rand(1, 18, 32, 40)
        plain, saving = (
            peak_bytes(ConvLSTMNowcaster(18, 7, (32, 40), (12, 12, 12), gradient_checkpointing=on), x)
            for on in (False, True)
        )
        assert saving < plain / 2

    def test_the_default_fits_a_24_gib_machine(self) -> None:
        with torch.device("meta"):
            model = ConvLSTMNowcaster(gradient_checkpointing=True)
        assert 3 * 2**30 < model.activation_bytes_per_row() < 6 * 2**30

    def test_arithmetic_of_the_default(self) -> None:
        with torch.device("meta"):
            model = ConvLSTMNowcaster()
        per_pixel = 2 * 9 * 512 * (129 + 256 + 256)
        assert model.flops_per_row(1) == 62_500 * (per_pixel + 2 * 9 * 128 * 7)


class TestChoiceOfKernels:
    def test_a_cpu_takes_plain_operations_and_says_why(self) -> None:
        chosen = choose_pointwise(torch.device("cpu"))
        assert chosen.name == "torch"
        assert "cpu" in chosen.reason

    def test_a_gpu_that_does_not_work_takes_plain_operations_and_says_why(self) -> None:
        if torch.cuda.is_available():
            pytest.skip("there is a GPU that works")
        chosen = choose_pointwise(torch.device("cuda"))
        assert chosen.name == "torch"
        assert "does not work here" in chosen.reason

    def test_wrong_kernels_are_found_out(self) -> None:
        from backend.models.convlstm_pointwise import _disagreement

        def wrong(gates: Tensor, from_hidden: Tensor | None, c_prev: Tensor | None, c: Tensor, h: Tensor) -> None:
            TORCH.forward(gates, from_hidden, c_prev, c, h)
            h.mul_(1.1)

        assert _disagreement(TORCH, torch.device("cpu")) is None
        assert "differ" in str(_disagreement(Pointwise("wrong", "", wrong, TORCH.backward), torch.device("cpu")))

    def test_triton_kernels_in_tritons_interpreter(self) -> None:
        """Runs in a process of its own, since the interpreter is switched on when Triton is imported."""
        pytest.importorskip("triton")
        environment = os.environ | {
            "TRITON_INTERPRET": "1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", INTERPRETED], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        if done.stdout.strip() == "broken":
            pytest.skip("this Triton's interpreter does not work with this numpy")
        assert done.stdout.strip() == "None"


INTERPRETED = """
import torch, triton, triton.language as tl
from backend.models import convlstm_triton as kernels
from backend.models.convlstm_pointwise import Pointwise, _disagreement
cpu = torch.device("cpu")
one = torch.zeros(2, 24, 1, 1)
kernels.forward(torch.ones(2, 96, 1, 1), None, None, one, torch.zeros(2, 24, 1, 1))
print(_disagreement(Pointwise("triton", "", kernels.forward, kernels.backward), cpu) if one.any() else "broken")
"""
