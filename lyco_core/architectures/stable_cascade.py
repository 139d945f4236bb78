"""Stable Cascade's two models: the prior (stage C) that people train, and the decoder (stage B).

Down to the coarsest resolution and up again, each level repeats a residual block, one that reads the time, and, where
there is one, one that attends to the text. All are numbered in one row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from .table import Architecture, Group, renamed, same

__all__ = ["STABLE_CASCADE", "STABLE_CASCADE_B"]

_RESIDUAL = ("depthwise", "channelwise.0", "channelwise.4")
_ATTENTION = {f"attention.attn.to_{n}": f"attention.to_{n}" for n in "qkv"} | {
    "attention.attn.out_proj": "attention.to_out.0",
    "kv_mapper.1": "kv_mapper.1",
}


@dataclasses.dataclass(frozen=True)
class _Stage:
    """What tells one stage from the other."""

    down: tuple[int, ...]
    """How often each level repeats its blocks on the way down, from the full resolution on."""
    up: tuple[int, ...]
    """The same on the way up, from the coarsest on."""
    attends: tuple[bool, ...]
    """Whether a level attends to the text, from the full resolution on."""
    times: tuple[str, ...]
    """What reads the time in a block of it."""

    def names(self) -> Iterator[tuple[str, str]]:
        """(ComfyUI's name, diffusers') of every module of the blocks."""
        for way, repeats, attends in (("down", self.down, self.attends), ("up", self.up, self.attends[::-1])):
            for level, (count, attention) in enumerate(zip(repeats, attends, strict=True)):
                units = [dict(zip(_RESIDUAL, _RESIDUAL, strict=True)), dict(zip(self.times, self.times, strict=True))]
                units += [_ATTENTION] * attention
                for n in range(count * len(units)):
                    block = f"{way}_blocks.{level}.{n}"
                    yield from ((f"{block}.{a}", f"{block}.{b}") for a, b in units[n % len(units)].items())


def _groups(stage: _Stage, *ends: str) -> tuple[Group, ...]:
    """A group for each module of the blocks, and for `ends`."""
    return (*renamed(dict(stage.names())), *same(*ends))


STABLE_CASCADE = Architecture(
    id="stable_cascade",
    title="Stable Cascade",
    diffusers_prefix="unet.",
    groups=(
        *_groups(
            _Stage((8, 24), (24, 8), (True, True), ("mapper", "mapper_sca", "mapper_crp")),
            "embedding.1",
            "down_downscalers.1.1.blocks.0",
            "up_upscalers.0.1.blocks.1",
            "clf.1",
        ),
        *same("clip_txt_mapper", "clip_txt_pooled_mapper", inputs=(1280,)),
        *same("clip_img_mapper", inputs=(768,)),
    ),
    depths={},
)

STABLE_CASCADE_B = Architecture(
    id="stable_cascade_b",
    title="Stable Cascade's decoder",
    diffusers_prefix="unet.",
    groups=(
        *_groups(
            _Stage((2, 6, 28, 6), (6, 28, 6, 2), (False, False, True, True), ("mapper", "mapper_sca")),
            "embedding.1",
            *(f"{name}_mapper.{n}" for name in ("effnet", "pixels") for n in (0, 2)),
            *(f"down_downscalers.{n}.1" for n in (1, 2, 3)),
            *(f"up_upscalers.{n}.1" for n in (0, 1, 2)),
            *(f"up_repeat_mappers.{level}.{n}" for level, count in enumerate((2, 2, 1, 1)) for n in range(count)),
            "clf.1",
        ),
        *renamed({"clip_mapper": "clip_txt_pooled_mapper"}, inputs=(1280,)),
    ),
    depths={},
)
