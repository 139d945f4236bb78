"""Adapters on ComfyUI's own tiny models, in process: every patched weight against the expected one."""

import re

import pytest
import torch
from lyco_testing.comfy_models import BLOCKS, MODELS, WIDTH, patched_weight, tiny_model
from lyco_testing.tables import ARCHITECTURE_OF, GOLDEN, musubi_file, random, targets
from lyco_testing.zoo import dense_loha, dense_lokr, dense_lora
from safetensors.torch import load_file, save_file

FULL_SIZE = {architecture: model for model, architecture in ARCHITECTURE_OF.items()} | {"wan": "wan21_t2v_1_3b"}
DENSE = {"lora": dense_lora, "loha": dense_loha, "lokr": dense_lokr}
FUSED = "framepack"  # q, k, v and the MLP apart in the file, one weight in the model
QKV = "diffusion_model.double_blocks.0.img_attn.qkv.weight"
PROJ = "diffusion_model.double_blocks.0.img_attn.proj.weight"
every_architecture = pytest.mark.parametrize("architecture", MODELS)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


# Where Musubi's names go in ComfyUI, written out once more by hand: (pattern, module, row of parts).
RENAMES = {
    "z_image": [
        (r"(layers\.\d+\.attention)\.to_([qkv])", r"\1.qkv", "qkv"),
        (r"(layers\.\d+\.attention)\.to_out\.0", r"\1.out", ""),
    ],
    "hunyuan_video": [
        (r"(.*)_attn_(qkv|proj)", r"\1_attn.\2", ""),
        (r"(.*_mlp)\.fc1", r"\1.0", ""),
        (r"(.*_mlp)\.fc2", r"\1.2", ""),
    ],
    "hunyuan_video_1_5": [
        (r"(.*)_attn_([qkv])", r"\1_attn.qkv", "qkv"),
        (r"(.*)_attn_(proj)", r"\1_attn.\2", ""),
        (r"(.*_mlp)\.fc1", r"\1.0", ""),
        (r"(.*_mlp)\.fc2", r"\1.2", ""),
        (r"(.*_mod)\.linear", r"\1.lin", ""),
    ],
    "framepack": [
        (r"transformer_blocks\.(\d+)\.attn\.to_([qkv])", r"double_blocks.\1.img_attn.qkv", "qkv"),
        (r"transformer_blocks\.(\d+)\.attn\.add_([qkv])_proj", r"double_blocks.\1.txt_attn.qkv", "qkv"),
        (r"transformer_blocks\.(\d+)\.attn\.to_out\.0", r"double_blocks.\1.img_attn.proj", ""),
        (r"transformer_blocks\.(\d+)\.attn\.to_add_out", r"double_blocks.\1.txt_attn.proj", ""),
        (r"transformer_blocks\.(\d+)\.ff\.net\.0\.proj", r"double_blocks.\1.img_mlp.0", ""),
        (r"transformer_blocks\.(\d+)\.ff\.net\.2", r"double_blocks.\1.img_mlp.2", ""),
        (r"transformer_blocks\.(\d+)\.ff_context\.net\.0\.proj", r"double_blocks.\1.txt_mlp.0", ""),
        (r"transformer_blocks\.(\d+)\.ff_context\.net\.2", r"double_blocks.\1.txt_mlp.2", ""),
        (r"single_transformer_blocks\.(\d+)\.attn\.to_([qkv])", r"single_blocks.\1.linear1", "qkv"),
        (r"single_transformer_blocks\.(\d+)\.(p)roj_mlp", r"single_blocks.\1.linear1", "qkvp"),
        (r"single_transformer_blocks\.(\d+)\.proj_out", r"single_blocks.\1.linear2", ""),
    ],
}


def place_of(architecture: str, path: str) -> tuple[str, int | None]:
    """(ComfyUI's module, first row in its weight) of a Musubi module; None where the weight is its own."""
    for pattern, module, parts in RENAMES.get(architecture, []):
        if match := re.fullmatch(pattern, path):
            return match.expand(module), parts.index(match[match.lastindex]) * WIDTH if parts else None
    return path, None


def tiny_targets(architecture: str) -> dict[str, tuple[int, int]]:
    """Musubi's default targets of the tiny model: of the full-size one, those of the first blocks."""
    state = tiny_model(architecture).model.state_dict()
    shapes: dict[str, tuple[int, int]] = {}
    for path in targets(FULL_SIZE[architecture]):
        if int(re.search(r"(?:blocks|layers)\.(\d+)\.", path)[1]) < BLOCKS:
            module, row = place_of(architecture, path)
            height, columns = state[f"diffusion_model.{module}.weight"].shape
            if row is not None:
                height = 4 * WIDTH if path.endswith("proj_mlp") else WIDTH
            shapes[path] = (height, columns)
    return shapes


def expected_weights(architecture: str, model, tensors: dict[str, torch.Tensor], strength: float):
    """Weights with the dense ΔW of each module added to its rows, in float64."""
    from lyco_core.formats import parse

    state = {k: v.double() for k, v in model.model.state_dict().items()}
    changed: dict[str, torch.Tensor] = {}
    found = parse(tensors, {})
    names = {path.replace(".", "_"): path for path in tiny_targets(architecture)}
    for name, adapter in found.adapters.items():
        module, row = place_of(architecture, names[name])
        key = f"diffusion_model.{module}.weight"
        weight = changed.setdefault(key, state[key].clone())
        delta = DENSE[adapter.algorithm](adapter)
        first = row or 0
        weight[first : first + delta.shape[0]] += strength * delta
    return changed


@every_architecture
@pytest.mark.parametrize("algorithm", ["lokr", "loha", "lora"])
def test_every_module_lands_on_its_rows(architecture, algorithm, loras, host):
    torch.manual_seed(1)
    shapes = tiny_targets(architecture)
    assert len(shapes) >= 14
    tensors = musubi_file(shapes, algorithm, random)
    save_file(tensors, loras / "a.safetensors")
    model = tiny_model(architecture)
    loaded = host.load_onto(model, None, "a.safetensors", 0.7, partial=False)
    expected = expected_weights(architecture, model, tensors, 0.7)
    assert set(loaded.model.patches) == set(expected)
    for key, weight in expected.items():
        before = model.model.state_dict()[key]
        assert relative(patched_weight(loaded.model, key) - before, weight - before) < 2e-6
    assert f"{len(shapes)} of {len(shapes)} modules" in loaded.report
    assert not model.patches


@pytest.mark.parametrize(
    "path",
    [p for p in sorted(GOLDEN.glob("*/*.safetensors")) if "expected" not in p.name],
    ids=lambda p: f"{p.parent.name}-{p.stem}",
)
def test_golden_adapters(path, loras, host):
    architecture = {"wan_t2v": "wan"}.get(path.parent.name, path.parent.name)
    (loras / "a.safetensors").symlink_to(path)
    model = tiny_model(architecture)
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.zero_()
    loaded = host.load_onto(model, None, "a.safetensors", 1.0, partial=False)
    expected = load_file(path.with_suffix(".expected.safetensors"))
    assert set(loaded.model.patches) == set(expected)
    for key, delta in expected.items():
        assert relative(patched_weight(loaded.model, key), delta) < 2e-6


@pytest.fixture
def two_files(loras):
    torch.manual_seed(2)
    save_file(musubi_file(tiny_targets(FUSED), "lokr", random), loras / "lokr.safetensors")
    save_file(musubi_file(tiny_targets(FUSED), "loha", random), loras / "loha.safetensors")
    return loras


def test_loads_stack_and_undo(two_files, host):
    model = tiny_model(FUSED)
    before = model.model.state_dict()[QKV].clone()
    once = host.load_onto(model, None, "lokr.safetensors", 0.5, partial=False).model
    both = host.load_onto(once, None, "loha.safetensors", 2.0, partial=False).model
    alone = host.load_onto(model, None, "loha.safetensors", 2.0, partial=False).model
    changes = [patched_weight(m, QKV) - before for m in (once, alone, both)]
    assert relative(changes[0] + changes[1], changes[2]) < 1e-6
    undone = host.load_onto(once, None, "lokr.safetensors", -0.5, partial=False).model
    assert float((patched_weight(undone, QKV) - before).abs().max()) < 1e-6


def test_strength_0_changes_nothing(two_files, host):
    model = tiny_model(FUSED)
    loaded = host.load_onto(model, None, "lokr.safetensors", 0.0, partial=False)
    assert loaded.model is model
    assert "strength 0" in loaded.report


def test_clones_share_and_the_model_is_restored(two_files, host):
    import comfy.model_management

    model = tiny_model(FUSED)
    before = {k: v.clone() for k, v in model.model.state_dict().items()}
    patched = host.load_onto(model, None, "lokr.safetensors", 1.0, partial=False).model
    clone = patched.clone()
    expected = patched_weight(clone, QKV)
    comfy.model_management.load_models_gpu([clone])
    assert torch.equal(model.model.state_dict()[QKV], expected)
    clone.detach()
    assert all(torch.equal(v, before[k]) for k, v in model.model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_vram_patches_at_each_cast(dtype, two_files, host):
    """With low VRAM, ComfyUI applies the patch to the cast weight, in the weight's own dtype."""
    import comfy.model_patcher

    model = tiny_model(FUSED, dtype)
    patched = host.load_onto(model, None, "lokr.safetensors", 1.0, partial=False).model
    weight = model.model.state_dict()[QKV]
    found = comfy.model_patcher.LowVramPatch(QKV, patched.patches)(weight.clone())
    wide = tiny_model(FUSED)
    wide.model.load_state_dict({k: v.float() for k, v in model.model.state_dict().items()})
    expected = patched_weight(host.load_onto(wide, None, "lokr.safetensors", 1.0, partial=False).model, QKV)
    assert found.dtype == dtype
    assert relative(found, expected) < {torch.bfloat16: 3e-3, torch.float16: 4e-4}[dtype]


def test_prefetch_rebuilds_the_patch(two_files, host):
    import comfy.model_patcher

    if not hasattr(comfy.model_patcher.LowVramPatch, "prepare"):
        pytest.skip("this ComfyUI does not prefetch patches")
    model = tiny_model(FUSED)
    patched = host.load_onto(model, None, "lokr.safetensors", 1.0, partial=False).model
    patch = comfy.model_patcher.LowVramPatch(QKV, patched.patches)
    buffer = torch.empty(patch.memory_required(), dtype=torch.uint8)
    patch.prepare(buffer, None, copy=True, commit=True)
    rebuilt = patch.prepared_patches[0][1]
    assert rebuilt is not patched.patches[QKV][0][1]
    weight = model.model.state_dict()[QKV].clone()
    assert torch.equal(patch(weight.clone()), patched_weight(patched, QKV))


def test_a_function_of_the_patch_is_applied_to_the_delta(two_files, host):
    model = tiny_model(FUSED)
    patch = host.load_onto(model, None, "lokr.safetensors", 1.0, partial=False).model.patches
    adapter = patch[PROJ][0][1]
    zeros = torch.zeros(64, 64)
    plain = adapter.calculate_weight(zeros.clone(), "k", 1.0, 1.0, None, lambda d: d)
    doubled = adapter.calculate_weight(zeros.clone(), "k", 1.0, 1.0, None, lambda d: 2 * d)
    in_place = adapter.calculate_weight(zeros.clone(), "k", 1.0, 1.0, None, lambda d: d.mul_(2))
    assert torch.equal(doubled, 2 * plain)
    assert torch.equal(in_place, 2 * plain)


def test_a_patch_that_cannot_apply_raises(two_files, host):
    model = tiny_model(FUSED)
    patches = host.load_onto(model, None, "lokr.safetensors", 1.0, partial=False).model.patches
    adapter = patches[PROJ][0][1]
    with pytest.raises(
        Exception, match=r"some\.key \(lora_unet_transformer_blocks_0_attn_to_out_0\): the adapter changes"
    ):
        adapter.calculate_weight(torch.zeros(64, 63), "some.key", 1.0, 1.0, None, lambda d: d)


def test_a_new_strength_does_not_read_the_file_again(two_files, host):
    model = tiny_model(FUSED)
    first = host.load_onto(model, None, "lokr.safetensors", 1.0, partial=False).model
    path = two_files / "lokr.safetensors"
    status = path.stat()
    content = path.read_bytes()
    import os

    # Same file by its stat, other content: whoever reads it again fails.
    with path.open("r+b") as file:
        file.write(b"\0" * len(content))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = host.load_onto(model, None, "lokr.safetensors", 2.0, partial=False).model
    before = model.model.state_dict()[QKV]
    assert relative(2 * (patched_weight(first, QKV) - before), patched_weight(second, QKV) - before) < 1e-6


def test_a_file_that_changed_is_read_again(two_files, host):
    model = tiny_model(FUSED)
    host.load_onto(model, None, "lokr.safetensors", 1.0, partial=False)
    (two_files / "lokr.safetensors").write_bytes((two_files / "loha.safetensors").read_bytes())
    assert "LoHa" in host.load_onto(model, None, "lokr.safetensors", 1.0, partial=False).report


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/hostname", "..\\secret.safetensors", "", "."])
def test_names_that_a_link_may_bring_stay_in_the_models_folder(name, two_files, host):
    """The server checks a chosen name against its list; one that comes over a link it does not."""
    (two_files.parent / "secret.safetensors").write_bytes((two_files / "lokr.safetensors").read_bytes())
    with pytest.raises(Exception, match="there is no such file in models/loras"):
        host.load_onto(tiny_model(FUSED), None, name, 1.0, partial=False)
