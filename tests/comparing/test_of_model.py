"""A file's changes as shares of a model's weights: against the weights themselves, and each of them read once."""

import math
from pathlib import Path

import pytest
import torch
from lyco_testing.gguf_files import gguf_bytes, numbers, random_q8
from lyco_testing.gguf_files import stored as in_gguf
from lyco_testing.tables import WRITERS, random
from lyco_testing.tiny_wan import scaled_wan, wan_adapter, wan_checkpoint
from safetensors.torch import save_file

import lyco_core as lyco
from lyco_core.adapter_reader import read_adapter_set
from lyco_core.checkpoint_weights import CheckpointWeights
from lyco_core.comparing import ModelNorms, drawn, drawn_shares, measured
from lyco_core.errors import PlacementError


def norms(tensors: dict[str, torch.Tensor], part: str, only: set[str]) -> float:
    return math.hypot(*(float(tensors[key].double().norm()) for key in only if part in key))


@pytest.mark.parametrize("stored", ["bfloat16", "float8", "GGUF"])
def test_shares_by_block_and_kind(stored: str, tmp_path: Path):
    model, file = tmp_path / "model.safetensors", tmp_path / "a.safetensors"
    if stored == "float8":
        weights = scaled_wan(model, "blocks.1.")
    elif stored == "GGUF":
        model = tmp_path / "model.gguf"
        kinds = {
            key: random_q8(*t.shape, len(t)) if ".ffn." in key and t.dim() == 2 else in_gguf(t, "F32")
            for key, t in wan_checkpoint().items()
        }
        model.write_bytes(gguf_bytes(kinds, {"general.architecture": "wan"}))
        weights = {key: numbers(*one) for key, one in kinds.items()}
    else:
        weights = {key: t.bfloat16() for key, t in wan_checkpoint().items()}
        save_file(weights, model)
    save_file(wan_adapter(), file)
    raw = read_adapter_set(file)
    changes = {key.removeprefix("diffusion_model."): delta for key, delta in lyco.delta(file).items()}
    found = measured(raw)
    shares = drawn_shares(found, ModelNorms(model).of(raw))

    def share(part: str) -> float:
        return pytest.approx(norms(changes, part, {*changes}) / norms(weights, part, {*changes}), rel=1e-4)

    assert shares["whole"] == share("")
    assert shares["blocks"] == [[share("blocks.0."), share("blocks.1.")]]
    named = [name.replace("blocks.*.", "") for name, *_ in drawn(found)["kinds"]]
    assert shares["kinds"] == [share(name) for name in named]
    assert shares["unplaced"] == 0


def test_rows_of_a_fused_weight(tmp_path: Path):
    """Z-Image has q, k and v as one weight in ComfyUI: each module is held against its own rows."""
    width = 3840
    names = [f"diffusion_model.layers.0.attention.to_{x}" for x in "qv"]
    tensors = {}
    torch.manual_seed(1)
    for name in names:
        tensors |= {f"{name}.lora_A.weight": random(2, width), f"{name}.lora_B.weight": random(width, 2)}
    save_file(tensors, tmp_path / "a.safetensors")
    scales = torch.tensor([1.0, 5.0, 0.25]).repeat_interleave(width)
    model = {"layers.0.attention.qkv.weight": torch.ones(3 * width, width, dtype=torch.bfloat16)}
    model["layers.0.attention.qkv.weight"] *= scales.unsqueeze(1)
    save_file(model, tmp_path / "model.safetensors")
    raw = read_adapter_set(tmp_path / "a.safetensors")
    whole = ModelNorms(tmp_path / "model.safetensors").of(raw)
    assert sorted(whole.values()) == pytest.approx([0.25 * width, width])


def test_a_weight_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_file(wan_checkpoint(), tmp_path / "model.safetensors")
    save_file(wan_adapter(), tmp_path / "a.safetensors")
    raw = read_adapter_set(tmp_path / "a.safetensors")
    model = ModelNorms(tmp_path / "model.safetensors")
    told: list[tuple[int, int]] = []

    def leave(done: int, total: int) -> None:
        if done == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        model.of(raw, leave)
    first = model.of(raw, lambda done, total: told.append((done, total)))
    assert told == [(n, 15) for n in range(15)]  # what was read before is kept
    monkeypatch.delattr(CheckpointWeights, "read")
    assert model.of(raw) == first


def test_what_has_no_place(tmp_path: Path):
    save_file(wan_checkpoint(blocks=1), tmp_path / "model.safetensors")
    save_file(wan_adapter(), tmp_path / "a.safetensors")
    raw = read_adapter_set(tmp_path / "a.safetensors")
    found = measured(raw)
    shares = drawn_shares(found, ModelNorms(tmp_path / "model.safetensors").of(raw))
    assert (shares["unplaced"], shares["blocks"][0][1]) == (10, None)
    assert shares["whole"] == pytest.approx(shares["blocks"][0][0])
    other = WRITERS["lora"]("lora_unet_double_blocks_0_img_mlp_0", 12288, 3072, random)
    save_file(other, tmp_path / "flux.safetensors")
    with pytest.raises(PlacementError, match=r"is an adapter for FLUX\.1, the model is Wan 2\.1/2\.2$"):
        ModelNorms(tmp_path / "model.safetensors").of(read_adapter_set(tmp_path / "flux.safetensors"))
