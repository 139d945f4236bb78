"""Our tables against ComfyUI's own: its models, all but one full size on the meta device, and its key map for LoRA."""

import math
import re

import pytest
from lyco_testing import every_model as classes
from lyco_testing.comfy_models import known_config
from lyco_testing.families import EMBEDDINGS
from lyco_testing.own_names import OWN_NAMES
from lyco_testing.tables import OTHERS, weights
from lyco_testing.tiny_families import LATER
from lyco_testing.video_models import MODELS as VIDEO_MODELS

from lyco_core.architectures import ARCHITECTURES, Architecture, recognise
from lyco_core.errors import MergeError
from lyco_core.layouts import LAYOUTS
from lyco_core.merging.linears import UNPACKED, choose
from lyco_core.model import Model
from lyco_core.quantized import NEW_FORMS, Quantization

UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "use_spatial_transformer": True, "legacy": False,
    "adm_in_channels": None, "model_channels": 320, "use_temporal_attention": False, "use_temporal_resblock": False,
}  # fmt: skip
SD = UNET | {
    "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1, "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
}  # fmt: skip
LUMINA = {"image_model": "lumina2", "patch_size": 2, "in_channels": 16, "qk_norm": True, "axes_lens": [300, 512, 512]}
PIXART = {"num_heads": 16, "patch_size": 2, "hidden_size": 1152, "in_channels": 4, "depth": 28, "input_size": 128}
COSMOS = {
    "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16, "out_channels": 16, "patch_spatial": 2,
    "patch_temporal": 1, "model_channels": 2048, "concat_padding_mask": True, "crossattn_emb_channels": 1024,
    "pos_emb_cls": "rope3d", "use_adaln_lora": True, "adaln_lora_dim": 256, "num_blocks": 28, "num_heads": 16,
}  # fmt: skip
STREAMS = {
    "hidden_size": 3072, "num_heads": 24, "mlp_ratio": 4.0, "theta": 10000, "qkv_bias": True, "vec_in_dim": None,
    "axes_dim": [16, 56, 56],
}  # fmt: skip
CHROMA = STREAMS | {
    "in_dim": 64, "out_dim": 3072, "hidden_dim": 5120, "n_layers": 5, "txt_ids_dims": [], "patch_size": 2,
    "context_in_dim": 4096, "depth": 19, "depth_single_blocks": 38,
}  # fmt: skip
RADIANCE = CHROMA | {
    "image_model": "chroma_radiance", "in_channels": 3, "out_channels": 3, "patch_size": 16, "nerf_hidden_size": 64,
    "nerf_mlp_ratio": 4, "nerf_depth": 4, "nerf_max_freqs": 8, "nerf_tile_size": 512, "nerf_final_head_type": "conv",
    "nerf_embedder_dtype": None, "use_x0": False, "use_sequential_txt_ids": False,
}  # fmt: skip
HUNYUAN_IMAGE = STREAMS | {
    "image_model": "hunyuan_video", "in_channels": 64, "out_channels": 64, "patch_size": [1, 1], "hidden_size": 3584,
    "num_heads": 28, "context_in_dim": 3584, "axes_dim": [64, 64], "depth": 20, "depth_single_blocks": 40,
    "guidance_embed": False, "byt5": True, "meanflow_sum": False, "use_cond_type_embedding": False,
    "vision_in_dim": None, "theta": 256,
}  # fmt: skip
DISTILLED = UNET | {
    "num_classes": "sequential", "adm_in_channels": 2816, "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4],
    "transformer_depth_middle": -1, "num_head_channels": 64, "use_linear_in_transformer": True, "context_dim": 2048,
}  # fmt: skip
"""SDXL's smaller pupils, whose names are some of its own."""


def mmdit(depth: int, **others) -> dict:
    return others | {
        "in_channels": 16, "out_channels": 16, "patch_size": 2, "depth": depth, "input_size": None, "qk_norm": "rms",
        "adm_in_channels": 2048, "pos_embed_scaling_factor": None, "num_patches": 36864, "pos_embed_max_size": 192,
        "context_embedder_config": {
            "target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 64 * depth},
        },
    }  # fmt: skip


MODELS = VIDEO_MODELS | {
    "ace_step": ("ACEStep", {
        "audio_model": "ace", "attention_head_dim": 128, "in_channels": 8, "inner_dim": 2560, "max_height": 16,
        "max_position": 32768, "max_width": 32768, "mlp_ratio": 2.5, "num_attention_heads": 20, "num_layers": 24,
        "out_channels": 8, "patch_size": [16, 1], "rope_theta": 1e6, "speaker_embedding_dim": 512,
        "text_embedding_dim": 768, "ssl_encoder_depths": [8, 8], "ssl_latent_dims": [1024, 768],
        "ssl_names": ["mert", "m-hubert"], "lyric_encoder_vocab_size": 6693, "lyric_hidden_size": 1024,
    }),
    "ace_step_1_5_small": ("ACEStep15", {
        "audio_model": "ace1.5", "hidden_size": 256, "intermediate_size": 768, "num_heads": 2, "num_kv_heads": 1,
        "num_dit_layers": 24, "encoder_hidden_size": 256, "encoder_num_heads": 2, "encoder_intermediate_size": 512,
    }),
    "anima": ("Anima", COSMOS | {"image_model": "anima"}),
    "auraflow": ("AuraFlow", {"max_seq": 9216, "cond_seq_dim": 2048, "n_double_layers": 4, "n_layers": 36}),
    "boogu": ("Boogu", {"image_model": "boogu", "instruction_feat_dim": 4096}),
    "chroma": ("Chroma", CHROMA | {"image_model": "chroma", "in_channels": 64, "out_channels": 64}),
    "chroma_radiance": ("ChromaRadiance", RADIANCE),
    "chroma_radiance_linear": ("ChromaRadiance", RADIANCE | {"nerf_final_head_type": "linear"}),
    "cosmos_predict2": ("CosmosT2IPredict2", COSMOS | {"image_model": "cosmos_predict2"}),
    "cosmos_predict2_14b": ("CosmosT2IPredict2", COSMOS | {
        "image_model": "cosmos_predict2", "model_channels": 5120, "num_blocks": 36, "num_heads": 40,
    }),
    "ernie_image": ("ErnieImage", {"image_model": "ernie"}),
    "hidream": ("HiDream", {
        "image_model": "hidream", "attention_head_dim": 128, "axes_dims_rope": [64, 32, 32],
        "caption_channels": [4096, 4096], "max_resolution": [128, 128], "in_channels": 16, "out_channels": 16,
        "llama_layers": [*range(32), *16 * [31]], "num_attention_heads": 20, "num_routed_experts": 4,
        "num_activated_experts": 2, "num_layers": 16, "num_single_layers": 32, "patch_size": 2, "text_emb_dim": 2048,
    }),
    "hidream_o1": ("HiDreamO1", {"image_model": "hidream_o1"}),
    "hunyuan_dit": ("HunyuanDiT", {"image_model": "hydit", "depth": 40, "hidden_size": 1408, "mlp_ratio": 4.3637}),
    "hunyuan_image": ("HunyuanImage21", HUNYUAN_IMAGE | {"meanflow": False}),
    "hunyuan_image_distilled": ("HunyuanImage21", HUNYUAN_IMAGE | {"meanflow": True, "guidance_embed": True}),
    "ideogram4": ("Ideogram4", {"image_model": "ideogram4", "in_channels": 128, "num_layers": 34}),
    "joyimage": ("JoyImage", {
        "image_model": "joyimage", "in_channels": 16, "hidden_size": 4096, "patch_size": [1, 2, 2], "num_layers": 40,
        "num_attention_heads": 32, "text_dim": 4096,
    }),
    "krea2": ("Krea2", {
        "image_model": "krea2", "features": 6144, "layers": 28, "heads": 48, "kvheads": 12, "channels": 16,
        "patch": 2, "txtlayers": 12, "txtdim": 2560,
    }),
    "lens": ("Lens", {"image_model": "lens"}),
    "longcat_image": ("LongCatImage", STREAMS | {
        "image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2, "context_in_dim": 3584,
        "txt_ids_dims": [1, 2], "guidance_embed": False, "depth": 10, "depth_single_blocks": 20,
    }),
    "ltx_2": ("LTXAV", {
        "image_model": "ltxav", "num_layers": 48, "attention_head_dim": 128, "cross_attention_dim": 4096,
    }),
    "ltx_video_2b": ("LTXV", {
        "image_model": "ltxv", "num_layers": 28, "attention_head_dim": 64, "cross_attention_dim": 2048,
    }),
    "ltx_video_13b": ("LTXV", {
        "image_model": "ltxv", "num_layers": 48, "attention_head_dim": 128, "cross_attention_dim": 4096,
    }),
    "lumina2": ("Lumina2", LUMINA | {
        "dim": 2304, "cap_feat_dim": 2304, "n_layers": 26, "n_heads": 24, "n_kv_heads": 8, "axes_dims": [32, 32, 32],
        "ffn_dim_multiplier": 4.0,
    }),
    "mage_flow": ("MageFlow", {"image_model": "mage_flow", "in_channels": 128, "num_layers": 12}),
    "omnigen2": ("Omnigen2", {
        "image_model": "omnigen2", "axes_dim_rope": [40, 40, 40], "axes_lens": [1024, 1664, 1664], "patch_size": 2,
        "ffn_dim_multiplier": None, "hidden_size": 2520, "in_channels": 16, "multiple_of": 256, "norm_eps": 1e-5,
        "num_attention_heads": 21, "num_kv_heads": 7, "num_layers": 32, "num_refiner_layers": 2,
        "out_channels": None, "text_feat_dim": 2048, "timestep_scale": 1000.0,
    }),
    "pixart_alpha": ("PixArtAlpha", PIXART | {"image_model": "pixart_alpha", "micro_condition": True}),
    "pixart_sigma": ("PixArtSigma", PIXART | {"image_model": "pixart_sigma", "micro_condition": False}),
    "sd15": ("SD15", SD | {"use_linear_in_transformer": False, "context_dim": 768, "num_heads": 8}),
    "sd21": ("SD20", SD | {"use_linear_in_transformer": True, "context_dim": 1024, "num_head_channels": 64}),
    "sd35_large": ("SD3", mmdit(38)),
    "sd35_medium": ("SD3", mmdit(24, x_block_self_attn_layers=[*range(13)])),
    "sdxl": ("SDXL", UNET | {
        "num_classes": "sequential", "adm_in_channels": 2816, "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4],
        "transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_middle": 10, "num_head_channels": 64,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "use_linear_in_transformer": True,
        "context_dim": 2048,
    }),
    "sdxl_refiner": ("SDXLRefiner", UNET | {
        "model_channels": 384, "num_classes": "sequential", "adm_in_channels": 2560, "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 2, 4, 4], "transformer_depth": [0, 0, 4, 4, 4, 4, 0, 0], "transformer_depth_middle": 4,
        "transformer_depth_output": [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0], "num_head_channels": 64,
        "use_linear_in_transformer": True, "context_dim": 1280,
    }),
    "ssd_1b": ("SSD1B", DISTILLED | {
        "transformer_depth": [0, 0, 2, 2, 4, 4], "transformer_depth_output": [0, 0, 0, 1, 1, 2, 10, 4, 4],
    }),
    "stable_cascade": ("Stable_Cascade_C", {"stable_cascade_stage": "c", "c_cond": 2048}),
    "stable_cascade_lite": ("Stable_Cascade_C", {
        "stable_cascade_stage": "c", "c_cond": 1536, "c_hidden": [1536, 1536], "nhead": [24, 24],
        "blocks": [[4, 12], [12, 4]],
    }),
    "stable_cascade_b": ("Stable_Cascade_B", {"stable_cascade_stage": "b"}),
    "stable_cascade_b_lite": ("Stable_Cascade_B", {
        "stable_cascade_stage": "b", "c_hidden": [320, 576, 1152, 1152], "nhead": [-1, 9, 18, 18],
        "blocks": [[2, 4, 14, 4], [4, 14, 4, 2]],
    }),
    "vega": ("Segmind_Vega", DISTILLED | {
        "transformer_depth": [0, 0, 1, 1, 2, 2], "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
    }),
}  # fmt: skip
"""Model -> class of comfy.supported_models, and the config that its detection would give."""

FAMILIES = OTHERS | {
    "ace_step_1_5_small": "ace_step_1_5",
    "chroma_radiance_linear": "chroma",
    "cosmos_predict2": "cosmos_predict2",
    "hunyuan_image_distilled": "hunyuan_image",
    "hunyuan_video_1_5_distilled": "hunyuan_video_1_5",
    "hunyuan_video_i2v": "hunyuan_video",
    "minimax_h3_curve": "minimax_h3",
    "pixart_sigma": "pixart",
    "sd21": "sd15",
    "ssd_1b": "sdxl",
    "stable_cascade_b_lite": "stable_cascade_b",
    "stable_cascade_lite": "stable_cascade",
    "vega": "sdxl",
    "wan_animate_2": "wan",
    "wan_fun": "wan",
}

UNDERSCORED = ("lora_unet_", "lora_prior_unet_", "lora_transformer_", "lycoris_")
DOTTED = ("diffusion_model.", "transformer.", "unet.base_model.model.", "base_model.model.", "unet.", "")

OTHER_CONFIG_BEFORE = {"chroma", "lumina2"}
"""Models whose configuration above is that of ComfyUI 0.28, which knows Krea 2, and not of 0.3."""

OURS_HAS_NOT = {
    # What is beside the decoder.
    "ace_step_1_5": r"(diffusion_model\.|lora_unet_)(encoder|tokenizer|detokenizer).*",
    # HunyuanVideo's names, whose q, k and v its own code keeps apart.
    "hunyuan_video_1_5": r".*[._](img|txt)_attn_qkv",
    # The first LoRA of diffusers named the layers of its attention processors.
    "sd15": r".*\.processor\.to_\w+",
    # ComfyUI takes a second name of diffusers for the vector's embedding.
    "sdxl": r".*\.processor\.to_\w+|.*class_embedding[._]linear_[12]",
    "sdxl_refiner": r".*\.processor\.to_\w+|.*class_embedding[._]linear_[12]",
    # FLUX.2's names, and ComfyUI's for a part of a weight.
    "chroma": r".*(to_qkv_mlp_proj|[._]attn[._]to_out|linear_in|linear_out|linear1_qkv)",
    # The same, and FLUX.1's names for what diffusers calls otherwise in this one.
    "longcat_image": r".*(to_qkv_mlp_proj|[._]attn[._]to_out|linear_in|linear_out|linear1_qkv)"
    r"|.*(time_text_embed[._].*|norm_out[._]linear)",
    # Z-Image's names, on rows that are not Lumina's: its keys and values are narrower.
    "lumina2": r".*attention[._]to_(q|k|v|out_0|out\.0)|.*all_(x_embedder|final_layer).*",
    # A spelling beside diffusers' own to_out.0.
    "krea2": r".*attn[._]to_out",
}
"""What ComfyUI's map has beyond the names in our layouts."""


@pytest.fixture
def meta_model(pack, request):
    import comfy.ops
    import comfy.supported_models
    import torch

    name, config = MODELS[request.param]
    config = known_config(name, dict(config))
    if request.param in OTHER_CONFIG_BEFORE and not hasattr(comfy.supported_models, "Krea2"):
        pytest.skip(f"this ComfyUI detects another configuration of {name}")
    family = getattr(comfy.supported_models, name)(config)
    family.set_inference_dtype(torch.float32, None)
    family.custom_operations = comfy.ops.manual_cast
    # One computes while it is built.
    return request.param, family.get_model({}, device="cpu" if name == "ACEStep15" else "meta")


every_model = pytest.mark.parametrize("meta_model", MODELS, indirect=True)


def matrices(model) -> dict[str, tuple[int, ...]]:
    """Key -> shape of the diffusion model's weights with two dimensions or more."""
    shapes = {key: tuple(weight.shape) for key, weight in model.state_dict().items()}
    return {
        key: shape
        for key, shape in shapes.items()
        if key.startswith("diffusion_model.") and key.endswith(".weight") and len(shape) > 1
    }


def places(family: Architecture, name: str, shapes: dict[str, tuple[int, ...]], *, underscored: bool):
    """Every (key, rows, whether halves change places) of a name in our layouts: rows (start, count), None for all."""
    for layout in LAYOUTS:
        path = family.resolve(name, layout, underscored=underscored)
        for found in family.locate(path, layout, "comfyui") if path else ():
            key = f"diffusion_model.{found.path}.weight"
            shape = shapes.get(key, (0, 0))
            whole = family.locate(path, layout, "comfyui", (shape[0], math.prod(shape[1:])))
            target = next(target for target in whole if target.path == found.path)
            start, stop, total = target.rows
            part = shapes[key][0] // total if key in shapes else 0
            yield key, None if stop - start == total else (start * part, (stop - start) * part), target.swapped


def test_every_family_is_held_against_comfyui():
    """Those that Musubi trains are in test_every_family.py alone."""
    missing = set(OTHERS.values()) - {*LATER} - {FAMILIES[name] for name in MODELS}
    assert not missing, "give MODELS the config that ComfyUI detects"


def test_models_without_a_table_have_these_names(pack):
    import comfy.ldm.audio.dit
    import comfy.ops
    import comfy.supported_models

    if not hasattr(comfy.supported_models, "StableAudio3"):
        pytest.skip("this ComfyUI has no Stable Audio 3")
    made = {name: classes.patcher(name).model.diffusion_model for name in ("SeedVR2", "Trellis2")}
    made["StableAudio3"] = comfy.ldm.audio.dit.AudioDiffusionTransformer(
        device="meta", operations=comfy.ops.manual_cast, io_channels=256, timestep_features_type="expo",
        global_cond_type="adaLN", global_cond_shared_embed=True, local_add_cond_dim=257, norm_type="rms_norm",
        project_cond_tokens=True, attn_kwargs={"qk_norm": "rms", "differential": True},
    )  # fmt: skip
    assert made.keys() == OWN_NAMES.keys()
    for name, model in made.items():
        assert recognise({key.removesuffix(".weight"): tuple(w.shape) for key, w in model.state_dict().items()}) is None
        assert {f"{path}.weight" for path in OWN_NAMES[name]} <= model.state_dict().keys()


@every_model
def test_every_weight_is_in_the_table(meta_model):
    name, model = meta_model
    family = ARCHITECTURES[FAMILIES[name]]
    shapes = matrices(model)
    paths = {key.removeprefix("diffusion_model.").removesuffix(".weight") for key in shapes}
    left = {path for path in paths if family.resolve(path, "comfyui", underscored=False) is None} - EMBEDDINGS
    beside = OURS_HAS_NOT.get(family.id, "(?!)")
    assert {path for path in left if not re.fullmatch(beside, f"diffusion_model.{path}")} == set()
    if name in OTHERS:
        assert weights(name) == shapes, "tests/golden/architectures.json has another model"


@every_model
def test_comfyui_knows_it_again_where_it_is_quantized(meta_model):
    """What is chosen are Linears, and by what is stored instead of them its detection still tells the same model."""
    import comfy.model_detection
    import torch

    built = meta_model[1].diffusion_model
    weights = dict(built.state_dict())
    model = Model.of({key: tuple(t.shape) for key, t in weights.items()})
    known = comfy.model_detection.detect_unet_config(weights, "")
    for name in ("int8_convrot", "fp8_scaled", "nvfp4"):
        if NEW_FORMS[name].packed and model.architecture is not None and model.architecture.id in UNPACKED:
            continue
        try:
            forms = choose(name, model, Quantization({}, {}, {}, {}, ())).forms
        except MergeError as error:
            # OmniGen2 has rows of 2520, and one model is not at its full size.
            assert "are no multiple of" in str(error) or model.architecture is None
            continue
        quantized = dict(weights)
        for key, form in forms.items():
            assert isinstance(built.get_submodule(key.removesuffix(".weight")), torch.nn.Linear)
            infos = form.found.infos.items()
            quantized |= {
                key.removesuffix("weight") + role: torch.empty(info.shape, device="meta") for role, info in infos
            }
        assert comfy.model_detection.detect_unet_config(quantized, "") == known


@every_model
def test_comfyuis_key_map_says_the_same(meta_model):
    import comfy.lora

    name, model = meta_model
    family = ARCHITECTURES[FAMILIES[name]]
    shapes = matrices(model)
    known, unknown = 0, set()
    for spelled, place in comfy.lora.model_lora_keys_unet(model, {}).items():
        key, rows, *turned = (place, None) if isinstance(place, str) else (*place, None)[:3]
        if key not in shapes or key.removeprefix("diffusion_model.").removesuffix(".weight") in EMBEDDINGS:
            continue
        prefix = next(p for p in UNDERSCORED + DOTTED if spelled.startswith(p))
        found = set(places(family, spelled[len(prefix) :], shapes, underscored=prefix in UNDERSCORED))
        if found:
            assert found == {(key, rows and (rows[1], rows[2]), any(turned))}, spelled
            known += 1
        else:
            unknown.add(spelled)
    assert known > len(shapes)
    allowed = OURS_HAS_NOT.get(family.id, "(?!)")
    assert {spelled for spelled in unknown if not re.fullmatch(allowed, spelled)} == set()
