"""Every model family that is known here, most particular names first."""

from __future__ import annotations

from .flux import FLUX1, FLUX2
from .hunyuan_video import FRAMEPACK, HUNYUAN_VIDEO, HUNYUAN_VIDEO_1_5
from .kandinsky5 import KANDINSKY5
from .qwen_image import QWEN_IMAGE
from .table import Architecture
from .wan import WAN
from .z_image import Z_IMAGE

__all__ = ["ARCHITECTURES"]

ARCHITECTURES: dict[str, Architecture] = {
    architecture.id: architecture
    for architecture in (
        WAN,
        FLUX1,
        FLUX2,
        HUNYUAN_VIDEO,
        HUNYUAN_VIDEO_1_5,
        FRAMEPACK,
        QWEN_IMAGE,
        Z_IMAGE,
        KANDINSKY5,
    )
}
