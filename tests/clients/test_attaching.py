"""Adapters of any layout attached to diffusers' own models: what they compute is what the merged weights compute."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from lyco_testing.diffusers_models import FULL_SIZE, musubi_targets, tiny
from lyco_testing.tables import musubi_file, random
from safetensors.torch import save_file
from torch import Tensor, nn

from lyco_core.adapter_reader import load_adapter_set
from lyco_core.attachment import attach
from lyco_core.errors import PlacementError

Forward = Callable[[nn.Module], Tensor]


def wan(model: nn.Module) -> Tensor:
    torch.manual_seed(1)
    return model(torch.randn(1, 16, 2, 4, 4).double(), torch.tensor([500]), torch.randn(1, 5, 48).double()).sample


def flux(model: nn.Module) -> Tensor:
    torch.manual_seed(1)
    inputs = {"hidden_states": torch.randn(1, 6, 16), "encoder_hidden_states": torch.randn(1, 5, 48)}
    inputs |= {"pooled_projections": torch.randn(1, 24), "timestep": torch.tensor([0.5])}
    inputs |= {"img_ids": torch.zeros(6, 3), "txt_ids": torch.zeros(5, 3)}
    return model(**{name: value.double() for name, value in inputs.items()}).sample


FORWARDS: Mapping[str, Forward] = {"wan": wan, "flux1": flux}


def with_magnitudes(tensors: dict[str, Tensor], modules: Mapping[str, tuple[int, int]]) -> dict[str, Tensor]:
    names = {f"lora_unet_{path.replace('.', '_')}": rows for path, (rows, _) in modules.items()}
    return tensors | {f"{name}.dora_scale": torch.rand(rows, 1) + 0.5 for name, rows in names.items()}


def rotations(modules: Mapping[str, tuple[int, int]]) -> dict[str, Tensor]:
    return {
        f"lora_unet_{path.replace('.', '_')}.oft_blocks": 0.1 * torch.randn(rows // 4, 4, 4)
        for path, (rows, _) in modules.items()
    }


def file_of(algorithm: str, modules: Mapping[str, tuple[int, int]]) -> dict[str, Tensor]:
    torch.manual_seed(2)
    if algorithm == "oft":
        return rotations(modules)
    plain = musubi_file(modules, "lokr" if algorithm == "dora" else algorithm, lambda *shape: random(*shape) / 4)
    return with_magnitudes(plain, modules) if algorithm == "dora" else plain


def merged(
    model: nn.Module, file: Path, strength: float, rows: Callable[[str], list[tuple[str, int, int]]]
) -> nn.Module:
    """A copy with the adapters in its weights. rows: of a module in the file, the model's modules on its rows."""
    changed = copy.deepcopy(model)
    for path, adapter in load_adapter_set(file).adapters.items():
        places = rows(path)
        whole = torch.cat([changed.get_submodule(name).weight.data[start:stop] for name, start, stop in places])
        adapter.add_to_(whole, strength)
        for (name, start, stop), band in zip(places, whole.split([b - a for _, a, b in places]), strict=True):
            changed.get_submodule(name).weight.data[start:stop] = band
    return changed


WAN_NAMES = {"self_attn": "attn1", "cross_attn": "attn2", "q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}
FLUX_NAMES = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
}
"""Written by hand: what diffusers calls the rows of a module of FLUX.1's, top to bottom."""


def wan_rows(path: str) -> list[tuple[str, int, int]]:
    block, n, part, *rest = path.split(".")
    name = f"{block}.{n}." + (
        f"{WAN_NAMES[part]}.{WAN_NAMES[rest[0]]}"
        if part != "ffn"
        else f"ffn.net.{ {'0': '0.proj', '2': '2'}[rest[0]] }"
    )
    height = 160 if path.endswith("ffn.0") else 64
    return [(name, 0, height)]


def flux_rows(path: str) -> list[tuple[str, int, int]]:
    block, n, part = path.split(".", 2)
    above = {"double_blocks": "transformer_blocks", "single_blocks": "single_transformer_blocks"}[block]
    names = FLUX_NAMES[part]
    return [(f"{above}.{n}.{name}", 0, 256 if "mlp" in name or name.endswith(".0.proj") else 64) for name in names]


ROWS = {"wan": wan_rows, "flux1": flux_rows}


@pytest.fixture(params=FORWARDS)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("algorithm", ["lokr", "loha", "lora", "dora", "oft"])
def test_a_file_of_musubis_names(family: str, algorithm: str, tmp_path: Path):
    """Each module on its own rows: FLUX.1's fused q, k and v are three modules in diffusers."""
    model, forward = tiny(family).double().eval(), FORWARDS[family]
    modules = musubi_targets(family, model)
    save_file(file_of(algorithm, modules), tmp_path / "mine.safetensors")
    before = forward(model)
    expected = forward(merged(model, tmp_path / "mine.safetensors", 0.7, ROWS[family]))
    with attach(model, tmp_path / "mine.safetensors", 0.7, architecture=family) as attached:
        found = forward(model)
        assert attached.idle == ()
    assert (found - expected).norm() < 1e-6 * (expected - before).norm()
    assert torch.equal(forward(model), before)


def test_two_at_once(family: str, tmp_path: Path):
    """A DoRA on what a LoHa left."""
    model, forward = tiny(family).double().eval(), FORWARDS[family]
    modules = musubi_targets(family, model)
    for algorithm in ("loha", "dora"):
        save_file(file_of(algorithm, modules), tmp_path / f"{algorithm}.safetensors")
    before = forward(model)
    changed = merged(model, tmp_path / "loha.safetensors", -0.5, ROWS[family])
    changed = merged(changed, tmp_path / "dora.safetensors", 0.9, ROWS[family])
    expected = forward(changed)
    with attach(model, tmp_path / "loha.safetensors", -0.5), attach(model, tmp_path / "dora.safetensors", 0.9):
        found = forward(model)
    assert (found - expected).norm() < 1e-6 * (expected - before).norm()


def test_a_file_of_diffusers_own_names(family: str, tmp_path: Path):
    """Every Linear of the model, and Wan's convolution, as PEFT would name them."""
    model, forward = tiny(family).double().eval(), FORWARDS[family]
    kinds = nn.Linear | nn.Conv3d
    layers = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    tensors: dict[str, Tensor] = {}
    changed = copy.deepcopy(model)
    for name, module in layers.items():
        out, width = module.weight.shape[0], module.weight[0].numel()
        up, down = random(out, 2) / 4, random(2, width) / 4
        tensors |= {
            f"transformer.{name}.lora_B.weight": up.reshape(out, 2, *[1] * (module.weight.dim() - 2)),
            f"transformer.{name}.lora_A.weight": down.reshape(2, *module.weight.shape[1:]),
        }
        changed.get_submodule(name).weight.data += 0.3 * (up.double() @ down.double()).view_as(module.weight)
    save_file(tensors, tmp_path / "mine.safetensors")
    before, expected = forward(model), forward(changed)
    with attach(model, tmp_path / "mine.safetensors", 0.3) as attached:
        assert len(attached.modules) == len(layers)
        found = forward(model)
    assert (found - expected).norm() < 1e-6 * (expected - before).norm()


def test_split_names_on_a_model_that_fuses(tmp_path: Path):
    """FLUX.1 as ComfyUI and Black Forest Labs name it has one module where the file has three."""
    width = 64
    model = nn.ModuleDict({"double_blocks": nn.ModuleList([nn.ModuleDict({
        "img_attn": nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)}),
        "txt_attn": nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)}),
        "img_mlp": nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)),
        "txt_mlp": nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)),
    })])}).double()  # fmt: skip
    torch.manual_seed(3)
    tensors: dict[str, Tensor] = {}
    for name in ("to_q", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj"):
        prefix = f"transformer.transformer_blocks.0.attn.{name}"
        tensors |= {f"{prefix}.lora_B.weight": random(width, 2), f"{prefix}.lora_A.weight": random(2, width)}
    save_file(tensors, tmp_path / "mine.safetensors")
    qkv = model["double_blocks"][0]["img_attn"]["qkv"]
    x = random(3, width).double()
    expected = qkv(x)
    for rows, name in ((slice(0, 64), "to_q"), (slice(128, 192), "to_v")):
        up, down = (tensors[f"transformer.transformer_blocks.0.attn.{name}.lora_{m}.weight"].double() for m in "BA")
        expected[:, rows] += x @ down.T @ up.T
    with attach(model, tmp_path / "mine.safetensors", architecture="flux1"):
        assert (qkv(x) - expected).norm() < 1e-6 * expected.norm()


def test_a_pipelines_other_model_refuses_it_by_name(tmp_path: Path):
    wan_modules = musubi_targets("wan", tiny("wan"))
    save_file(file_of("loha", wan_modules), tmp_path / "mine.safetensors")
    with pytest.raises(
        PlacementError, match=r"mine.safetensors: is an adapter for Wan 2.1/2.2, the module is FLUX.1; "
    ):
        attach(tiny("flux1"), tmp_path / "mine.safetensors")
    modules = {"double_blocks.0.img_attn.qkv": (192, 64), "double_blocks.0.img_attn.proj": (64, 64)}
    large = {
        "lora_unet_double_blocks_0_img_attn_qkv.oft_blocks": 0.1 * torch.randn(2, 96, 96)
    }  # of half of k's rows too
    save_file(rotations(modules | {"double_blocks.0.img_mlp.2": (64, 256)}) | large, tmp_path / "oft.safetensors")
    with pytest.raises(PlacementError, match=r"img_attn.qkv: OFT cannot be cut for .*attn.to_q.weight"):
        attach(tiny("flux1"), tmp_path / "oft.safetensors", architecture="flux1")


def test_every_family_is_whole(tmp_path: Path):
    """What Musubi trains of each has a place in diffusers' model of it."""
    for family in FULL_SIZE:
        model = tiny(family)
        save_file(file_of("lokr", modules := musubi_targets(family, model)), tmp_path / f"{family}.safetensors")
        with attach(model, tmp_path / f"{family}.safetensors", architecture=family) as attached:
            assert len(attached.placement.adapter_set.adapters) == len(modules)
