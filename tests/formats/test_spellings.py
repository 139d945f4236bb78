"""One module, many names: what stands before it, between its parts and after it is told from what it is."""

from pathlib import Path

import pytest
import torch
from lyco_testing import tables
from lyco_testing.tables import lokr, lora, random
from safetensors.torch import load_file, save_file
from torch import Tensor

from lyco_core.adapter_reader import load_adapter_set
from lyco_core.architectures import ARCHITECTURES, identify
from lyco_core.cli import main
from lyco_core.errors import AdapterError, PlacementError
from lyco_core.formats import FORMATS, emit, parse
from lyco_core.formats.grammar import is_text_encoders, unwrapped
from lyco_core.model import Model
from lyco_core.placement import place

WAN = {f"blocks.{n}.{name}": (64, 64) for n in range(2) for name in ("self_attn.q", "self_attn.k", "cross_attn.o")}


def pair(module: str, rows: int, columns: int, name: str = "") -> dict[str, Tensor]:
    """A LoRA as PEFT's `state_dict` has it, with the adapter's name in it."""
    return {f"{module}.lora_A{name}.weight": random(2, columns), f"{module}.lora_B{name}.weight": random(rows, 2)}


def file_of(prefix: str, modules: dict[str, tuple[int, int]], *, underscored: bool = False) -> dict[str, Tensor]:
    torch.manual_seed(0)
    made: dict[str, Tensor] = {}
    for path, shape in modules.items():
        made |= lora(prefix + (path.replace(".", "_") if underscored else path), *shape, random)
    return made


@pytest.mark.parametrize(
    "prefix",
    [
        "net.", "model.", "module.", "_orig_mod.", "pipe.dit.", "dit.", "model.diffusion_model.",
        "diffusion_model.net.", "base_model.model.model.", "transformer._orig_mod.", "lora_unet_model_",
        "lora_unet_net_", "lycoris_model_", "lora_unet__", "lora_unet_", "diffusion_model.", "",
    ],
)  # fmt: skip
def test_what_a_wrapper_has_before_a_name_is_no_part_of_it(prefix: str, tmp_path: Path):
    tensors = file_of(prefix, WAN, underscored=prefix.endswith("_"))
    found = identify(parse(tensors, {}), architecture="wan")
    assert found.architecture is ARCHITECTURES["wan"]
    assert list(found.adapters) == list(WAN)
    assert emit(found)[0].keys() == tensors.keys()
    save_file(tensors, tmp_path / "a.safetensors")
    assert (
        main(["delta", str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "d.safetensors"), "--architecture", "wan"])
        == 0
    )
    assert load_file(tmp_path / "d.safetensors").keys() == {f"diffusion_model.{path}.weight" for path in WAN}


@pytest.mark.parametrize("wrapper", ["model.", "net."])
def test_a_models_own_modules_keep_what_they_begin_with(wrapper: str):
    """Of a model that has modules of both names, the whole name is meant; of one that has one, that one."""
    tensors = file_of("", {f"{wrapper}layers.0.q": (8, 8), f"{wrapper}layers.1.q": (8, 8)})
    both = {f"{start}layers.{n}.q.weight": (8, 8) for start in (wrapper, "") for n in range(2)}
    for weights in (both, {key: shape for key, shape in both.items() if key.startswith(wrapper)}):
        placed = Model.of(weights).place(parse(tensors, {})).require_complete()
        assert {piece.key for piece in placed.placed} == {f"{wrapper}layers.{n}.q.weight" for n in range(2)}
    without = {key: shape for key, shape in both.items() if not key.startswith(wrapper)}
    placed = Model.of(without).place(parse(tensors, {})).require_complete()
    assert {piece.key for piece in placed.placed} == set(without)


def test_wrappers_are_taken_off_one_after_the_other():
    assert list(unwrapped("model.diffusion_model.a.b")) == ["diffusion_model.a.b", "a.b"]
    assert list(unwrapped("model_a_b")) == ["a_b"]
    assert not list(unwrapped("a.model.b"))
    assert not list(unwrapped("model."))


def test_hunyuan_videos_own_trainer():
    block = {"double_blocks.0.img_attn_qkv": (9216, 3072), "double_blocks.0.img_mlp.fc1": (12288, 3072)}
    tensors = file_of("Hunyuan_video_I2V_lora_", block | {"single_blocks.0.linear2": (3072, 15360)}, underscored=True)
    found = identify(parse(tensors, {}))
    assert found.architecture is ARCHITECTURES["hunyuan_video"]
    assert {piece.key for piece in place(found).require_complete().placed} == {
        "diffusion_model.double_blocks.0.img_attn.qkv.weight",
        "diffusion_model.double_blocks.0.img_mlp.0.weight",
        "diffusion_model.single_blocks.0.linear2.weight",
    }


@pytest.mark.parametrize("name", ["", ".default", ".default_0", ".my-style", ".of.several.parts"])
def test_an_adapter_may_have_any_name(name: str):
    torch.manual_seed(0)
    tensors = pair("transformer_blocks.0.attn.to_q", 8, 6, name)
    tensors["transformer_blocks.0.attn.to_q.lora_magnitude_vector" + name + ".weight"] = random(8)
    found = parse(tensors, {})
    assert found.titles == {"LoRA with DoRA": 1}
    assert not found.unrecognised
    assert emit(found)[0].keys() == tensors.keys()
    bias = {f"transformer_blocks.0.attn.to_q.lora_B{name}.bias": random(8)}
    assert "transformer_blocks.0.attn.to_q.bias" in parse(tensors | bias, {}).adapters


@pytest.mark.parametrize("writer", [tables.loha, tables.lokr])
def test_adapters_of_other_algorithms_are_called_default(writer):
    tensors = writer("base_model.model.a.b", 8, 8, random)
    named = {key if key.endswith("alpha") else f"{key}.default": tensor for key, tensor in tensors.items()}
    assert torch.equal(
        parse(named, {}).adapters["a.b"].delta_weight(), parse(tensors, {}).adapters["a.b"].delta_weight()
    )
    strange = {key.replace(".default", ".scales"): tensor for key, tensor in named.items()}
    assert set(parse(strange, {}).unrecognised) == set(strange)


def test_two_adapters_in_a_file_are_refused():
    tensors = pair("a.b", 8, 8, ".one") | pair("a.b", 8, 8, ".two")
    with pytest.raises(AdapterError, match=r"a\.b: has two tensors lora_A\.weight, a\.b\.lora_A\.one\.weight and a\.b"):
        parse(tensors, {})


@pytest.mark.parametrize("suffix", ["alpha", "lora_up.weight", "lora_down.weight", "dora_scale"])
def test_underscored_and_dotted_spellings_of_a_module_are_one(suffix: str):
    torch.manual_seed(0)
    whole = lora("lora_unet_blocks_0_attn_to_q", 8, 8, random) | {
        "lora_unet_blocks_0_attn_to_q.dora_scale": random(8, 1)
    }
    half = {k.replace("attn_to_q", "attn.to_q") if k.endswith(suffix) else k: t for k, t in whole.items()}
    assert half.keys() != whole.keys()
    for keys in (half, dict(reversed(half.items()))):
        found = parse(keys, {})
        assert found.titles == {"LoRA with DoRA": 1}
        base = torch.eye(8)
        expected = parse(whole, {}).adapters["blocks_0_attn_to_q"].add_to_(base.clone())
        assert torch.equal(found.adapters["blocks_0_attn_to_q"].add_to_(base.clone()), expected)
        assert emit(found)[0].keys() == half.keys()


def test_dotted_names_that_differ_in_underscores_are_two_modules():
    tensors = lora("diffusion_model.a.b", 8, 8) | lokr("diffusion_model.a_b", 8, 8)
    assert list(parse(tensors, {}).adapters) == ["a.b", "a_b"]


DIFFSYNTH = {
    "blocks.0.attn.a_to_qkv": ("double_blocks.0.img_attn.qkv", (9216, 3072)),
    "blocks.0.attn.b_to_qkv": ("double_blocks.0.txt_attn.qkv", (9216, 3072)),
    "blocks.0.attn.a_to_out": ("double_blocks.0.img_attn.proj", (3072, 3072)),
    "blocks.18.attn.b_to_out": ("double_blocks.18.txt_attn.proj", (3072, 3072)),
    "blocks.18.ff_a.0": ("double_blocks.18.img_mlp.0", (12288, 3072)),
    "blocks.18.ff_b.2": ("double_blocks.18.txt_mlp.2", (3072, 12288)),
    "blocks.18.norm1_a.linear": ("double_blocks.18.img_mod.lin", (18432, 3072)),
    "blocks.18.norm1_b.linear": ("double_blocks.18.txt_mod.lin", (18432, 3072)),
    "single_blocks.37.to_qkv_mlp": ("single_blocks.37.linear1", (21504, 3072)),
    "single_blocks.37.proj_out": ("single_blocks.37.linear2", (3072, 15360)),
    "single_blocks.37.norm.linear": ("single_blocks.37.modulation.lin", (9216, 3072)),
    "final_norm_out.linear": ("final_layer.adaLN_modulation.1", (6144, 3072)),
    "final_proj_out": ("final_layer.linear", (64, 3072)),
}


def test_diffsynths_own_names_of_flux(tmp_path: Path):
    """Renames, whose rows stay in their order: DiffSynth's final modulation too has the shift above the scale."""
    torch.manual_seed(0)
    tensors = {k: t for name, (_, shape) in DIFFSYNTH.items() for k, t in pair(name, *shape, ".default").items()}
    save_file(tensors, tmp_path / "a.safetensors")
    assert load_adapter_set(tmp_path / "a.safetensors").architecture is ARCHITECTURES["flux1"]
    arguments = [str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "b.safetensors"), "--to", "comfyui"]
    assert main(["convert", *arguments]) == 0
    found = load_file(tmp_path / "b.safetensors")
    for name, (ours, _) in DIFFSYNTH.items():
        for ab, side in {"A": "down", "B": "up"}.items():
            assert torch.equal(
                found[f"diffusion_model.{ours}.lora_{side}.weight"], tensors[f"{name}.lora_{ab}.default.weight"]
            )


def light_wan() -> dict[str, Tensor]:
    """A LoRA with differences of everything else, as lightx2v extracts it from Wan 2.1."""
    torch.manual_seed(0)
    block = "diffusion_model.blocks.0"
    return {
        **lora(f"{block}.self_attn.q", 1536, 1536, random),
        **lora(f"{block}.cross_attn.k", 1536, 1536, random),
        f"{block}.self_attn.q.diff_b": random(1536),
        f"{block}.self_attn.norm_q.diff": random(1536),
        f"{block}.norm3.diff": random(1536),
        f"{block}.norm3.diff_b": random(1536),
        f"{block}.diff_m": random(1, 6, 1536),
        "diffusion_model.head.diff_m": random(1, 2, 1536),
    }


EXPECTED = {
    "blocks.0.self_attn.q.bias": "blocks.0.self_attn.q.diff_b",
    "blocks.0.self_attn.norm_q.weight": "blocks.0.self_attn.norm_q.diff",
    "blocks.0.norm3.weight": "blocks.0.norm3.diff",
    "blocks.0.norm3.bias": "blocks.0.norm3.diff_b",
    "blocks.0.modulation": "blocks.0.diff_m",
    "head.modulation": "head.diff_m",
}


def test_differences_of_norms_and_of_other_parameters(tmp_path: Path):
    """At the command line as on a model: by the names that the modules beside them keep."""
    tensors = light_wan()
    file = tmp_path / "a.safetensors"
    save_file(tensors, file)
    assert main(["delta", str(file), "-o", str(tmp_path / "delta.safetensors")]) == 0
    delta = load_file(tmp_path / "delta.safetensors")
    assert len(delta) == len(EXPECTED) + 2
    for key, own in EXPECTED.items():
        assert torch.equal(delta[f"diffusion_model.{key}"], tensors[f"diffusion_model.{own}"])
    assert main(["convert", str(file), "-o", str(tmp_path / "to"), "--to", "comfyui"]) == 0
    assert "diffusion_model.blocks.0.modulation.diff" in load_file(tmp_path / "to.safetensors")  # which ComfyUI reads
    assert main(["delta", str(tmp_path / "to.safetensors"), "-o", str(tmp_path / "again.safetensors")]) == 0
    again = load_file(tmp_path / "again.safetensors")
    assert again.keys() == delta.keys()
    assert all(torch.equal(again[key], delta[key]) for key in delta)
    assert emit(parse(tensors, {}))[0].keys() == tensors.keys()


def test_they_are_merged(tmp_path: Path):
    torch.manual_seed(1)
    names = {**{f"blocks.0.{n}.weight": (8, 8) for n in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o")}}
    names |= {f"blocks.0.{n}.weight": (8, 8) for n in ("cross_attn.q", "cross_attn.k", "cross_attn.v", "cross_attn.o")}
    names |= {"blocks.0.modulation": (1, 6, 8), "head.modulation": (1, 2, 8), "blocks.0.norm3.weight": (8,)}
    base = {key: random(*shape) for key, shape in names.items()}
    changes = {"blocks.0.diff_m": random(1, 6, 8), "head.diff_m": random(1, 2, 8), "blocks.0.norm3.diff": random(8)}
    save_file(base, tmp_path / "base.safetensors")
    save_file({f"diffusion_model.{key}": tensor for key, tensor in changes.items()}, tmp_path / "a.safetensors")
    adapter = ["--adapter", f"{tmp_path / 'a.safetensors'}@0.5", "-o", str(tmp_path / "out.safetensors")]
    assert main(["merge", "--base", str(tmp_path / "base.safetensors"), *adapter]) == 0
    out = load_file(tmp_path / "out.safetensors")
    for key, own in {"blocks.0.modulation": "blocks.0.diff_m", "head.modulation": "head.diff_m"}.items():
        assert torch.allclose(out[key], base[key] + changes[own] / 2)
    assert torch.allclose(
        out["blocks.0.norm3.weight"], base["blocks.0.norm3.weight"] + changes["blocks.0.norm3.diff"] / 2
    )


def test_fastvideos_differences_of_parameters():
    tensors = {"scale_shift_table.diff_param": random(2, 8), "blocks.0.scale_shift_table.diff_param": random(6, 8)}
    shapes = {"scale_shift_table": (2, 8), "blocks.0.scale_shift_table": (6, 8)}
    placed = Model.of(shapes).place(parse(tensors, {}))
    assert {piece.key for piece in placed.placed} == {"blocks.0.scale_shift_table", *(["scale_shift_table"])}
    assert emit(parse(tensors, {}))[0].keys() == tensors.keys()
    found = parse({"blocks.0.gate.set_param": random(4)}, {})
    assert found.unrecognised_keys == ("blocks.0.gate.set_param",)


def test_a_norm_whose_name_nobody_knows_in_another_layout_is_refused():
    found = identify(parse(light_wan(), {}))
    with pytest.raises(PlacementError, match=r"modules are not in the diffusers layout \(.*norm_q"):
        place(found, layout="diffusers").require_complete()


ENCODERS = (
    "lora_te_text_model_encoder_layers_0_mlp_fc1",
    "lora_te1_text_model_encoder_layers_0_mlp_fc1",
    "lora_te2_text_model_encoder_layers_0_mlp_fc1",
    "lora_te3_encoder_block_0_layer_0_SelfAttention_q",
    "lora_prior_te_text_model_encoder_layers_0_mlp_fc1",
    "lora_clip_l_text_model_encoder_layers_0_mlp_fc1",
    "lora_unet_text_model_encoder_layers_0_mlp_fc1",
    "text_encoder.text_model.encoder.layers.0.mlp.fc1",
    "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q",
    "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q",
    "transformer.text_model.encoder.layers.0.mlp.fc1",
    "base_model.model.text_model.encoder.layers.0.mlp.fc1",
    "diffusion_model.text_encoder.model.layers.0.q_proj",
    "text_model.encoder.layers.0.mlp.fc1",
    "clip_g.transformer.text_model.encoder.layers.0.mlp.fc1",
    "t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q",
    "hydit_clip.transformer.bert.encoder.layer.0.attention.self.query",
    "text_embedding_projection.aggregate_embed",
)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_text_encoders_modules_are_told_as_such(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """And are left out of what is written, where a pattern says so."""
    assert is_text_encoders(name)
    tensors = file_of("diffusion_model.", WAN) | lora(name, 8, 8, random)
    save_file(tensors, tmp_path / "a.safetensors")
    file, out = str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")
    for command in (["convert", file, "-o", out, "--to", "musubi"], ["delta", file, "-o", out]):
        arguments = [*command, "--architecture", "wan"]
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert f"1 of {len(WAN) + 1} modules are the text encoder's ({name}); leave these out with --exclude" in error
        pattern = error.rpartition('--exclude "')[2].strip().removesuffix('"')
        assert main([*arguments, "--exclude", pattern, "--overwrite"]) == 0
        written = load_file(out)
        assert len(written) == (3 * len(WAN) if command[0] == "convert" else len(WAN))


@pytest.mark.parametrize(
    "name", ["diffusion_model.txt_in", "lora_unet_text_embedder_linear_1", "model.lyric_encoder.a"]
)
def test_what_is_no_text_encoders(name: str):
    assert not is_text_encoders(name)


def test_include_takes_only_what_matches(tmp_path: Path):
    save_file(file_of("lora_unet_", WAN, underscored=True), tmp_path / "a.safetensors")
    arguments = [str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "b.safetensors"), "--architecture", "wan"]
    assert main(["delta", *arguments, "--include", r"blocks\.0\..*"]) == 0
    expected = {f"diffusion_model.{path}.weight" for path in WAN if path.startswith("blocks.0.")}
    assert load_file(tmp_path / "b.safetensors").keys() == expected
    assert main(["convert", *arguments, "--to", "comfyui", "--include", r".*self_attn.*", "--overwrite"]) == 0
    assert len(load_file(tmp_path / "b.safetensors")) == 3 * 4
    assert main(["convert", *arguments, "--to", "comfyui", "--include", "nothing", "--overwrite"]) == 1


def test_the_tensor_that_is_not_known_is_named_first():
    tensors = lora("lora_unet_a", 8, 8) | {"lora_unet_a.lora_mystery": torch.ones(1)}
    assert parse(tensors, {}).unrecognised_keys[0] == "lora_unet_a.lora_mystery"


def test_every_prefix_has_one_format():
    prefixes = [p for f in FORMATS.values() for p in (*f.module_prefixes, *f.other_prefixes)]
    assert len(prefixes) == len(set(prefixes))


def test_sd_scripts_oft_of_flux(tmp_path: Path):
    """Rows of q, k and v, and of a single block's MLP, are turned apart, each bound by its own number of rows."""
    torch.manual_seed(0)
    splits = {"double_blocks.0.img_attn.qkv": (8, 8, 8), "single_blocks.1.linear1": (8, 8, 8, 32)}
    splits |= {"single_blocks.1.linear2": (8,), "double_blocks.0.txt_attn.proj": (8,)}
    blocks, base, tensors, alpha = 2, {}, {}, 0.01
    for path, rows in splits.items():
        name = "oft_unet_" + path.replace(".", "_")
        base[f"{path}.weight"] = random(sum(rows), 40 if path.endswith("linear2") else 8)
        tensors |= {f"{name}.oft_blocks.{n}": random(blocks, r // blocks, r // blocks) for n, r in enumerate(rows)}
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    more = {f"double_blocks.0.{s}_{name}.weight": shape for s in ("img", "txt") for name, shape in {
        "attn.qkv": (24, 8), "attn.proj": (8, 8), "mlp.0": (32, 8), "mlp.2": (8, 32)}.items()}  # fmt: skip
    base = {key: random(*shape) for key, shape in more.items()} | base
    save_file(base, tmp_path / "base.safetensors")
    save_file(tensors, tmp_path / "a.safetensors")
    out = tmp_path / "out.safetensors"
    files = ["--base", str(tmp_path / "base.safetensors"), "--adapter", str(tmp_path / "a.safetensors"), "-o", str(out)]
    assert main(["merge", *files, "--architecture", "flux1"]) == 0
    merged = load_file(out)
    for path, rows in splits.items():
        start, expected = 0, base[f"{path}.weight"].double()
        for n, height in enumerate(rows):
            b = tensors[f"oft_unet_{path.replace('.', '_')}.oft_blocks.{n}"].double()
            skew = b - b.transpose(1, 2)
            skew *= min(1.0, alpha * height / float(skew.norm()))
            eye = torch.eye(skew.shape[-1], dtype=torch.float64)
            turn = (eye + skew) @ torch.linalg.inv(eye - skew)
            own = expected[start : start + height].reshape(blocks, height // blocks, -1)
            expected[start : start + height] = torch.einsum("knm,knp->kmp", turn, own).reshape(height, -1)
            start += height
        assert torch.allclose(merged[f"{path}.weight"].double(), expected, atol=1e-5), path
        assert not torch.allclose(merged[f"{path}.weight"], base[f"{path}.weight"], atol=1e-5)
    one_part = {"double_blocks_0_txt_attn_proj", "single_blocks_1_linear2"}  # as every other trainer calls it
    names = {key.replace("_blocks.0", "_blocks") if any(n in key for n in one_part) else key for key in tensors}
    assert emit(parse(tensors, {}))[0].keys() == names
