"""The ConvLSTM on a GPU: the same results by every road, and the memory it promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backend.models.convlstm import ConvLSTMNowcaster
from backend.models.convlstm_norm import frame_norm
from backend.models.convlstm_pointwise import TORCH, choose_pointwise
from benchmarks.convlstm_textbook import textbook

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def full_fp32() -> object:
    """Without TF32, fp32 means fp32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def small(**options: object) -> ConvLSTMNowcaster:
    torch.manual_seed(0)
    sizes: dict[str, object] = {"input_steps": 6, "image_size": (40, 36), "hidden_dims": (32, 48, 32)}
    model = ConvLSTMNowcaster(**(sizes | options))  # type: ignore[arg-type]
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.to(CUDA)


def gradients(model: ConvLSTMNowcaster, output: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    output.float().square().mean().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def peak_bytes(model: ConvLSTMNowcaster, x: Tensor, dtype: torch.dtype) -> int:
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.autocast("cuda", dtype=dtype):
        output = model(x)
    output.mean().backward()
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("plain_gates", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("norm", ["layer", "group"])
def test_fp32_is_the_textbook(plain_gates: bool, checkpointing: bool, norm: str) -> None:
    model = small(gradient_checkpointing=checkpointing, norm=norm)
    model.pointwise = TORCH if plain_gates else None
    x = torch.rand(3, 6, 40, 36, device=CUDA)
    ours, expected = model(x), textbook(model, x)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    of_expected = gradients(model, expected)
    for name, gradient in gradients(model, ours).items():
        scale = of_expected[name].abs().max().item()
        torch.testing.assert_close(gradient, of_expected[name], atol=1e-4 * scale, rtol=1e-3, msg=name)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
@pytest.mark.parametrize("plain_gates", [False, True])
def test_mixed_precision_is_near_fp32_and_finite(dtype: torch.dtype, tolerance: float, plain_gates: bool) -> None:
    model = small()
    model.pointwise = TORCH if plain_gates else None
    x = torch.rand(3, 6, 40, 36, device=CUDA)
    exact = model(x)
    of_exact = gradients(model, exact)
    with torch.autocast("cuda", dtype=dtype):
        mixed = model(x)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, exact, atol=tolerance, rtol=0)
    model.zero_grad()
    (mixed.square().mean() * 1024).backward()  # scaled, as a gradient scaler does for fp16
    for name, p in model.named_parameters():
        if p.grad is not None:
            assert p.grad.isfinite().all(), name
            difference = (p.grad / 1024 - of_exact[name]).norm() / of_exact[name].norm()
            assert difference < 0.1, name


def test_it_is_no_further_from_fp32_than_the_textbook_in_bf16() -> None:
    model = small()
    x = torch.rand(3, 6, 40, 36, device=CUDA)
    exact = textbook(model, x)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        ours, theirs = model(x), textbook(model, x).float()
    assert (ours - exact).abs().mean() < 1.5 * (theirs - exact).abs().mean()


def test_frame_norm_is_layer_norm() -> None:
    x = torch.randn(3, 16, 40, 36, device=CUDA).contiguous(memory_format=torch.channels_last) * 5 + 20
    weight, bias = torch.randn(16, 40, 36, device=CUDA), torch.randn(16, 40, 36, device=CUDA)
    expected = torch.nn.functional.layer_norm(x, x.shape[1:], weight, bias)
    torch.testing.assert_close(frame_norm(x, weight, bias), expected, atol=1e-4, rtol=1e-4)


def test_the_gates_have_a_reason() -> None:
    chosen = choose_pointwise(CUDA)
    assert chosen.name in ("triton", "torch")
    assert chosen.reason


def test_a_second_run_gives_the_same() -> None:
    model = small()
    x = torch.rand(2, 6, 40, 36, device=CUDA)
    with torch.no_grad():
        assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_checkpointing_takes_less_memory(dtype: torch.dtype) -> None:
    x = torch.rand(2, 18, 64, 64, device=CUDA)
    options = {"input_steps": 18, "image_size": (64, 64), "hidden_dims": (64, 64, 64)}
    plain, saving = (peak_bytes(small(gradient_checkpointing=on, **options), x, dtype) for on in (False, True))
    assert saving < plain / 2


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_memory_estimate_is_near_the_truth(checkpointing: bool) -> None:
    model = small(input_steps=12, image_size=(96, 96), hidden_dims=(64, 64), gradient_checkpointing=checkpointing)
    x = torch.rand(2, 12, 96, 96, device=CUDA)
    peak_bytes(model, x, torch.bfloat16)  # workspaces of the libraries are taken once
    measured = peak_bytes(model, x, torch.bfloat16) / 2
    assert 0.6 < model.activation_bytes_per_row(torch.bfloat16, "cuda") / measured < 1.6


def test_out_of_memory_is_raised_as_such_and_leaves_the_model_usable() -> None:
    model = small(norm="group")
    with pytest.raises(torch.OutOfMemoryError):
        model(torch.rand(1, 1, 1, 1, device=CUDA).expand(200_000, 6, 40, 36))
    assert model(torch.rand(1, 6, 40, 36, device=CUDA)).isfinite().all()
