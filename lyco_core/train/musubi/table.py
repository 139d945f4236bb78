"""Every option of Musubi Tuner's trainers that is none here, and what becomes of it.

The options that are the same here are in no row: `train/options.py` has them.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import re
from collections.abc import Iterable

from .scripts import WHOLE

__all__ = ["DEFAULTS", "DEV", "ROWS", "Fate", "Row", "Takes", "unknown"]


class Fate(enum.Enum):
    """What becomes of an option."""

    SAME = "as it is"
    MAPPED = "mapped to"
    NOTHING = "nothing to do here because"
    REFUSED = "refused because"


class Takes(enum.Enum):
    """What follows an option on the command line."""

    FLAG = enum.auto()
    ONE = enum.auto()
    MANY = enum.auto()
    FILE = enum.auto()
    """The name of a file or a folder."""
    FILES = enum.auto()


@dataclasses.dataclass(frozen=True)
class Row:
    """One option."""

    takes: Takes
    kinds: tuple[str, ...]
    """The scripts that have it, by `Script.kind`; `*`: all."""
    fate: Fate
    why: str
    """The name that it is mapped to, or the reason: what follows `fate.value`."""
    values: tuple[tuple[str, Fate, str], ...] = ()
    """(Regular expression that a whole value matches, fate, why) where that differs; the first one counts."""

    def of(self, value: object) -> tuple[Fate, str]:
        """What becomes of the option with a value."""
        for pattern, fate, why in self.values:
            if re.fullmatch(pattern, str(value), re.IGNORECASE):
                return fate, why
        return self.fate, self.why


DEFAULTS = {
    "learning_rate": "2e-06",
    "save_precision": "fp32",
    "gradient_checkpointing": "False",
    "mixed_precision": "no",
    "seed": "another one each time",
}
"""Option -> Musubi's default, where that of `lyco train` is another."""

FLAG, ONE, MANY, FILE, FILES = Takes
SAME, MAPPED, NOTHING, REFUSED = Fate

_ATTENTION = "ComfyUI chooses the kernel of its attention"
_PLAIN = (
    "blocks run as they are: torch.compile stops at each Linear, where an adapter hangs; what it compiles between them "
    "took some 5 % off a step on a CPU, and 12 s for the first"
)
_NO_LOADER = "encoded items are kept in memory, so nothing loads them meanwhile"
_TILES = "ComfyUI's VAE takes a video in tiles where memory does not suffice"
_TEXT_DTYPE = "ComfyUI keeps the text encoder in its file's precision and frees its memory before the training"
_EXCHANGED = "the processes of torchrun exchange gradients without DDP"
_SAMPLES = "samples are made by ComfyUI's own sampler"
_UPLOAD = "it belongs to huggingface_repo_id"
_HOW_SWAPPED = "blocks_to_swap has its own way of moving weights"
_IN_FILE = "the model's file tells it"
_FIRST = "a first frame is not trained on without the graph: train it there with the conditioning of its own workflow"
_EDITION = "it says how Qwen-Image reads control images"
_ONE_FRAME = "no node of ComfyUI's makes the conditioning of one frame among others, so nothing there samples with it"
_SELF = "it belongs to Self-Flow, which is not built here"
_DINO = "it belongs to a loss on DINO's features, which is not built here"
_NABLA = "it belongs to Kandinsky's sparse attention, which is not built here"
_SELF_FLOW = "self_flow"
_TYPE = "it says how large noise is, and where it is clipped"

_TABLE: tuple[tuple[str, Takes, str, Fate, str], ...] = (
    # names, what they take, kinds of scripts, what becomes of them, why
    ("sdpa flash_attn sage_attn xformers split_attn", FLAG, "*", NOTHING, _ATTENTION),
    ("flash3", FLAG, "*", NOTHING, _ATTENTION),
    ("compile compile_fullgraph dynamo_fullgraph dynamo_dynamic", FLAG, "*", NOTHING, _PLAIN),
    ("compile_backend compile_mode compile_dynamic compile_cache_size_limit", ONE, "*", NOTHING, _PLAIN),
    ("dynamo_backend dynamo_mode", ONE, "*", NOTHING, _PLAIN),
    ("cuda_allow_tf32", FLAG, "*", NOTHING, "float32 stays exact; mixed_precision bf16 is what is faster"),
    ("cuda_cudnn_benchmark", FLAG, "*", NOTHING, "ComfyUI's option fast decides on it"),
    ("max_data_loader_n_workers", ONE, "*", NOTHING, _NO_LOADER),
    ("persistent_data_loader_workers", FLAG, "*", NOTHING, _NO_LOADER),
    ("use_pinned_memory_for_block_swap block_swap_h2d_only", FLAG, "*", NOTHING, _HOW_SWAPPED),
    ("block_swap_ring_size", ONE, "*", NOTHING, _HOW_SWAPPED),
    ("block_swap_optimizer_patch_params", FLAG, "hidream_o1_whole zimage_whole", NOTHING, _HOW_SWAPPED),
    ("img_in_txt_in_offloading", FLAG, "*", NOTHING, _HOW_SWAPPED),
    ("disable_numpy_memmap", FLAG, "*", NOTHING, "ComfyUI's loader reads the file"),
    ("ddp_timeout", ONE, "*", NOTHING, _EXCHANGED),
    ("ddp_gradient_as_bucket_view ddp_static_graph", FLAG, "*", NOTHING, _EXCHANGED),
    ("log_config", FLAG, "*", NOTHING, "the file's metadata has the options"),
    ("dim_from_weights", FLAG, "*", NOTHING, "network_weights always takes the file's rank"),
    ("base_weights", FILES, "*", REFUSED, "load the adapter onto the model before it is trained, or merge it"),
    ("base_weights_multiplier", MANY, "*", NOTHING, "it belongs to base_weights"),
    ("metadata_reso", ONE, "*", REFUSED, "modelspec.resolution is the family's"),
    ("metadata_arch", ONE, "*", REFUSED, "modelspec.architecture tells loaders the family"),
    (
        "huggingface_repo_id",
        ONE,
        "*",
        REFUSED,
        "nothing is uploaded; do it when it is done: hf upload REPO FILE",
    ),
    ("huggingface_repo_type huggingface_path_in_repo huggingface_token", ONE, "*", NOTHING, _UPLOAD),
    ("huggingface_repo_visibility", ONE, "*", NOTHING, _UPLOAD),
    ("async_upload save_state_to_huggingface", FLAG, "*", NOTHING, _UPLOAD),
    ("resume_from_huggingface", FLAG, "*", REFUSED, "resume takes a file: load it down first"),
    ("vae_dtype", ONE, "*", NOTHING, "ComfyUI computes the VAE in the precision that it needs"),
    ("dit_dtype", ONE, "hv_1_5 hv_whole hv ideogram4", NOTHING, "mixed_precision says what the model computes in"),
    ("dit_in_channels", ONE, "hv hv_whole", NOTHING, _IN_FILE),
    ("t5", FILE, "wan", MAPPED, "text_encoder"),
    ("text_encoder1 text_encoder2", FILE, "flux_kontext fpack hv_whole hv", MAPPED, "text_encoder"),
    ("byt5", FILE, "hv_1_5", MAPPED, "text_encoder"),
    ("text_encoder_qwen text_encoder_clip", FILE, "kandinsky5", MAPPED, "text_encoder"),
    ("clip", FILE, "wan", MAPPED, "image_encoder"),
    ("text_encoder_dtype", ONE, "hv_whole hv", NOTHING, _TEXT_DTYPE),
    ("fp8_t5", FLAG, "flux_kontext wan", NOTHING, _TEXT_DTYPE),
    ("fp8_llm", FLAG, "fpack hv_whole hv zimage", NOTHING, _TEXT_DTYPE),
    ("fp8_vl", FLAG, "hv_1_5 qwen_image", NOTHING, _TEXT_DTYPE),
    ("fp8_text_encoder", FLAG, "flux_2", NOTHING, _TEXT_DTYPE),
    ("vae_tiling", FLAG, "fpack hv_whole hv", NOTHING, _TILES),
    ("vae_chunk_size vae_spatial_tile_sample_min_size", ONE, "fpack hv_whole hv", NOTHING, _TILES),
    ("vae_sample_size", ONE, "hv_1_5", NOTHING, _TILES),
    ("vae_enable_patch_conv", FLAG, "hv_1_5", NOTHING, _TILES),
    ("vae_cache_cpu", FLAG, "wan", NOTHING, _TILES),
    ("task", ONE, "hidream_o1 hv_1_5 kandinsky5 wan", NOTHING, _IN_FILE),
    ("model_version", ONE, "flux_2 qwen_image", NOTHING, _IN_FILE),
    ("edit edit_plus", FLAG, "qwen_image", SAME, _EDITION),
    ("num_layers", ONE, "qwen_image", NOTHING, _IN_FILE),
    ("remove_first_image_from_target", FLAG, "qwen_image", SAME, "it says what of a picture in layers is learned"),
    ("one_frame", FLAG, "fpack wan", REFUSED, _ONE_FRAME),
    ("force_v2_1_time_embedding", FLAG, "wan", NOTHING, "ComfyUI embeds one time for all of a video"),
    ("use_32bit_attention", FLAG, "zimage", REFUSED, "mixed_precision says in what; no: all in float32"),
    ("bulk_decode f1", FLAG, "fpack", NOTHING, _SAMPLES),
    ("latent_window_size", ONE, "fpack", NOTHING, _SAMPLES),
    ("turbo_dit", FILE, "krea2", NOTHING, _SAMPLES),
    ("turbo_dit_cache", FLAG, "krea2", NOTHING, _SAMPLES),
    ("unconditional_dit", FILE, "ideogram4", NOTHING, _SAMPLES),
    ("sampler_preset initial_sigma", ONE, "ideogram4", NOTHING, _SAMPLES),
    ("use_unconditional_dit_for_lora_sampling", FLAG, "ideogram4", NOTHING, _SAMPLES),
    ("validate_caption_structure warn_on_caption_issues", FLAG, "ideogram4", NOTHING, _SAMPLES),
    ("log_loss_stats", FLAG, "ideogram4", NOTHING, "losses are told after every step"),
    ("ideogram4_timestep_mu ideogram4_timestep_std", ONE, "ideogram4", NOTHING, "Musubi itself ignores it"),
    ("offload_dit_during_sampling", FLAG, "kandinsky5", NOTHING, _SAMPLES),
    ("scheduler_scale", ONE, "kandinsky5", NOTHING, _SAMPLES),
    ("override_dit", ONE, "kandinsky5", NOTHING, _IN_FILE),
    ("no_vae_load", FLAG, "kandinsky5", NOTHING, "the VAE is loaded only to encode what the cache lacks"),
    ("i2v_mode", ONE, "kandinsky5", REFUSED, _FIRST),
    ("force_nabla_attention nabla_add_sta no_nabla_add_sta", FLAG, "kandinsky5", REFUSED, _NABLA),
    ("nabla_P nabla_wT nabla_wH nabla_wW nabla_method", ONE, "kandinsky5", REFUSED, _NABLA),
    ("model_type", ONE, "hidream_o1", REFUSED, "the types are full and dev"),
    ("skip_t2i_visual_dummy", FLAG, "hidream_o1", NOTHING, "the visual encoder runs for control images alone"),
    ("dino_loss_weight dino_loss_backend dino_loss_model_type dino_loss_layer", ONE, "hidream_o1", REFUSED, _DINO),
    ("dino_loss_feature_mode dino_loss_resize dino_loss_every_n_steps", ONE, "hidream_o1", REFUSED, _DINO),
    ("dino_loss_use_gram dino_loss_no_norm", FLAG, "hidream_o1", REFUSED, _DINO),
    ("self_flow", FLAG, _SELF_FLOW, REFUSED, _SELF),
    ("self_flow_gamma self_flow_gamma_warmup_steps mask_ratio student_feature_layer", ONE, _SELF_FLOW, REFUSED, _SELF),
    ("teacher_feature_layer self_flow_teacher_coupling_prob", ONE, _SELF_FLOW, REFUSED, _SELF),
    ("self_flow_teacher_coupling_decay self_flow_teacher_coupling_decay_steps", ONE, _SELF_FLOW, REFUSED, _SELF),
    ("self_flow_teacher_mismatch_ratio", ONE, _SELF_FLOW, REFUSED, _SELF),
    ("network_weights_ema network_weights_proj", FILE, _SELF_FLOW, REFUSED, _SELF),
    ("full_bf16", FLAG, "hidream_o1_whole hv_whole qwen_image_whole zimage_whole", REFUSED, WHOLE),
    ("full_fp16", FLAG, "hv_whole", REFUSED, WHOLE),
    ("fused_backward_pass", FLAG, "hidream_o1_whole qwen_image_whole zimage_whole", REFUSED, WHOLE),
    ("mem_eff_save", FLAG, "hidream_o1_whole qwen_image_whole zimage_whole", NOTHING, "an adapter is small"),
    ("trainable_modules", MANY, "hv_whole", REFUSED, WHOLE),
)  # fmt: skip

_VALUES: dict[str, tuple[tuple[str, Fate, str], ...]] = {
    "task": (
        (r"k5-.*-i2v.*", REFUSED, _FIRST),
        (r"i2i", SAME, "what sees control images is trained too"),
    ),
    "model_type": ((r"full|dev", SAME, _TYPE),),
    "model_version": (
        (r"original|edit|edit-2509|edit-2511|layered", SAME, _EDITION),
        (r"edit.*", REFUSED, "the editions are edit, edit-2509 and edit-2511"),
    ),
}
"""Option -> the values of which something else becomes."""

DEV = {"noise_scale_start": 7.5, "noise_clip_std": 2.5}
"""What `model_type dev` stands for, where a command does not say it itself."""


def _rows() -> Iterable[tuple[str, Row]]:
    for names, takes, kinds, fate, why in _TABLE:
        for name in names.split():
            yield name, Row(takes, tuple(kinds.split()), fate, why, _VALUES.get(name, ()))


ROWS = dict(_rows())
"""Name, with underscores -> what becomes of the option."""


def unknown(name: str, known: Iterable[str]) -> str:
    """What is said of a name that is no option here; those that are near it in spelling are named."""
    if row := ROWS.get(name):
        what = f"; it is {row.why}" if row.fate is Fate.MAPPED else f": {row.why}"
        return f"{name} is an option of Musubi Tuner that is not supported here{what}"
    near = difflib.get_close_matches(name, [*known, *ROWS], 1, 0.75)
    return f"there is no option {name}" + (f"; do you mean {near[0]}?" if near else "; the help page lists them all")
