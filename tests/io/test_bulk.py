"""A file read in large pieces by several threads: every tensor as it is, and what is no number found wherever it is."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lyco_core.adapter_reader import read_adapter_set
from lyco_core.errors import AdapterError
from lyco_core.io import SafetensorsFile, bulk

DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
)  # fmt: skip
EXTREMES = (0.0, -0.0, 1.0, -1.0)


@pytest.fixture(params=[64, 2**23], ids=["many pieces", "one piece"])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PIECE", request.param)
    monkeypatch.setattr(bulk, "LOOK", min(request.param, 2**20))
    monkeypatch.setattr(bulk, "THREADS", 3)


def numbers(dtype: torch.dtype, seed: int = 0) -> Tensor:
    """What a dtype can hold, to its ends on both sides."""
    torch.manual_seed(seed)
    most = torch.finfo(dtype).max
    return torch.cat([torch.randn(29).double(), torch.tensor([*EXTREMES, most, -most], dtype=torch.float64)]).to(dtype)


@pytest.mark.usefixtures("piece")
def test_every_tensor_is_as_it_is(tmp_path: Path):
    tensors = {f"{dtype}".removeprefix("torch."): numbers(dtype, n).view(5, 7) for n, dtype in enumerate(DTYPES)}
    tensors |= {
        "int": torch.arange(9),
        "bool": torch.tensor([True, False]),
        "none": torch.empty(0, 4),
        "one": torch.tensor(3.5),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    with SafetensorsFile(tmp_path / "a.safetensors") as file:
        found, finite = file.tensors()
        assert file.finite()
    assert finite
    assert list(found) == list(file.header.tensors)
    for key, tensor in tensors.items():
        assert (found[key].dtype, found[key].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[key].view(-1).view(torch.uint8), tensor.contiguous().view(-1).view(torch.uint8))


def test_a_tensor_that_does_not_lie_at_a_multiple_of_its_size(tmp_path: Path):
    """The format allows it: an odd number of bytes, then float32."""
    values = torch.tensor([1.5, -2.25, 3.0])
    table = {
        "a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "b": {"dtype": "F32", "shape": [3], "data_offsets": [3, 15]},
    }
    text = json.dumps(table).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\1\2\3" + values.numpy().tobytes())
    with SafetensorsFile(path) as file:
        found, finite = file.tensors()
    assert finite
    assert found["a"].tolist() == [1, 2, 3]
    assert torch.equal(found["b"], values)
    found["b"] += 1  # memory of its own, and aligned
    assert torch.equal(found["b"], values + 1)


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_no_number_is_seen(dtype: torch.dtype, value: float, tmp_path: Path):
    bad = numbers(dtype).double()
    # float8_e4m3fn has no infinity, only NaN.
    bad[17] = float("nan") if dtype is torch.float8_e4m3fn else value
    bad = bad.to(dtype)  # older torch sets no number of float8
    for place in ("first", "last"):
        tensors = {"a": numbers(dtype, 1), "b": torch.randn(40), "c": numbers(dtype, 2)}
        save_file({**tensors, "0" if place == "first" else "z": bad}, tmp_path / "a.safetensors")
        with SafetensorsFile(tmp_path / "a.safetensors") as file:
            assert not file.tensors()[1]
            assert not file.finite()


def test_both_signs_of_nan(tmp_path: Path):
    for bits in (0x7FC0, 0xFFC0 - 2**16, 0x7F81, 0xFF81 - 2**16):
        tensor = torch.cat([torch.randn(9).bfloat16().view(torch.int16), torch.tensor([bits], dtype=torch.int16)])
        save_file({"a": tensor.view(torch.bfloat16)}, tmp_path / "a.safetensors")
        with SafetensorsFile(tmp_path / "a.safetensors") as file:
            assert not file.tensors()[1]


def test_what_belongs_to_no_adapter_may_be_anything(tmp_path: Path):
    """Only an adapter's own numbers are asked to be numbers, each by its key."""
    good = {"blocks.0.q.lora_up.weight": torch.ones(4, 2), "blocks.0.q.lora_down.weight": torch.ones(2, 4)}
    stranger = {"bundle_emb.x": torch.full((3,), float("nan"))}
    save_file(good | stranger, tmp_path / "a.safetensors")
    assert len(read_adapter_set(tmp_path / "a.safetensors").adapters) == 1
    save_file(good | {"blocks.0.q.lora_up.weight": torch.full((4, 2), float("inf"))}, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=r"blocks\.0\.q\.lora_up\.weight: 8 of its 8 numbers are NaN or infinite"):
        read_adapter_set(tmp_path / "a.safetensors")
