"""*Load LoHa/LoKr* while sampling: the same model as with patched weights, and the weights as they were."""

import pytest
import torch
from lyco_testing.comfy import Server
from lyco_testing.comfy_models import tiny_model
from lyco_testing.hosted import tiny_targets
from lyco_testing.tables import lokr, musubi_file, random
from lyco_testing.tiny_wan import TEXT, latents, scaled_wan, wan_adapter, wan_checkpoint, workflow
from safetensors.torch import save_file

SAMPLING = "apply while sampling"
SIZES = {"wan": (16, 3, 8, 8), "flux1": (16, 8, 8), "hunyuan_video": (16, 3, 8, 8)}


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def predicted(patcher, size: tuple[int, ...], width: int = 48) -> torch.Tensor:
    """What a MODEL predicts, as a sampler asks it."""
    import comfy.model_management

    with torch.inference_mode():
        comfy.model_management.load_models_gpu([patcher])
        said = {"y": normal(3, 1, 24), "guidance": torch.ones(1)}
        time = torch.tensor([0.7])
        return patcher.model.apply_model(normal(1, 1, *size), time, c_crossattn=normal(2, 1, 7, width), **said).clone()


@pytest.mark.every_host
@pytest.mark.parametrize("architecture", SIZES)
@pytest.mark.parametrize("algorithm", ["lokr", "loha", "lora"])
def test_it_is_the_patched_model(architecture, algorithm, loras, host):
    for number in (1, 2):
        torch.manual_seed(number)
        file = musubi_file(tiny_targets(architecture), algorithm, random)
        save_file({key: tensor / 3 for key, tensor in file.items()}, loras / f"{number}.safetensors")
    model = tiny_model(architecture)
    before = {key: tensor.clone() for key, tensor in model.model.state_dict().items()}
    made = {}
    for mode in ("patch the weights", SAMPLING):
        once = host.load_onto(model, None, "1.safetensors", 0.4, partial=False, mode=mode)
        twice = host.load_onto(once.model, None, "2.safetensors", -0.3, partial=False, mode=mode)
        made[mode] = once, twice
    assert (
        "20 modules add it while sampling" in made[SAMPLING][0].report or "while sampling" in made[SAMPLING][0].report
    )
    plain = predicted(model, SIZES[architecture])
    patched = [predicted(one.model, SIZES[architecture]) for one in made["patch the weights"]]
    assert torch.equal(predicted(model, SIZES[architecture]), plain)
    for _ in range(2):  # one after the other and back, as a graph with several samplers does
        for one, expected in zip(made[SAMPLING], patched, strict=True):
            found = predicted(one.model, SIZES[architecture])
            assert float((found - expected).norm()) < 1e-4 * float((expected - plain).norm())
            assert not one.model.patches
        assert torch.equal(predicted(model, SIZES[architecture]), plain)
    for key, tensor in model.model.state_dict().items():
        assert torch.equal(tensor, before[key])
    assert not any(module._forward_hooks for module in model.model.modules())


def test_swapped_halves_are_swapped_while_sampling_too(loras, host):
    """ComfyUI's key map has FLUX.1's last modulation with a function, which orders its rows."""
    torch.manual_seed(3)
    file = lokr("lora_transformer_norm_out_linear", 128, 64, random)
    save_file(file | lokr("lora_transformer_proj_out", 64, 64, random), loras / "a.safetensors")
    model = tiny_model("flux1")
    patched, beside = (
        host.load_onto(model, None, "a.safetensors", 0.6, partial=False, mode=mode).model
        for mode in ("patch the weights", SAMPLING)
    )
    plain, expected, found = (predicted(one, SIZES["flux1"]) for one in (model, patched, beside))
    assert float((found - expected).norm()) < 1e-4 * float((expected - plain).norm())


@torch.inference_mode()
def test_auto_leaves_quantized_weights_alone(tmp_path, loras, host):
    import comfy.sd
    import comfy.supported_models

    if not hasattr(comfy.supported_models, "ZImage"):
        pytest.skip("this ComfyUI has no quantized weights of this kind")
    numbers = scaled_wan(tmp_path / "wan.safetensors", "blocks.0.self_attn.")
    save_file(numbers, tmp_path / "plain.safetensors")
    save_file(wan_adapter(), loras / "a.safetensors")
    model = comfy.sd.load_diffusion_model(str(tmp_path / "wan.safetensors"))
    plain = comfy.sd.load_diffusion_model(str(tmp_path / "plain.safetensors"))
    for base, quantized in ((model, 4), (plain, 0)):
        loaded = host.load_onto(base, None, "a.safetensors", 1.0, partial=False, mode="auto")
        assert ("4 modules add it while sampling" in loaded.report) is bool(quantized)
        assert len(loaded.model.patches) == 20 - quantized
    size = (16, 1, 8, 8)
    expected = predicted(host.load_onto(plain, None, "a.safetensors", 1.0, partial=False).model, size, TEXT)
    change = (expected - predicted(plain, size, TEXT)).norm()
    errors = {}
    for mode in ("auto", "patch the weights"):
        loaded = host.load_onto(model, None, "a.safetensors", 1.0, partial=False, mode=mode)
        errors[mode] = float((predicted(loaded.model, size, TEXT) - expected).norm() / change)
    assert errors["auto"] < errors["patch the weights"]


@pytest.mark.every_host
def test_over_the_api(server: Server):
    save_file(wan_checkpoint(), server.base / "models" / "diffusion_models" / "runtime.safetensors")
    save_file(wan_adapter(), server.base / "models" / "loras" / "runtime_lokr.safetensors")
    plain = latents(server, server.run(workflow("runtime.safetensors")))
    patched = latents(server, server.run(workflow("runtime.safetensors", "runtime_lokr.safetensors")))
    outputs = server.run(workflow("runtime.safetensors", "runtime_lokr.safetensors", mode=SAMPLING))
    assert "20 modules add it while sampling" in outputs["show"]["text"][0]
    change = (patched - plain).norm()
    assert (latents(server, outputs) - patched).norm() < 1e-4 * change
