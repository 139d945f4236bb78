"""Full-size module tables (`tests/golden/architectures.json`), and outlines of files for them."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lyco_core.architectures import ARCHITECTURES

GOLDEN = Path(__file__).parents[2] / "golden"
_TABLES: dict[str, dict[str, dict[str, tuple[int, tuple[int, ...]]]]] = json.loads(
    (GOLDEN / "architectures.json").read_text()
)
_NUMBER = re.compile(r"\{(\d*)n(?:\+(\d+))?\}")
"""`{n}` for the first, second, … of a module's blocks, `{3n+2}` where they are every third from the third on."""

ARCHITECTURE_OF = {
    "flux1_kontext": "flux1",
    "flux2_dev": "flux2",
    "flux2_klein_4b": "flux2",
    "flux2_klein_9b": "flux2",
    "framepack": "framepack",
    "hunyuan_video": "hunyuan_video",
    "hunyuan_video_1_5": "hunyuan_video_1_5",
    "qwen_image": "qwen_image",
    "wan21_i2v_14b": "wan",
    "wan21_t2v_14b": "wan",
    "wan21_t2v_1_3b": "wan",
    "z_image": "z_image",
}
MODELS = list(ARCHITECTURE_OF)
"""Those that Musubi trains, whose file names are Musubi's."""

TRAINED = {family.id: family.training for family in ARCHITECTURES.values() if family.training}
"""Architecture -> how it is trained."""

OTHERS = {
    "ace_step": "ace_step",
    "ace_step_1_5": "ace_step_1_5",
    "ace_step_1_5_xl": "ace_step_1_5",
    "anima": "cosmos_predict2",
    "auraflow": "auraflow",
    "boogu": "boogu",
    "chroma": "chroma",
    "chroma_radiance": "chroma",
    "cogvideox_1_5": "cogvideox",
    "cogvideox_5b": "cogvideox",
    "cosmos_1_7b": "cosmos_1",
    "cosmos_predict2_14b": "cosmos_predict2",
    "ernie_image": "ernie_image",
    "flux3": "flux3",
    "hidream": "hidream",
    "hidream_o1": "hidream_o1",
    "hunyuan_dit": "hunyuan_dit",
    "hunyuan_image": "hunyuan_image",
    "ideogram4": "ideogram4",
    "joyimage": "joyimage",
    "kandinsky5_image": "kandinsky5",
    "kandinsky5_lite": "kandinsky5",
    "kandinsky5_pro": "kandinsky5",
    "krea2": "krea2",
    "lens": "lens",
    "longcat_image": "longcat_image",
    "ltx_2": "ltx_2",
    "ltx_2_3": "ltx_2",
    "ltx_video_13b": "ltx_video",
    "ltx_video_2b": "ltx_video",
    "lumina2": "lumina2",
    "mage_flow": "mage_flow",
    "minimax_h3": "minimax_h3",
    "minimax_music_3": "minimax_music_3",
    "mochi": "mochi",
    "omnigen2": "omnigen2",
    "pixart_alpha": "pixart",
    "qwen_image_2_1": "qwen_image_2_1",
    "sd15": "sd15",
    "sd35_large": "sd3",
    "sd35_medium": "sd3",
    "sdxl": "sdxl",
    "sdxl_refiner": "sdxl_refiner",
    "stable_cascade": "stable_cascade",
    "stable_cascade_b": "stable_cascade_b",
    "wan_animate": "wan",
    "wan_camera": "wan",
    "wan_dancer": "wan",
    "wan_humo": "wan",
    "wan_s2v": "wan",
    "wan_scail_2": "wan",
    "wan_vace": "wan",
}
"""Models of which only ComfyUI's weights are recorded -> architecture."""


def targets(model: str) -> dict[str, tuple[int, int]]:
    """Module path -> (out, in) of what Musubi trains by default."""
    return {path: (shape[0], shape[1]) for path, shape in _expand(_TABLES[model]["musubi"]).items()}


def weights(model: str) -> dict[str, tuple[int, ...]]:
    """Key -> shape of ComfyUI's weights; FramePack's are HunyuanVideo's."""
    table = _TABLES[model if _TABLES[model]["comfyui"] else "hunyuan_video"]["comfyui"]
    return {f"diffusion_model.{path}.weight": shape for path, shape in _expand(table).items()}


def _expand(table: Mapping[str, tuple[int, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    return {
        _NUMBER.sub(lambda found, n=n: str(int(found[1] or 1) * n + int(found[2] or 0)), template): tuple(shape)
        for template, (count, shape) in table.items()
        for n in range(count)
    }


Empty = Callable[..., Tensor]


def outline(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def random(*shape: int) -> Tensor:
    return torch.randn(shape)


def lokr(prefix: str, rows: int, columns: int, tensor: Empty = outline) -> dict[str, Tensor]:
    """A LoKr's tensors as Musubi writes them for factor 4 (2 or 1 where 4 does not divide), rank 2."""
    out_l, in_m = (next(factor for factor in (4, 2, 1) if n % factor == 0) for n in (rows, columns))
    return {
        f"{prefix}.lokr_w1": tensor(out_l, in_m),
        f"{prefix}.lokr_w2_a": tensor(rows // out_l, 2),
        f"{prefix}.lokr_w2_b": tensor(2, columns // in_m),
        f"{prefix}.alpha": torch.tensor(1.0),
    }


def loha(prefix: str, rows: int, columns: int, tensor: Empty = outline) -> dict[str, Tensor]:
    factors = {f"hada_{w}_{x}": (rows, 2) if x == "a" else (2, columns) for w in ("w1", "w2") for x in "ab"}
    made = {f"{prefix}.{name}": tensor(*shape) for name, shape in factors.items()}
    return made | {f"{prefix}.alpha": torch.tensor(1.0)}


def lora(prefix: str, rows: int, columns: int, tensor: Empty = outline) -> dict[str, Tensor]:
    return {
        f"{prefix}.lora_up.weight": tensor(rows, 2),
        f"{prefix}.lora_down.weight": tensor(2, columns),
        f"{prefix}.alpha": torch.tensor(1.0),
    }


WRITERS = {"lokr": lokr, "loha": loha, "lora": lora}


def musubi_file(
    modules: Mapping[str, tuple[int, int]], algorithm: str = "lokr", tensor: Empty = outline
) -> dict[str, Tensor]:
    """What Musubi saves for these modules: `lora_unet_`, every dot an underscore."""
    made: dict[str, Tensor] = {}
    for path, (rows, columns) in modules.items():
        made |= WRITERS[algorithm]("lora_unet_" + path.replace(".", "_"), rows, columns, tensor)
    return made


def dotted_file(
    modules: Mapping[str, tuple[int, int]], algorithm: str = "lokr", tensor: Empty = outline
) -> dict[str, Tensor]:
    """The same under `diffusion_model.` with its dots."""
    made: dict[str, Tensor] = {}
    for path, (rows, columns) in modules.items():
        made |= WRITERS[algorithm](f"diffusion_model.{path}", rows, columns, tensor)
    return made


def peft_file(modules: Mapping[str, tuple[int, int]], algorithm: str = "lokr") -> dict[str, Tensor]:
    """The same under diffusers' `transformer.`."""
    return {key.replace("diffusion_model.", "transformer.", 1): t for key, t in dotted_file(modules, algorithm).items()}
