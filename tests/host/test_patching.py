"""Adapters on ComfyUI's own tiny models, in process: every patched weight against the expected one."""

import pytest
import torch
from lyco_testing.comfy_models import MODELS, patched_weight, tiny_model
from lyco_testing.hosted import expected_weights, tiny_targets
from lyco_testing.relative import relative
from lyco_testing.tables import GOLDEN, musubi_file, random
from safetensors.torch import load_file, save_file

FUSED = "framepack"  # q, k, v and the MLP apart in the file, one weight in the model
QKV = "diffusion_model.double_blocks.0.img_attn.qkv.weight"
PROJ = "diffusion_model.double_blocks.0.img_attn.proj.weight"
every_architecture = pytest.mark.parametrize("architecture", MODELS)


@pytest.mark.every_host
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


@pytest.mark.every_host
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


@pytest.mark.every_host
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
