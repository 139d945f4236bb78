# ruff: noqa: E501 - a table
"""Who writes what: the table behind docs/formats.md, each of whose cells tests/test_matrix.py loads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from lyco_core.architectures import ARCHITECTURES
from lyco_core.layouts import Layout

from .tables import TRAINED, loha, lokr, outline

__all__ = ["ALGORITHMS", "PAGE", "TRAINERS", "WITHOUT_TRAINER", "Trainer", "file_of", "page", "table"]

PAGE = Path(__file__).parents[3] / "docs" / "formats.md"

Tensors = dict[str, Tensor]


def _pair(up: str, down: str, alpha: bool = True) -> Callable[[str, int, int], Tensors]:
    def write(prefix: str, rows: int, columns: int) -> Tensors:
        made = {f"{prefix}{up}": outline(rows, 2), f"{prefix}{down}": outline(2, columns)}
        return made | ({f"{prefix}.alpha": torch.tensor(1.0)} if alpha else {})

    return write


def _with(suffix: str, *shape: int) -> Callable[[str, int, int], Tensors]:
    """One tensor beside others; -1 in its shape stands for the rows, -2 for the columns."""
    return lambda prefix, rows, columns: {
        f"{prefix}.{suffix}": outline(*({-1: rows, -2: columns}.get(n, n) for n in shape))
    }


def _all(*writers: Callable[[str, int, int], Tensors]) -> Callable[[str, int, int], Tensors]:
    return lambda *args: {key: tensor for write in writers for key, tensor in write(*args).items()}


def _glora(prefix: str, rows: int, columns: int) -> Tensors:
    shapes = {"a1": (columns, 2), "a2": (2, columns), "b1": (rows, 2), "b2": (2, columns)}
    return {f"{prefix}.{name}.weight": outline(*shape) for name, shape in shapes.items()}


def _ia3(prefix: str, rows: int, _: int) -> Tensors:
    return {f"{prefix}.weight": outline(rows), f"{prefix}.on_input": torch.tensor(0)}


def _without_alpha(write: Callable[..., Tensors]) -> Callable[[str, int, int], Tensors]:
    return lambda *args: {k: t for k, t in write(*args).items() if not k.endswith(".alpha")}


_KOHYA, _PEFT = _pair(".lora_up.weight", ".lora_down.weight"), _pair(".lora_B.weight", ".lora_A.weight", alpha=False)

ALGORITHMS: dict[str, Callable[[str, int, int], Tensors]] = {
    "LoRA": _KOHYA,
    "LoRA (A, B)": _PEFT,
    "LoRA (A, B, alpha)": _pair(".lora_B.weight", ".lora_A.weight"),
    "LoRA (A.default)": _pair(".lora_B.default.weight", ".lora_A.default.weight", alpha=False),
    "LoRA (_lora.down)": _pair("_lora.up.weight", "_lora.down.weight", alpha=False),
    "LoHa": loha,
    "LoKr": lokr,
    "LoHa without alpha": _without_alpha(loha),
    "LoKr without alpha": _without_alpha(lokr),
    "DoRA by outputs": _all(_KOHYA, _with("dora_scale", -1, 1)),
    "DoRA by inputs": _all(_KOHYA, _with("dora_scale", 1, -2)),
    "LoHa DoRA": _all(loha, _with("dora_scale", -1, 1)),
    "LoKr DoRA": _all(lokr, _with("dora_scale", -1, 1)),
    "DoRA (PEFT)": _all(_PEFT, _with("lora_magnitude_vector.weight", -1)),
    "DoRA (diffusers)": _all(_PEFT, _with("lora_magnitude_vector", -1)),
    "DoRA (magnitude)": _all(_PEFT, _with("magnitude", -1)),
    "GLoRA": _glora,
    "IA3": _ia3,
    "OFT": lambda prefix, rows, _: {f"{prefix}.oft_blocks": outline(rows // 4, 4, 4)},
    "OFTv2": lambda prefix, _, columns: {
        f"{prefix}.oft_R.weight": outline(columns // 2, 1),
        f"{prefix}.oft_R.scaled_oft": torch.tensor(True),
    },
    "BOFT": lambda prefix, rows, _: {f"{prefix}.oft_blocks": outline(1, rows // 4, 4, 4)},
    "full": _all(_with("diff", -1, -2), _with("diff_b", -1)),
}
"""What a file calls one module's tensors: (beginning of the keys, rows, columns) -> tensors."""

_LYCORIS = ("LoRA", "LoHa", "LoKr", "DoRA by outputs", "LoHa DoRA", "LoKr DoRA", "GLoRA", "IA3", "OFT", "BOFT", "full")


@dataclasses.dataclass(frozen=True)
class Trainer:
    """One writer of files."""

    title: str
    prefix: str
    layout: Layout
    underscored: bool
    algorithms: tuple[str, ...]
    architectures: tuple[str, ...]
    others: str
    """Why there is nothing for the other architectures."""


_MUSUBI = tuple(family for family, trained in TRAINED.items() if trained.by_musubi)
_UNETS = ("sd15", "sdxl")
_DIFFUSERS = tuple(
    a
    for a, family in ARCHITECTURES.items()
    if len(family.templates("diffusers")) >= 6 and a not in ("framepack", "ace_step")  # one is told as HunyuanVideo
)
_TRANSFORMERS = tuple(a for a in _DIFFUSERS if ARCHITECTURES[a].diffusers_prefix == "transformer.")
_ONETRAINER = (
    "flux1",
    "flux2",
    "sd3",
    "chroma",
    "hidream",
    "pixart",
    "qwen_image",
    "z_image",
    "hunyuan_video",
    "cosmos_predict2",
    "ernie_image",
    "ideogram4",
    "krea2",
)

TRAINERS = (
    Trainer("Musubi Tuner", "lora_unet_", "musubi", True, ("LoRA", "LoHa", "LoKr"), _MUSUBI, "Musubi does not train them, or line 2"),
    Trainer("Musubi Tuner (LoRA only)", "lora_unet_", "musubi", True, ("LoRA",), ("hidream_o1", "ideogram4", "kandinsky5", "krea2"), "line 1"),
    Trainer("Musubi Tuner's LTX-2 fork", "lora_unet_model_", "musubi", True, ("LoRA", "LoHa", "LoKr", "OFTv2"), ("ltx_2",), "line 1"),
    Trainer("the fork's converter (.comfy)", "diffusion_model.", "comfyui", False, ("LoRA (A, B)", "LoKr"), ("ltx_2",), "line 1"),
    Trainer(
        "kohya sd-scripts, LyCORIS in it", "lora_unet_", "musubi", True, (*_LYCORIS, "DoRA by inputs"),
        (*_UNETS, "sd3", "flux1", "chroma", "lumina2", "cosmos_predict2", "hunyuan_image"), "does not train it",
    ),
    Trainer("kohya sd-scripts, networks.oft", "oft_unet_", "musubi", True, ("OFT",), _UNETS, "has no OFT for it; FLUX.1's (oft_flux) has parts of fused weights: tests/formats/test_spellings.py"),
    Trainer(
        "LyCORIS, SimpleTuner's LyCORIS", "lycoris_", "diffusers", True, _LYCORIS,
        (
            *_UNETS, "sd3", "flux1", "flux2", "chroma", "hidream", "auraflow", "pixart", "ltx_video", "qwen_image", "z_image", "wan", "lumina2", "krea2",
            "ace_step", "cosmos_predict2", "ernie_image", "hunyuan_video_1_5", "kandinsky5", "longcat_image", "ltx_2", "minimax_h3", "minimax_music_3",
        ),
        "SimpleTuner does not train it, or by names of its own; PEFT's names are read the same way",
    ),
    Trainer(
        "SimpleTuner, lora_format: comfyui", "diffusion_model.", "diffusers", False, ("LoRA (A, B, alpha)",),
        ("sd3", "flux1", "chroma", "hidream", "auraflow", "ltx_video", "qwen_image", "z_image", "wan", "lumina2", "krea2", "cosmos_predict2", "hunyuan_video", "kandinsky5"),
        "does not train it, or under diffusers' or kohya's names",
    ),
    Trainer(
        "ai-toolkit", "diffusion_model.", "comfyui", False, ("LoRA (A, B)", "LoKr", "DoRA (magnitude)"),
        ("flux1", "flux2", "chroma", "hidream", "lumina2", "omnigen2", "qwen_image", "wan", "z_image", "cosmos_predict2", "ernie_image", "krea2", "ltx_2", "ideogram4", "mage_flow", "boogu", "hidream_o1"),
        "does not train it, or under kohya's names",
    ),
    Trainer(
        "OneTrainer, diffusers", "transformer.", "diffusers", False, ("LoRA (A, B)", "LoHa", "LoKr", "DoRA (PEFT)", "OFTv2"), _ONETRAINER,
        "does not train it; UNets are under `unet.`",
    ),
    Trainer(
        "OneTrainer, kohya", "lora_unet_", "comfyui", True, ("LoRA", "LoHa", "LoKr", "DoRA by inputs", "DoRA by outputs", "OFTv2"),
        _ONETRAINER, "does not train it; UNets are under sd-scripts' names",
    ),
    Trainer(
        "OneTrainer, legacy", "lora_transformer_", "diffusers", True,
        ("LoRA", "LoHa", "LoKr", "DoRA by inputs", "DoRA by outputs", "OFTv2"),
        ("flux1", "sd3", "chroma", "hidream", "pixart", "qwen_image", "z_image", "hunyuan_video"), "does not train it, or has no such output",
    ),
    Trainer(
        "OneTrainer, original", "", "comfyui", False, ("LoRA (A, B, alpha)", "LoHa", "LoKr", "OFTv2"),
        tuple(a for a in _ONETRAINER if a != "cosmos_predict2"), "does not train it; Anima is the next line",
    ),
    Trainer("OneTrainer, original (Anima)", "net.", "comfyui", False, ("LoRA (A, B, alpha)", "LoHa", "LoKr", "OFTv2"), ("cosmos_predict2",), "the line above"),
    Trainer(
        "OneTrainer, comfy", "diffusion_model.", "comfyui", False, ("LoRA (A, B, alpha)", "LoHa", "LoKr", "OFTv2"), _ONETRAINER, "does not train it",
    ),
    Trainer(
        "diffusion-pipe", "diffusion_model.", "comfyui", False, ("LoRA (A, B)",),
        ("flux2", "wan", "ltx_video", "ltx_2", "chroma", "hidream", "lumina2", "cosmos_predict2", "qwen_image", "z_image", "omnigen2", "ernie_image", "ideogram4", "krea2", "hunyuan_image", "hunyuan_video_1_5"),
        "does not train it, or under other names here",
    ),
    Trainer("diffusion-pipe (FLUX.1, SD3, AuraFlow)", "transformer.", "diffusers", False, ("LoRA (A, B)",), ("flux1", "sd3", "auraflow"), "as the line above"),
    Trainer("diffusion-pipe (HunyuanVideo)", "transformer.", "musubi", False, ("LoRA (A, B)",), ("hunyuan_video",), "as the line above"),
    Trainer("DiffSynth", "", "diffusers", False, ("LoRA (A.default)",), ("flux2", "qwen_image", "z_image"), "does not train it, or under other names: FLUX.1's are its own"),
    Trainer("DiffSynth (Wan)", "", "comfyui", False, ("LoRA (A.default)",), ("wan",), "the line above"),
    Trainer("HunyuanVideo-I2V's own", "Hunyuan_video_I2V_lora_", "musubi", True, ("LoRA",), ("hunyuan_video",), "does not train it"),
    Trainer(
        "PEFT", "base_model.model.", "diffusers", False, ("LoRA (A, B)", "DoRA (PEFT)", "LoHa without alpha", "LoKr without alpha"),
        _DIFFUSERS, "diffusers has no such model, or no table of ours its names",
    ),
    Trainer("diffusers, SimpleTuner (transformers)", "transformer.", "diffusers", False, ("LoRA (A, B)", "DoRA (diffusers)"), _TRANSFORMERS, "as in PEFT's line; UNets are the next one"),
    Trainer("diffusers, SimpleTuner (UNets)", "unet.", "diffusers", False, ("LoRA (A, B)", "DoRA (diffusers)", "LoRA (_lora.down)"), _UNETS, "the lines above"),
    Trainer(
        "ComfyUI (TrainLoraNode, extraction)", "diffusion_model.", "comfyui", False, ("LoRA", "LoHa", "LoKr", "OFT", "full"),
        tuple(a for a in ARCHITECTURES if a != "framepack"), "ComfyUI has no such model",
    ),
)  # fmt: skip

_ZOO = "an option of the trainer beside those above; every form of every algorithm is in lyco_testing/zoo.py"
_OLD = "another version's name of what a line above writes; tests/formats reads it"
WITHOUT_TRAINER = {
    **dict.fromkeys(("lora_mid.weight", "hada_t1", "hada_t2", "lokr_t2", "bm.weight"), f"of convolutions: {_ZOO}"),
    **dict.fromkeys(("lokr_w1_a", "lokr_w1_b", "lokr_w2", "rescale"), _ZOO),
    **dict.fromkeys((f"oft_blocks.{part}" for part in range(4)), "kohya's OFT for FLUX.1; test_dialects.py reads it"),
    **dict.fromkeys(
        ("glokr_w1", "glokr_w1_a", "glokr_w1_b", "glokr_w2", "glokr_w2_a", "glokr_w2_b", "bora_m_row", "bora_m_col"),
        "of one trainer of Anima; tests/formats/test_dialects.py reads it",
    ),
    **dict.fromkeys(("w_norm", "b_norm"), f"of norms, and the cells are of Linears: {_ZOO}"),
    "lora_B.bias": f"PEFT's lora_bias: {_ZOO}",
    **dict.fromkeys(
        ("diff_m", "diff_param"), "of parameters that are no module's; tests/formats/test_spellings.py reads it"
    ),
    **dict.fromkeys(("lora_A", "lora_B", "lora.down.weight", "lora.up.weight"), _OLD),
    **dict.fromkeys(("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"), _OLD),
}
"""Suffix -> why no line of `TRAINERS` writes it."""


def file_of(trainer: Trainer, algorithm: str, modules: dict[str, tuple[int, int]]) -> Tensors:
    """A file for modules, path in the trainer's layout -> (rows, columns)."""
    made: Tensors = {}
    for path, (rows, columns) in modules.items():
        name = path.replace(".", "_") if trainer.underscored else path
        made |= ALGORITHMS[algorithm](trainer.prefix + name, rows, columns)
    return made


def table() -> list[str]:
    """The table of docs/formats.md: a line an architecture, a column a trainer, in each cell its algorithms."""
    numbers = {trainer.title: n for n, trainer in enumerate(TRAINERS, 1)}
    lines = ["| | writes | modules are called | algorithms | for other architectures |", "|---|---|---|---|---|"]
    for trainer in TRAINERS:
        example = {True: "names with underscores", False: "names with dots"}[trainer.underscored]
        names = {"musubi": "its own or kohya's", "comfyui": "ComfyUI's", "diffusers": "diffusers'"}[trainer.layout]
        algorithms = ", ".join(trainer.algorithms)
        prefix = f"`{trainer.prefix}`" if trainer.prefix else "nothing"
        lines.append(
            f"| {numbers[trainer.title]} | {trainer.title} | {prefix}, then {names} {example} | {algorithms} | "
            f"{trainer.others} |"
        )
    lines += ["", f"| | {' | '.join(map(str, numbers.values()))} |", "|---" * (len(TRAINERS) + 1) + "|"]
    for id, architecture in ARCHITECTURES.items():
        cells = ["all" if id in trainer.architectures else "–" for trainer in TRAINERS]
        lines.append(f"| {architecture.title} | {' | '.join(cells)} |")
    return lines


def page(text: str) -> str:
    """docs/formats.md with this table."""
    before, rest = text.split("<!-- table: begin -->\n")
    after = rest.split("\n<!-- table: end -->")[1]
    return "\n".join((f"{before}<!-- table: begin -->", *table(), f"<!-- table: end -->{after}"))
