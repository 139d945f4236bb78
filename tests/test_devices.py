"""Devices that lack something: results are the CPU's, and nothing asks them for what they lack."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lyco_testing.pretended import ELSEWHERE, PretendedDevice
from lyco_testing.zoo import CASES, Case, normal
from lyco_testing.zoo_on_base import ON_BASE, OnBaseCase
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from lyco_core.adapters import LoHa, LoKr, LoRA
from lyco_core.approximate.extract import extract_file
from lyco_core.approximate.options import ExtractOptions, Limits
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


class Counting(TorchDispatchMode):
    """Counts what launches a kernel: every operation but views and allocations."""

    def __init__(self) -> None:
        super().__init__()
        self.launched: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if func.namespace == "aten" and not func.is_view and name not in ("empty", "detach", "_unsafe_view"):
            self.launched.append(name)
        return func(*args, **(kwargs or {}))


LAUNCHES = {"lora": (1, 5), "loha": (3, 9), "lokr low rank": (5, 10), "lokr full": (3, 7)}
"""How many kernels a patch takes at most, in float32 and in half precision; ComfyUI's own take 3 to 5, and 6 to 10."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", LAUNCHES)
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_a_gpu_is_not_given_work_in_crumbs(kind: str, dtype: torch.dtype):
    def made(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, device="cuda:0", dtype=dtype)

    size = 5120
    with FakeTensorMode():
        try:
            weight = made(size, size)
        except RuntimeError as error:
            pytest.skip(f"this torch makes no fake tensor of a GPU: {error}")
        adapter = {
            "lora": lambda: LoRA(up=made(size, 16), down=made(16, size)),
            "loha": lambda: LoHa(made(size, 16), made(16, size), made(size, 16), made(16, size)),
            "lokr low rank": lambda: LoKr(w1=made(64, 64), w2_a=made(80, 16), w2_b=made(16, 80)),
            "lokr full": lambda: LoKr(w1=made(16, 16), w2=made(320, 320)),
        }[kind]()
        with Counting() as counting:
            adapter.add_to_(weight, 0.5)
    assert len(counting.launched) <= LAUNCHES[kind][dtype != torch.float32], counting.launched
