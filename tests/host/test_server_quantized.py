"""Every form of a base in a running ComfyUI, where nodes run in inference mode and a sampler calls the model."""

import dataclasses

import pytest
import torch
from lyco_testing.comfy import Server
from lyco_testing.quantized_models import FORMATS, QUANTIZED, stored, why_not
from lyco_testing.tables import dotted_file, random
from lyco_testing.tiny_wan import latents, wan_checkpoint, workflow
from safetensors.torch import save_file

WIDTH, FFN = 256, 512


@dataclasses.dataclass(frozen=True)
class Base:
    """A file in a form, and latents: of it, and of the numbers that it stands for, without and with the adapter."""

    file: str
    weight_dtype: str
    sampled: torch.Tensor
    expected: torch.Tensor
    changed: torch.Tensor

    def nodes(self, *more, **inputs) -> dict:
        made = workflow(self.file, *more, **inputs)
        made["model"]["inputs"]["weight_dtype"] = self.weight_dtype
        return made

    def error(self, found: torch.Tensor) -> float:
        return float((found - self.changed).norm() / (self.changed - self.expected).norm())

    @property
    def noise(self) -> float:
        return float((self.sampled - self.expected).norm() / (self.changed - self.expected).norm())


@pytest.fixture(scope="module")
def base(server: Server, pack):
    """Form -> its Base."""
    weights = wan_checkpoint(WIDTH, FFN)
    paths = [k.removesuffix(".weight") for k, t in weights.items() if k.startswith("blocks") and t.dim() == 2]
    paths = [path for path in paths if "norm" not in path]
    models, made = server.base / "models" / "diffusion_models", {}
    torch.manual_seed(3)
    adapter = dotted_file({path: tuple(weights[f"{path}.weight"].shape) for path in paths}, "lokr", random)
    adapter = {key: tensor / 3 for key, tensor in adapter.items()}
    save_file(adapter, server.base / "models" / "loras" / "forms.safetensors")

    def of(form: str) -> Base:
        if reason := why_not(form):
            pytest.skip(reason)
        if form not in made:
            tensors, metadata, numbers = stored(weights, paths, form)
            file, plain = f"form_{form}.safetensors", f"numbers_{form}.safetensors"
            save_file(tensors, models / file, metadata)
            save_file(numbers, models / plain)
            kind = metadata.get("weight_dtype", "default")
            base = Base(file, kind, *(torch.zeros(1) for _ in range(3)))
            wanted = workflow(plain, "forms.safetensors", mode="patch the weights")
            runs = [latents(server, server.run(nodes)) for nodes in (base.nodes(), workflow(plain), wanted)]
            made[form] = Base(file, kind, *runs)
        return made[form]

    return of


@pytest.mark.every_host
@pytest.mark.parametrize("form", FORMATS)
def test_load_gives_the_change_of_the_float_model(form, base, server: Server):
    one = base(form)
    outputs = server.run(one.nodes("forms.safetensors"))
    assert one.error(latents(server, outputs)) <= 2 * one.noise + 1e-3


@pytest.mark.parametrize("form", QUANTIZED)
def test_what_is_merged_into_the_model_samples_and_is_saved(form, base, server: Server):
    one = base(form)
    nodes = one.nodes()
    settings = {"model": ["model", 0], "adapter": "forms.safetensors", "strength": 0.8}
    nodes["merge"] = {"class_type": "LycoMergeAdapter", "inputs": settings}
    nodes["sample"]["inputs"]["model"] = ["merge", 0]
    saved = {"model": ["merge", 0], "filename_prefix": f"diffusion_models/of_{form}"}
    nodes["save_model"] = {"class_type": "ModelSave", "inputs": saved}
    merged = latents(server, server.run(nodes))
    again = one.nodes()
    again["model"]["inputs"]["unet_name"] = f"of_{form}_00001_.safetensors"
    assert torch.equal(latents(server, server.run(again)), merged)
    assert one.error(merged) < (1.3 if form == "convrot_w4a4" else 0.9)  # 4 bits a number: the base itself is 0.7 off
