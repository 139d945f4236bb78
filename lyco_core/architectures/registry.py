"""Every model family that is known here. Of two that fit a file equally well, the first gives it its name."""

from __future__ import annotations

from collections.abc import Iterable

from .ace_step import ACE_STEP, ACE_STEP_1_5
from .auraflow import AURAFLOW
from .boogu import BOOGU
from .chroma import CHROMA
from .cogvideox import COGVIDEOX
from .cosmos import COSMOS_1
from .cosmos_predict2 import COSMOS_PREDICT2
from .ernie_image import ERNIE_IMAGE
from .flux import FLUX1, FLUX2
from .flux3 import FLUX3
from .hidream import HIDREAM
from .hidream_o1 import HIDREAM_O1
from .hunyuan_dit import HUNYUAN_DIT
from .hunyuan_video import FRAMEPACK, HUNYUAN_IMAGE, HUNYUAN_VIDEO, HUNYUAN_VIDEO_1_5
from .ideogram4 import IDEOGRAM4
from .joyimage import JOYIMAGE
from .kandinsky5 import KANDINSKY5
from .krea2 import KREA2
from .lens import LENS
from .longcat_image import LONGCAT_IMAGE
from .ltx_video import LTX_2, LTX_VIDEO
from .lumina2 import LUMINA2
from .mage_flow import MAGE_FLOW
from .minimax import MINIMAX_H3, MINIMAX_MUSIC_3
from .mochi import MOCHI
from .omnigen2 import OMNIGEN2
from .pixart import PIXART
from .qwen_image import QWEN_IMAGE
from .qwen_image_2_1 import QWEN_IMAGE_2_1
from .sd3 import SD3
from .stable_cascade import STABLE_CASCADE, STABLE_CASCADE_B
from .table import Architecture
from .unet import SD15, SDXL, SDXL_REFINER
from .wan import WAN
from .z_image import Z_IMAGE

__all__ = ["ARCHITECTURES", "by_id", "index_families"]


def by_id(architectures: Iterable[Architecture]) -> dict[str, Architecture]:
    """Id -> architecture. Raises `ValueError` for an id that two of them have: one would hide the other."""
    found: dict[str, Architecture] = {}
    for architecture in architectures:
        other = found.setdefault(architecture.id, architecture)
        if other is not architecture:
            raise ValueError(f"{other.title} and {architecture.title} are both {architecture.id!r}")
    return found


ARCHITECTURES: dict[str, Architecture] = by_id(
    (
        WAN,
        FLUX1,
        FLUX2,
        HUNYUAN_VIDEO,
        HUNYUAN_VIDEO_1_5,
        FRAMEPACK,
        QWEN_IMAGE,
        Z_IMAGE,
        KANDINSKY5,
        SDXL,
        SD15,
        SD3,
        CHROMA,
        HIDREAM,
        LTX_VIDEO,
        LTX_2,
        LUMINA2,
        KREA2,
        AURAFLOW,
        PIXART,
        HUNYUAN_DIT,
        OMNIGEN2,
        ACE_STEP,
        ACE_STEP_1_5,
        COSMOS_PREDICT2,
        ERNIE_IMAGE,
        MINIMAX_H3,
        MINIMAX_MUSIC_3,
        MOCHI,
        COGVIDEOX,
        COSMOS_1,
        FLUX3,
        HUNYUAN_IMAGE,
        LONGCAT_IMAGE,
        IDEOGRAM4,
        HIDREAM_O1,
        MAGE_FLOW,
        QWEN_IMAGE_2_1,
        LENS,
        JOYIMAGE,
        BOOGU,
        STABLE_CASCADE,
        STABLE_CASCADE_B,
        SDXL_REFINER,
    )
)


def index_families() -> None:
    """Make the indexes by which names are looked up, which are else made for the first file that is told."""
    for family in ARCHITECTURES.values():
        for underscored in (True, False):
            family.spellings("comfyui", underscored=underscored)
