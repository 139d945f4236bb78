"""Never worse than stock: what ComfyUI loads fully loads here too, through its own names."""

import importlib

import pytest
import torch
from lyco_testing.comfy_models import patched_weight, tiny_model
from lyco_testing.tables import lokr, lora, random
from safetensors.torch import save_file


def stock_weights(model, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every weight that stock ComfyUI changes, patched by it."""
    import comfy.sd

    patched, _ = comfy.sd.load_lora_for_models(model, None, dict(tensors), 0.5, 0.5)
    return {key: patched_weight(patched, key) for key in patched.patches}


def files() -> dict[str, tuple[str, dict[str, torch.Tensor]]]:
    """Name -> (architecture, tensors) of files that stock ComfyUI loads fully and our tables do not."""
    torch.manual_seed(4)
    block = "transformer.single_transformer_blocks.0"
    diffusers = {
        f"{block}.{name}.lora_{x}.weight": random(*shape)
        for name, rows in {"attn.to_q": 64, "attn.to_k": 64, "proj_mlp": 256}.items()
        for x, shape in {"A": (2, 64), "B": (rows, 2)}.items()
    }
    dora = lora("diffusion_model.blocks.0.self_attn.q", 64, 64, random)
    dora["diffusion_model.blocks.0.self_attn.q.dora_scale"] = random(1, 64).abs()
    fun = lora("lora_unet__blocks_0_cross_attn_k", 64, 64, random) | lora("lora_unet__blocks_1_ffn_0", 160, 64, random)
    difference = {
        "diffusion_model.blocks.0.self_attn.q.diff": random(64, 64),
        "diffusion_model.blocks.0.self_attn.q.diff_b": random(64),
    }
    norms = {
        "diffusion_model.blocks.0.norm3.w_norm": random(64),
        "diffusion_model.blocks.0.norm3.b_norm": random(64),
        "diffusion_model.blocks.0.cross_attn.norm_q.set_weight": random(64),
    }
    modulation = lora("diffusion_model.blocks.0.modulation", 6, 64, random)
    outside = lokr("diffusion_model.time_projection.1", 384, 64, random)
    return {
        "diffusers names of FLUX.1": ("flux1", diffusers),
        "DoRA": ("wan", dora | lokr("diffusion_model.blocks.1.ffn.0", 160, 64, random)),
        "Wan Fun's spelling": ("wan", fun),
        "differences": ("wan", difference),
        "norms": ("wan", norms),
        "a parameter that is no module": ("wan", modulation),
        "a module outside the blocks": ("wan", outside),
    }


@pytest.mark.parametrize("name", files())
def test_the_same_weights_as_stock(name, loras, host):
    architecture, tensors = files()[name]
    save_file(tensors, loras / "a.safetensors")
    model = tiny_model(architecture)
    loaded = host.load_onto(model, None, "a.safetensors", 0.5, partial=False)
    expected = stock_weights(model, tensors)
    assert set(loaded.model.patches) == set(expected)
    for key, weight in expected.items():
        found = patched_weight(loaded.model, key)
        before = model.model.state_dict()[key]
        assert float((found - weight).norm() / (weight - before).norm()) < 1e-5


def test_the_report_says_what_went_through_comfyuis_names(loras, host):
    save_file(files()["norms"][1], loras / "a.safetensors")
    report = host.load_onto(tiny_model("wan"), None, "a.safetensors", 1.0, partial=False).report
    assert "2 of 2 modules on 2 weights" in report
    assert "2 of them by the model's own names" in report
    assert "1 weight by ComfyUI's own adapters" in report


def test_an_adapter_of_another_shape_is_refused_there_too(loras, host):
    """Stock ComfyUI logs the error and samples with the weight unchanged."""
    tensors = files()["diffusers names of FLUX.1"][1]
    key = "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"
    save_file(tensors | {key: random(2, 63)}, loras / "a.safetensors")
    with pytest.raises(Exception, match=r"1 of 3 modules have another shape .*\[64, 64\], the adapter's \[64, 63\]"):
        host.load_onto(tiny_model("flux1"), None, "a.safetensors", 1.0, partial=False)


@pytest.fixture
def clip(pack):
    """ComfyUI's own CLIP object around its own text model, tiny."""
    import comfy.model_patcher
    import comfy.sd
    import comfy.sd1_clip

    config = {
        "hidden_act": "quick_gelu", "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2,
        "num_hidden_layers": 2, "max_position_embeddings": 77, "vocab_size": 100, "eos_token_id": 99,
        "projection_dim": 32,
    }  # fmt: skip
    model = comfy.sd1_clip.SD1ClipModel(
        dtype=torch.float32, clip_model=comfy.sd1_clip.SDClipModel, textmodel_json_config=config
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    clip = comfy.sd.CLIP(no_init=True)
    clip.cond_stage_model = model
    clip.patcher = comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))
    clip.tokenizer, clip.layer_idx, clip.tokenizer_options = None, None, {}
    clip.use_clip_schedule, clip.apply_hooks_to_conds = False, None
    return clip


def test_a_text_encoders_part_goes_onto_clip(loras, host, clip):
    torch.manual_seed(5)
    tensors = lokr("lora_unet_blocks_0_self_attn_q", 64, 64, random)
    tensors |= lokr("lora_te_text_model_encoder_layers_1_mlp_fc1", 64, 32, random)
    save_file(tensors, loras / "a.safetensors")
    model = tiny_model("wan")
    loaded = host.load_onto(model, clip, "a.safetensors", 1.0, partial=False)
    key = "clip_l.transformer.text_model.encoder.layers.1.mlp.fc1.weight"
    assert list(loaded.clip.patcher.patches) == [key]
    assert list(loaded.model.patches) == ["diffusion_model.blocks.0.self_attn.q.weight"]
    before = clip.patcher.model.state_dict()[key]
    found = patched_weight(loaded.clip.patcher, key) - before
    w1, a, b = (tensors[f"lora_te_text_model_encoder_layers_1_mlp_fc1.lokr_{x}"] for x in ("w1", "w2_a", "w2_b"))
    assert torch.allclose(found, torch.kron(w1, a @ b) / 2, atol=1e-5)
    with pytest.raises(Exception, match=r"1 of 2 modules are the text encoder's .*: connect CLIP"):
        host.load_onto(model, None, "a.safetensors", 1.0, partial=False)


LAYER = "text_model.encoder.layers.1.mlp.fc1"


@pytest.mark.parametrize(
    "name",
    [
        f"{start}{LAYER.replace('.', '_') if start.endswith('_') else LAYER}"
        for start in (
            "lora_te_", "lora_te1_", "lora_clip_l_", "text_encoder.", "text_encoders.clip_l.transformer.", "clip_l.",
            "transformer.", "base_model.model.", "",
        )
    ],
)  # fmt: skip
def test_a_text_encoder_has_every_trainers_name(name, loras, host, clip):
    torch.manual_seed(5)
    tensors = lokr("diffusion_model.blocks.0.self_attn.q", 64, 64, random) | lokr(name, 64, 32, random)
    save_file(tensors, loras / "a.safetensors")
    model = tiny_model("wan")
    loaded = host.load_onto(model, clip, "a.safetensors", 1.0, partial=False)
    assert list(loaded.clip.patcher.patches) == [f"clip_l.transformer.{LAYER}.weight"]
    assert list(loaded.model.patches) == ["diffusion_model.blocks.0.self_attn.q.weight"]
    with pytest.raises(Exception, match=r"1 of 2 modules are the text encoder's .*: connect CLIP"):
        host.load_onto(model, None, "a.safetensors", 1.0, partial=False)


def test_encoders_are_numbered_as_their_pipelines_number_them(pack):
    """HunyuanVideo's llama before its CLIP, FLUX's T5 after it; a name that two encoders have means neither."""
    named = importlib.import_module(f"{pack.__name__}.nodes.host.model.text_encoders").encoder_names
    clip, t5 = "clip_l.transformer.text_model.x.weight", "t5xxl.transformer.encoder.block.0.y.weight"
    llama = "llama.transformer.model.layers.0.z.weight"
    flux = named([clip, t5])
    assert flux["text_encoder.text_model.x"] == flux["lora_te1_text_model_x"] == clip
    assert flux["text_encoder_2.encoder.block.0.y"] == flux["lora_te2_encoder_block_0_y"] == t5
    hunyuan = named([clip, llama])
    assert hunyuan["text_encoder_2.text_model.x"] == hunyuan["lora_te2_text_model_x"] == clip
    assert hunyuan["text_encoder.layers.0.z"] == hunyuan["text_encoder.model.layers.0.z"] == llama
    assert hunyuan["lora_te1_layers_0_z"] == llama
    both = named([clip, clip.replace("clip_l", "clip_g")])
    assert "text_model.x" not in both
    assert both["clip_g.text_model.x"] == both["text_encoder_2.text_model.x"] == clip.replace("clip_l", "clip_g")
    strangers = named([clip, llama.replace("llama", "other")])
    assert not any("text_encoder" in name or "lora_te" in name for name in strangers)
    projection = named(["text_embedding_projection.weight", llama.replace("llama", "gemma3_12b")])
    assert projection["text_embedding_projection.aggregate_embed"] == "text_embedding_projection.weight"


NOTHING = {
    "an empty file": {},
    "an alpha alone": {"diffusion_model.blocks.0.self_attn.q.alpha": torch.tensor(1.0)},
    "a magnitude alone": {"diffusion_model.blocks.0.self_attn.q.dora_scale": torch.ones(64, 1)},
}


@pytest.mark.parametrize("name", NOTHING)
@pytest.mark.parametrize("partial", [False, True])
def test_a_file_that_changes_nothing_is_refused(name, partial, loras, host):
    save_file(NOTHING[name], loras / "a.safetensors")
    with pytest.raises(Exception, match=r"a\.safetensors: "):
        host.load_onto(tiny_model("wan"), None, "a.safetensors", 1.0, partial=partial)


Q = "diffusion_model.blocks.0.self_attn.q"
BROKEN = {
    "a DoRA with NaN": (files()["DoRA"][1] | {f"{Q}.lora_up.weight": torch.full((64, 2), float("nan"))}, "NaN"),
    "a difference with NaN": ({f"{Q}.diff": torch.full((64, 64), float("nan"))}, "NaN"),
    "a difference of another shape": ({f"{Q}.diff": torch.ones(60, 64)}, r"\[64, 64\], the adapter's \[60, 64\]"),
    "a DoRA of another shape": (
        lora(Q, 60, 64, random) | {f"{Q}.dora_scale": torch.ones(1, 64)},
        r"\[64, 64\], the adapter's \[60, 64\]",
    ),
    "half a DoRA": ({f"{Q}.lora_up.weight": torch.ones(64, 2), f"{Q}.dora_scale": torch.ones(1, 64)}, "down missing"),
    "a set weight of another shape": ({f"{Q}.set_weight": torch.ones(60, 64)}, r"changes a weight of \[60, 64\]"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_stock_adapters_would_swallow_is_refused(name, loras, host):
    tensors, message = BROKEN[name]
    save_file(tensors, loras / "a.safetensors")
    with pytest.raises(Exception, match=rf"a\.safetensors: .*{message}"):
        host.load_onto(tiny_model("wan"), None, "a.safetensors", 1.0, partial=False)


def test_a_name_whose_weight_the_model_lacks_is_left_out(loras, host):
    """Chosen by its key map, but this FLUX has no guidance: stock loads the rest, `warn` does too."""
    tensors = lora("transformer.time_text_embed.guidance_embedder.linear_1", 64, 256, random)
    tensors |= lora("transformer.transformer_blocks.0.attn.to_out.0", 64, 64, random)
    save_file(tensors, loras / "a.safetensors")
    model = tiny_model("flux1")
    keys = [key for key in model.model.state_dict() if "guidance_in" in key]
    assert keys
    del model.model.diffusion_model.guidance_in
    with pytest.raises(Exception, match="1 of 2 modules are not in the model"):
        host.load_onto(model, None, "a.safetensors", 1.0, partial=False)
    report = host.load_onto(model, None, "a.safetensors", 1.0, partial=True).report
    assert "1 of 2 modules on 1 weight" in report


def test_two_modules_for_one_weight_are_refused(loras, host):
    tensors = lora("transformer.proj_out", 64, 64, random) | lora("diffusion_model.final_layer.linear", 64, 64, random)
    save_file(tensors, loras / "a.safetensors")
    with pytest.raises(Exception, match=r"a\.safetensors: "):
        host.load_onto(tiny_model("flux1"), None, "a.safetensors", 1.0, partial=False)


def test_a_checkpoint_is_named_for_what_it_is(loras, host):
    model = tiny_model("wan")
    state = {
        k.removeprefix("diffusion_model."): v.clone() for k, v in model.model.state_dict().items() if "blocks" in k
    }
    save_file(state, loras / "a.safetensors")
    with pytest.raises(Exception, match=r"is no adapter but the weights of Wan 2\.1/2\.2"):
        host.load_onto(model, None, "a.safetensors", 1.0, partial=False)


def test_a_module_that_is_there_twice_counts_once(loras, host):
    """Fused and in parts, the parts equal or never trained: stock takes one of them too."""
    torch.manual_seed(6)
    block = "diffusion_model.layers.0.attention"
    parts = {x: (random(64, 2), random(2, 64)) for x in "qkv"}
    tensors = {
        f"{block}.qkv.lora_up.weight": torch.block_diag(*(up for up, _ in parts.values())),
        f"{block}.qkv.lora_down.weight": torch.cat([down for _, down in parts.values()]),
    }
    for x, (up, down) in parts.items():
        tensors |= {f"{block}.to.{x}.lora.up.weight": up, f"{block}.to.{x}.lora.down.weight": down}
    model, key = tiny_model("z_image"), f"{block}.qkv.weight"
    expected = torch.cat([up @ down for up, down in parts.values()])
    for zero in (False, True):
        if zero:
            tensors |= {f"{block}.to.{x}.lora.up.weight": torch.zeros(64, 2) for x in "qkv"}
        save_file(tensors, loras / f"{zero}.safetensors")
        loaded = host.load_onto(model, None, f"{zero}.safetensors", 1.0, partial=False)
        assert list(loaded.model.patches) == [key]
        change = patched_weight(loaded.model, key) - model.model.state_dict()[key]
        assert float((change - expected).norm() / expected.norm()) < 1e-5
        assert "left out: 3 modules (diffusion_model.layers.0.attention.to.k, " in loaded.report
    save_file(tensors | {f"{block}.to.k.lora.up.weight": random(64, 2)}, loras / "a.safetensors")
    for partial in (False, True):
        with pytest.raises(Exception, match=r"a\.safetensors: .*\.to\.k and .*\.qkv both change"):
            host.load_onto(model, None, "a.safetensors", 1.0, partial=partial)


@pytest.mark.parametrize("partial", [False, True])
def test_what_comfyuis_names_place_twice_is_counted_or_refused(partial, loras, host):
    """Names of no table of ours: of a parameter that is no module, and of the same with a prefix of its own."""
    torch.manual_seed(7)
    first = lora("diffusion_model.blocks.0.modulation", 6, 64, random)
    again = {key.replace("diffusion_model.blocks.0.", "lora_unet_blocks_0_"): t.clone() for key, t in first.items()}
    save_file(first | again, loras / "a.safetensors")
    loaded = host.load_onto(tiny_model("wan"), None, "a.safetensors", 1.0, partial=partial)
    assert [key for key in loaded.model.patches if "modulation" in key] == ["diffusion_model.blocks.0.modulation"]
    again["lora_unet_blocks_0_modulation.lora_up.weight"] *= 2
    save_file(first | again, loras / "b.safetensors")
    with pytest.raises(Exception, match=r"b\.safetensors: .*lora_unet_blocks_0_modulation"):
        host.load_onto(tiny_model("wan"), None, "b.safetensors", 1.0, partial=partial)


def test_what_is_no_adapters_is_left_out_and_told(loras, host):
    tensors = lokr("lora_unet_blocks_0_self_attn_q", 64, 64, random) | {"lokr_factor": torch.tensor(8)}
    off = lokr("lora_unet_blocks_1_self_attn_q", 64, 64, random)
    off["lora_unet_blocks_1_self_attn_q.alpha"] = torch.tensor(0.0)
    tensors |= off | {"bundle_emb.x.clip_l": torch.ones(2, 768), "_aux.step": torch.tensor(3)}
    save_file(tensors, loras / "a.safetensors")
    loaded = host.load_onto(tiny_model("wan"), None, "a.safetensors", 1.0, partial=False)
    assert list(loaded.model.patches) == ["diffusion_model.blocks.0.self_attn.q.weight"]
    for told in (
        "1 module (lora_unet_blocks_1_self_attn_q): off",
        "1 key (lokr_factor)",
        "1 key (bundle_emb.x.clip_l)",
    ):
        assert f"left out: {told}" in loaded.report
    save_file(off, loras / "b.safetensors")
    with pytest.raises(Exception, match=r"b\.safetensors: holds nothing .* off, by an alpha of 0"):
        host.load_onto(tiny_model("wan"), None, "b.safetensors", 1.0, partial=False)
