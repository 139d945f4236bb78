"""Devices that lack something: results are the CPU's, and nothing asks them for what they lack."""

from pathlib import Path

import pytest
import torch
from lyco_testing.pretended import ELSEWHERE, PretendedDevice
from lyco_testing.zoo import CASES, Case, normal
from lyco_testing.zoo_on_base import ON_BASE, OnBaseCase
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensorMode

from lyco_core.approximate.extract import extract_file
from lyco_core.approximate.options import ExtractOptions, Limits
from lyco_core.scratch import scratch
from lyco_core.train.trainable.hadamard import hadamard_linear


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return float((found - expected).norm()) <= 1e-5 * float(expected.norm())


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_on_rows_of_a_weight(case: Case, dtype: torch.dtype):
    adapter, rows = case.make(), case.shape[0]
    weight = normal(3 * rows, *case.shape[1:]).to(dtype)
    expected = weight.clone()
    adapter.add_to_(expected[rows : 2 * rows], 0.7)
    x = normal(5, adapter.flat_shape[1])
    with PretendedDevice():
        there = weight.to(ELSEWHERE)
        adapter.to(ELSEWHERE).add_to_(there[rows : 2 * rows], 0.7)
        found, output = there.cpu(), adapter.to(ELSEWHERE).apply(x.to(ELSEWHERE)).cpu()
    assert close(found.float(), expected.float())
    assert close(output, adapter.apply(x))


@pytest.mark.parametrize("case", ON_BASE, ids=lambda c: c.name)
def test_an_adapter_that_needs_the_weight(case: OnBaseCase):
    adapter, weight = case.make(), normal(*case.shape)
    with PretendedDevice():
        found = adapter.to(ELSEWHERE).add_to_(weight.to(ELSEWHERE), 0.7).cpu()
    assert close(found, adapter.add_to_(weight.clone(), 0.7))


@pytest.mark.parametrize("tokens", [3, 400], ids=["by ranks", "by bands"])
def test_a_loha_in_training(tokens: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lyco_core.train.trainable.hadamard._ELEMENTS", 64)
    shapes = [(tokens, 20), (24, 8), (8, 20), (24, 8), (8, 20)]
    rows = torch.ones(1)

    def passed(device: str) -> list[torch.Tensor]:
        leaves = [normal(*shape).to(device).requires_grad_() for shape in shapes]
        y = hadamard_linear(*leaves, rows.to(device))
        y.backward(torch.ones_like(y))
        return [t.detach().cpu() for t in (y, *(leaf.grad for leaf in leaves))]

    expected = passed("cpu")
    with PretendedDevice():
        found = passed(ELSEWHERE)
    assert all(close(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("algorithm", ["lora", "loha", "lokr"])
def test_an_extraction(algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lyco_core.approximate.svd.DENSE", 8)  # the randomised way too
    base = {f"blocks.0.{name}.weight": normal(40, 30) for name in ("self_attn.q", "ffn.0")}
    base["blocks.0.norm3.weight"] = normal(40)
    save_file(base, tmp_path / "base.safetensors")
    save_file(
        {k: (t + normal(*t.shape[::-1]).t() / 9).double() for k, t in base.items()}, tmp_path / "tuned.safetensors"
    )
    asked = Limits(max_error=0.4) if algorithm == "lora" else Limits(rank=3)
    for device in ("cpu", ELSEWHERE):
        files = (tmp_path / name for name in ("base.safetensors", "tuned.safetensors", f"{device}.safetensors"))
        with PretendedDevice():
            extract_file(*files, ExtractOptions(algorithm, asked, device=device))
    expected, found = (load_file(tmp_path / f"{device}.safetensors") for device in ("cpu", ELSEWHERE))
    assert found.keys() == expected.keys()
    assert all(close(found[key], t) for key, t in expected.items())


def test_no_device_is_handed_anothers_memory():
    with FakeTensorMode():
        try:
            torch.empty(2, device="cuda:0")[:1]
        except (AssertionError, RuntimeError) as error:  # torch 2.4 asks the driver; a build without CUDA knows none
            pytest.skip(f"this torch pretends no tensor on cuda:0: {error}".splitlines()[0])
        for device in ("cuda:0", "cuda:1", "cpu", "cuda:0"):
            assert scratch("test", (4,), device=device).device == torch.device(device)
    from lyco_core.scratch import _own

    for key in [key for key in _own.buffers if key[0] == "test"]:
        del _own.buffers[key]
