"""A device that has no float64, no float8 and no pinned memory: the processor does those, and all else is there."""

import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from lyco_testing.pretended import ELSEWHERE, LACKING_DTYPES, PretendedDevice
from lyco_testing.tables import GOLDEN
from safetensors.torch import load, load_file, save_file

import lyco_core.workers as workers
from lyco_core.merging import MergeOptions, Source, merge_checkpoint

ADAPTER = GOLDEN / "wan_t2v" / "lora.safetensors"
DELTAS = load_file(ADAPTER.with_suffix(".expected.safetensors"))
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch):
    """The device, in this thread and in those that merge."""
    there = [PretendedDevice()]

    def enter() -> None:
        there.append(PretendedDevice())
        there[-1].__enter__()

    monkeypatch.setattr(workers, "ThreadPoolExecutor", functools.partial(ThreadPoolExecutor, initializer=enter))
    with there[0]:
        yield there
    assert len(there) > 1


def base(dtype: torch.dtype, scale: tuple[int, ...] | None = None) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    tensors: dict[str, torch.Tensor] = {}
    for key, delta in DELTAS.items():
        tensors[key] = torch.randn(delta.shape).to(dtype)
        if scale is not None:
            tensors[key.removesuffix("weight") + "weight_scale"] = torch.rand(scale or (), dtype=torch.float32) + 0.1
    return tensors


def merged(tmp_path: Path, tensors: dict[str, torch.Tensor], adapter: Path, **options: object):
    save_file(tensors, tmp_path / "base.safetensors")
    made = []
    for device in ("cpu", ELSEWHERE):
        out = tmp_path / f"{device}.safetensors"
        asked = MergeOptions(device=device, **options)  # pyright: ignore[reportArgumentType]
        merge_checkpoint(tmp_path / "base.safetensors", [Source(adapter, 0.7)], out, asked)
        made.append(out.read_bytes())
    return made


def same(here: bytes, there: bytes) -> bool:
    """The same file, but for what a product that is summed apart rounds otherwise: a unit of its dtype."""
    ours, theirs = load(here), load(there)
    return ours.keys() == theirs.keys() and all(
        tensor.dtype == theirs[key].dtype
        and torch.allclose(tensor.double(), theirs[key].double(), rtol=2 * torch.finfo(tensor.dtype).eps, atol=1e-6)
        for key, tensor in ours.items()
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("target", [None, torch.float32, torch.bfloat16], ids=str)
def test_every_dtype(dtype: torch.dtype, target: torch.dtype | None, tmp_path: Path, device: list[PretendedDevice]):
    here, there = merged(tmp_path, base(dtype), ADAPTER, dtype=target)
    assert same(here, there)
    assert bool(sum(mode.ops for mode in device[1:])) == (dtype not in LACKING_DTYPES)


@pytest.mark.parametrize("scale", [(), (64, 1)])
def test_scaled_float8(scale: tuple[int, ...], tmp_path: Path, device: list[PretendedDevice]):
    tensors = {k: t for k, t in base(torch.float8_e4m3fn, scale).items() if "self_attn" in k}
    here, there = merged(tmp_path, tensors, only_self_attention(tmp_path))
    assert same(here, there)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float8_e4m3fn])
def test_an_adapter_that_is_stored_so(dtype: torch.dtype, tmp_path: Path, device: list[PretendedDevice]):
    factors = {k: t.to(dtype) if t.dim() else t for k, t in load_file(ADAPTER).items()}
    save_file(factors, tmp_path / "a.safetensors")
    here, there = merged(tmp_path, base(torch.bfloat16), tmp_path / "a.safetensors")
    assert same(here, there)


def test_stochastic_float8_is_rounded_on_the_processor(tmp_path: Path, device: list[PretendedDevice]):
    here, there = merged(tmp_path, base(torch.float8_e4m3fn), ADAPTER, seed=7)
    assert same(here, there)


def only_self_attention(tmp_path: Path) -> Path:
    save_file({k: t for k, t in load_file(ADAPTER).items() if "self_attn" in k}, tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"
