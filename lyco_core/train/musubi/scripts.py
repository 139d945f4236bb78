"""Musubi Tuner's scripts that train or cache, and what becomes of each."""

from __future__ import annotations

import dataclasses
import re

__all__ = ["SCRIPTS", "WHOLE", "Script", "script_named"]


@dataclasses.dataclass(frozen=True)
class Script:
    """A script of Musubi's."""

    kind: str
    """By which rows name it."""
    families: tuple[str, ...] = ()
    """Ids of the architectures that it trains."""
    refused: str = ""
    """Why it is refused, whatever it trains."""
    timestep_sampling: str = ""
    """Its own default of it; empty: that of all others."""


WHOLE = "it trains the whole model, and adapters are what is trained here"

_CACHING = re.compile(r"(\w+_)?cache_(latents|pixel|text_encoder_outputs)")

SCRIPTS = {
    "hv_train_network": Script("hv", ("hunyuan_video",)),
    "hv_1_5_train_network": Script("hv_1_5", ("hunyuan_video_1_5",)),
    "wan_train_network": Script("wan", ("wan",)),
    "flux_kontext_train_network": Script("flux_kontext", ("flux1",)),
    "flux_2_train_network": Script("flux_2", ("flux2",)),
    "qwen_image_train_network": Script("qwen_image", ("qwen_image",)),
    "zimage_train_network": Script("zimage", ("z_image",)),
    "kandinsky5_train_network": Script("kandinsky5", ("kandinsky5",)),
    "krea2_train_network": Script("krea2", ("krea2",)),
    "ideogram4_train_network": Script("ideogram4", ("ideogram4",), timestep_sampling="ideogram4_shift"),
    "hidream_o1_train_network": Script("hidream_o1", ("hidream_o1",)),
    "fpack_train_network": Script("fpack", ("framepack",), "ComfyUI has no FramePack model to train it with"),
    "flux_2_train_network_self_flow": Script("self_flow", ("flux2",), "Self-Flow is not built here"),
    "hv_train": Script("hv_whole", (), WHOLE),
    "qwen_image_train": Script("qwen_image_whole", (), WHOLE),
    "zimage_train": Script("zimage_whole", (), WHOLE),
    "hidream_o1_train": Script("hidream_o1_whole", (), WHOLE),
}
"""Name without `.py` -> script. Those of families that are not trained here are refused as such."""

_CACHED = "lyco train encodes and caches by itself: give its vae and text encoders to the training's command"


def script_named(name: str) -> Script | None:
    """The script of a name without `.py`, None if Musubi has none that trains or caches."""
    return Script("cache", (), _CACHED) if _CACHING.fullmatch(name) else SCRIPTS.get(name)
