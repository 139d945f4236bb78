"""Merged files of every architecture against dense float64 sums, stock ComfyUI, and our own loader."""

import pytest
import torch
from lyco_testing.comfy_models import MODELS, patched_weight, tiny_model
from lyco_testing.hosted import expected_weights, tiny_targets
from lyco_testing.tables import musubi_file, random
from safetensors.torch import load_file, save_file

from lyco_core.conversion import ConvertOptions, convert_file
from lyco_core.merging import MergeOptions, Source, merge_checkpoint

every_architecture = pytest.mark.parametrize("architecture", MODELS)


@every_architecture
@pytest.mark.parametrize("algorithm", ["lokr", "loha", "lora"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged_files_are_the_sums(architecture, algorithm, dtype, tmp_path, pack):
    torch.manual_seed(1)
    tensors = musubi_file(tiny_targets(architecture), algorithm, random)
    save_file(tensors, tmp_path / "a.safetensors")
    model = tiny_model(architecture, dtype)
    base = {k: t.contiguous() for k, t in model.model.state_dict().items() if k.startswith("diffusion_model.")}
    save_file({f"model.{k}": t for k, t in base.items()}, tmp_path / "base.safetensors")
    options = MergeOptions(architecture=architecture)
    sources = [Source(tmp_path / "a.safetensors", 0.7)]
    merge_checkpoint(tmp_path / "base.safetensors", sources, tmp_path / "out.safetensors", options)
    merged = {k.removeprefix("model."): t for k, t in load_file(tmp_path / "out.safetensors").items()}
    stock = by_stock(tmp_path, architecture, model) if dtype == torch.float32 else {}
    expected = expected_weights(architecture, model, tensors, 0.7)
    assert merged.keys() == base.keys()
    errors = []
    for key, tensor in merged.items():
        assert tensor.dtype == base[key].dtype
        if key not in expected:
            assert torch.equal(tensor, base[key])
            continue
        change = expected[key] - base[key].double()
        if dtype == torch.float32:
            assert float((tensor.double() - expected[key]).norm() / change.norm()) < 2e-6
            assert float((tensor.double() - stock[key].double()).norm() / change.norm()) < 5e-6
        else:
            exponents = torch.frexp(expected[key].abs().clamp(min=1e-30)).exponent
            unit = torch.ldexp(torch.ones_like(expected[key]), exponents - 8)
            lost = 1e-6 * float(expected[key].abs().max())  # by float32, where sums cancel
            off = tensor.double() - expected[key]
            assert bool((off.abs() <= 0.5 * unit + lost).all())
            errors.append((off / unit).flatten())
    if errors:
        found = torch.cat(errors).clamp(-1, 1)
        assert abs(float(found.mean())) < 5 * float(found.std()) / found.numel() ** 0.5


def by_stock(tmp_path, architecture: str, model) -> dict[str, torch.Tensor]:
    """The weights that stock ComfyUI's own loader makes, of the adapter under names that it knows."""
    import comfy.lora

    convert_file(
        tmp_path / "a.safetensors", tmp_path / "b.safetensors", ConvertOptions("comfyui"), architecture=architecture
    )
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    patched = model.clone()
    patched.add_patches(comfy.lora.load_lora(load_file(tmp_path / "b.safetensors"), names), 0.7)
    return {key: patched_weight(patched, key) for key in patched.patches}
