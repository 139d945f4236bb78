"""diffusers from 0.42 on loads LoKr itself, as `lyco convert --to diffusers` writes it: all of a file, and exactly."""

import importlib
import warnings
from pathlib import Path

import pytest
import torch
from lyco_testing.diffusers_models import MODELS, musubi_targets, tiny
from lyco_testing.tables import random
from safetensors.torch import load_file, save_file

from lyco_core.adapters.factors import factorization
from lyco_core.conversion import ConvertOptions, convert_file
from lyco_core.delta_weights import write_delta

pytest.importorskip("peft", reason="peft is not installed: pip install peft")
pytest.importorskip("diffusers.utils.peft_utils", reason="diffusers is not installed: pip install diffusers")
if not hasattr(importlib.import_module("diffusers.utils.peft_utils"), "_create_lokr_config"):
    pytest.skip("this diffusers reads no LoKr; 0.42 does", allow_module_level=True)

CUT = {"flux1", "hunyuan_video"}
"""Where one of Musubi's modules is several of diffusers', and blocks of a LoKr's rows are not."""
PIPELINES = {"flux2": "Flux2LoraLoaderMixin", "z_image": "ZImageLoraLoaderMixin"}
"""Those whose `load_lora_weights` takes LoKr; of any model `load_lora_adapter` does."""


def lokr_file(modules: dict[str, tuple[int, int]], form: str) -> dict[str, torch.Tensor]:
    """LoKr of factor 4 with a rank of 2 or 3, in bfloat16, under Musubi's names."""
    tensors: dict[str, torch.Tensor] = {}
    for number, (path, shape) in enumerate(modules.items()):
        name, rank = f"lora_unet_{path.replace('.', '_')}", 2 + number % 2
        (out_l, out_k), (in_m, in_n) = (factorization(size, 4) for size in shape)
        w1 = {"w1": (out_l, in_m)} if form != "low both" else {"w1_a": (out_l, rank), "w1_b": (rank, in_m)}
        w2 = {"w2": (out_k, in_n)} if form == "full" else {"w2_a": (out_k, rank), "w2_b": (rank, in_n)}
        tensors |= {f"{name}.lokr_{field}": random(*size).to(torch.bfloat16) for field, size in (w1 | w2).items()}
        tensors[f"{name}.alpha"] = torch.tensor(1.0)
    return tensors


def load(architecture: str, model: torch.nn.Module, path: Path) -> dict[str, torch.Tensor]:
    """Module path -> ΔW, by the pipeline's own loader where that takes LoKr."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        if architecture in PIPELINES:
            mixin = getattr(importlib.import_module("diffusers.loaders"), PIPELINES[architecture])
            state, metadata = mixin.lora_state_dict(str(path), return_lora_metadata=True)
            assert all("lora" in key or "lokr" in key for key in state)
            mixin.load_lora_into_transformer(state, transformer=model, metadata=metadata)
        else:
            model.load_lora_adapter(str(path.parent), weight_name=path.name)
    found = {name: m for name, m in model.named_modules() if hasattr(m, "get_delta_weight")}
    return {name: m.get_delta_weight("default_0").detach() for name, m in found.items()}


@pytest.mark.parametrize("form", ["full", "low w2", "low both"])
@pytest.mark.parametrize("architecture", MODELS)
def test_the_weights_change_as_they_should(architecture: str, form: str, tmp_path: Path):
    model = tiny(architecture)
    save_file(lokr_file(musubi_targets(architecture, model), form), tmp_path / "musubi.safetensors")
    write_delta(tmp_path / "musubi.safetensors", tmp_path / "delta", layout="diffusers", architecture=architecture)
    out = tmp_path / "out.safetensors"
    made = convert_file(tmp_path / "musubi.safetensors", out, ConvertOptions("diffusers"), architecture=architecture)
    expected = {key.removesuffix(".weight"): delta for key, delta in load_file(tmp_path / "delta").items()}
    suffixes = {key.rpartition(".")[2] for key in load_file(out)}
    if architecture in CUT:
        assert suffixes == {"weight"}
        assert not made.note
    else:
        assert all(suffix.startswith("lokr_w") for suffix in suffixes)
        assert "reads since 0.42" in made.summary()
    found = load(architecture, model, out)
    for name, parts in (
        ("to_qkv", ("to_q", "to_k", "to_v")),
        ("to_added_qkv", ("add_q_proj", "add_k_proj", "add_v_proj")),
    ):
        for path in [path for path in found if path.endswith(f".{name}")]:
            several = [path.removesuffix(name) + part for part in parts]
            found |= dict(zip(several, found.pop(path).chunk(3), strict=True))
    assert found.keys() == expected.keys()
    for path, delta in expected.items():
        assert float((found[path] - delta).norm() / delta.norm()) < 5e-6, path
