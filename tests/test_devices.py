"""Devices that lack something: results are the CPU's, and nothing asks them for what they lack."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lyco_testing.pretended import ELSEWHERE, PretendedDevice
from lyco_testing.toy import ToyModel
from lyco_testing.toy_training import EVERYTHING, ITEMS, steps, training
from lyco_testing.zoo import CASES, Case, normal
from lyco_testing.zoo_on_base import ON_BASE, OnBaseCase
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from lyco_core.adapters import DoRA, LoHa, LoKr, LoRA
from lyco_core.approximate.extract import extract_file
from lyco_core.approximate.options import ExtractOptions, Limits
from lyco_core.quantized import reading
from lyco_core.train.loop import Step
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


@pytest.mark.parametrize(
    "settings",
    [
        {"network_module": "loha", **EVERYTHING, "ema_decay": 0},  # whose swap the pretended device does not see
        {"network_module": "lora", "scale_weight_norms": 0.5, "loss_type": "huber", "min_snr_gamma": 5.0},
        {"network_module": "lora", "timestep_sampling": "sigma", "weighting_scheme": "cosmap", "max_grad_norm": 0.1},
    ],
    ids=["loha", "lora", "weighted"],
)
def test_steps_and_validations(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    def trained() -> list[Step]:
        made = training(validation=ITEMS[:1], validate_every_n_steps=2, max_train_steps=3, **settings)
        made.model.model.to(made.model.device)
        return steps(made)

    with PretendedDevice():
        expected = trained()
        monkeypatch.setattr(ToyModel, "device", torch.device(ELSEWHERE, 0))
        assert trained() == expected


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
        self.largest: list[int] = []
        """The sizes of what was made, not changed in place."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if func.namespace == "aten" and not func.is_view and name not in ("empty", "detach", "_unsafe_view"):
            self.launched.append(name)
        result = func(*args, **(kwargs or {}))
        if not func.is_view and not func._schema.is_mutable and isinstance(result, torch.Tensor):
            self.largest.append(result.numel())
        return result


def on_a_gpu_that_is_not_there() -> FakeTensorMode:
    mode = FakeTensorMode()
    with mode:
        try:
            torch.empty(2, 2, device="cuda:0")[:1]  # torch 2.4 asks the driver for a part of one
        except (AssertionError, RuntimeError) as error:  # a build without CUDA knows none
            pytest.skip(f"this torch makes no fake tensor of a GPU: {error}".splitlines()[0])
    return mode


LAUNCHES = {
    "lora": (1, 5), "loha": (3, 9), "lokr low rank": (5, 10), "lokr full": (3, 7),
    "dora": (11, 14), "dora by inputs": (11, 14),
}  # fmt: skip
"""How many kernels a patch takes at most, in float32 and in half precision; ComfyUI's own take 3 to 5, and 6 to 10."""

MADE = {"lora": 1, "loha": 3, "lokr low rank": 1, "lokr full": 1, "dora": 1, "dora by inputs": 1}
"""How many numbers are made beside the weight's at most, in its sizes; ComfyUI's own make 2 to 4."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", LAUNCHES)
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_a_gpu_is_not_given_work_in_crumbs(kind: str, dtype: torch.dtype):
    def made(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, device="cuda:0", dtype=dtype)

    size = 5120
    with on_a_gpu_that_is_not_there():
        weight = made(size, size)
        adapter = {
            "lora": lambda: LoRA(up=made(size, 16), down=made(16, size)),
            "loha": lambda: LoHa(made(size, 16), made(16, size), made(size, 16), made(16, size)),
            "lokr low rank": lambda: LoKr(w1=made(64, 64), w2_a=made(80, 16), w2_b=made(16, 80)),
            "lokr full": lambda: LoKr(w1=made(16, 16), w2=made(320, 320)),
            "dora": lambda: DoRA.of(LoRA(up=made(size, 16), down=made(16, size)), made(size, 1)),
            "dora by inputs": lambda: DoRA.of(LoRA(up=made(size, 16), down=made(16, size)), made(1, size)),
        }[kind]()
        with Counting() as counting:
            adapter.add_to_(weight, 0.5)
    assert len(counting.launched) <= LAUNCHES[kind][dtype != torch.float32], counting.launched
    assert sum(counting.largest) <= MADE[kind] * 1.1 * size * size


BESIDE = {"lora": 2, "loha": 4, "loha of rank 96": 4, "lokr low rank": 3, "lokr full": 2}
"""How many kernels an adapter takes beside a Linear: ComfyUI's own bypass takes 4, 6, 6, 6 and 5."""


@pytest.mark.parametrize("kind", BESIDE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_beside_a_weight_nothing_is_made_twice(kind: str, dtype: torch.dtype):
    size, tokens = 5120, 4096

    def made(*shape: int) -> torch.Tensor:
        return torch.empty(*shape, device="cuda:0", dtype=dtype)

    with on_a_gpu_that_is_not_there():
        adapter = {
            "lora": lambda: LoRA(up=made(size, 16), down=made(16, size), alpha=8.0),
            "loha": lambda: LoHa(made(size, 32), made(32, size), made(size, 32), made(32, size), alpha=8.0),
            "loha of rank 96": lambda: LoHa(made(size, 96), made(96, size), made(size, 96), made(96, size), alpha=8.0),
            "lokr low rank": lambda: LoKr(w1=made(64, 64), w2_a=made(80, 16), w2_b=made(16, 80), alpha=8.0),
            "lokr full": lambda: LoKr(w1=made(8, 8), w2=made(640, 640), alpha=8.0),
        }[kind]()
        x, output = made(2, tokens // 2, size), made(2, tokens // 2, size)
        with Counting() as counting:
            adapter.apply_to_(x, output, 0.5)
    assert len(counting.launched) <= BESIDE[kind], counting.launched


@pytest.mark.parametrize(("free", "most"), [(None, 2**23), (2**28, 2**23), (2**32, 2**25), (2**36, 2**26)])
def test_a_merge_on_a_gpu_computes_in_bands_of_what_is_free(
    free: int | None, most: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reading, "free_bytes", lambda _: free)
    found = list(reading.bands(5120, 5120, 16, "cuda"))
    assert [start for start, _ in found[1:]] == [stop for _, stop in found[:-1]]
    assert found[0][0] == 0
    assert found[-1][1] == 5120
    assert all(start % 16 == 0 for start, _ in found)
    assert most / 2 < 4 * 5120 * (found[0][1] - found[0][0]) <= most


def test_bands_on_the_processor_are_as_they_were():
    assert list(reading.bands(4096, 1024)) == [(start, start + 2048) for start in (0, 2048)]
