"""Stable Diffusion's UNets. A block's place in it has two numbers, which LDM and diffusers count differently.

LDM (ComfyUI, and kohya's SDXL) counts every layer of the way down and of the way up; diffusers
(and kohya's Stable Diffusion 1.x/2.x) counts levels of resolution, and layers in each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from .table import Architecture, Group, group
from .training import ImageInput, MusubiNames, trained_here

_LAYERS = 2
"""Residual blocks of a level on the way down; on the way up there is one more."""

_RESNET = {"in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.3": "conv2"}
_SHORTCUT = {"skip_connection": "conv_shortcut"}
_TRANSFORMER = (
    ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    ("attn1.to_out.0",),
    ("attn2.to_q",),
    ("attn2.to_k", "attn2.to_v"),
    ("attn2.to_out.0",),
    ("ff.net.0.proj",),
    ("ff.net.2",),
)
"""A block's modules; what has as many rows as each other, and can be one module in diffusers, together."""
_PROJECTIONS = (("proj_in",), ("proj_out",))
_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.2": "conv_out",
}


@dataclasses.dataclass(frozen=True)
class _Level:
    """The blocks of one resolution."""

    channels: int
    depth: int
    """Blocks of each transformer; 0: the level has none."""


@dataclasses.dataclass(frozen=True)
class _UNet:
    """What tells one UNet from another."""

    levels: tuple[_Level, ...]
    """From the full resolution down. The middle is as the last that has transformers."""
    label: str
    """diffusers' name of what embeds a vector beside the time."""

    def names(self) -> Iterator[tuple[str, str]]:
        """(LDM's name, diffusers') of every module, or of several that are of one group."""
        yield from _ENDS.items()
        yield from ((f"label_emb.0.{2 * n}", f"{self.label}.linear_{n + 1}") for n in range(2))
        for number, level in enumerate(self.levels):
            yield from self._down(number, level)
        middle = next(level for level in reversed(self.levels) if level.depth)
        for n in range(2):
            yield from _resnet(f"middle_block.{2 * n}", f"mid_block.resnets.{n}", shortcut=False)
        yield from _transformer("middle_block.1", "mid_block.attentions.0", middle.depth)
        for number, level in enumerate(reversed(self.levels)):
            yield from self._up(number, level)

    def _down(self, number: int, level: _Level) -> Iterator[tuple[str, str]]:
        block = f"down_blocks.{number}"
        wider = number > 0 and level.channels != self.levels[number - 1].channels
        first = 1 + number * (_LAYERS + 1)
        for n in range(_LAYERS):
            yield from _resnet(f"input_blocks.{first + n}.0", f"{block}.resnets.{n}", shortcut=wider and n == 0)
            yield from _transformer(f"input_blocks.{first + n}.1", f"{block}.attentions.{n}", level.depth)
        if number < len(self.levels) - 1:
            yield f"input_blocks.{first + _LAYERS}.0.op", f"{block}.downsamplers.0.conv"

    def _up(self, number: int, level: _Level) -> Iterator[tuple[str, str]]:
        block = f"up_blocks.{number}"
        first = number * (_LAYERS + 1)
        for n in range(_LAYERS + 1):
            # What the way down has left is beside its input, so the input is always the wider.
            yield from _resnet(f"output_blocks.{first + n}.0", f"{block}.resnets.{n}", shortcut=True)
            yield from _transformer(f"output_blocks.{first + n}.1", f"{block}.attentions.{n}", level.depth)
        if number < len(self.levels) - 1:
            layer = 2 if level.depth else 1
            yield f"output_blocks.{first + _LAYERS}.{layer}.conv", f"{block}.upsamplers.0.conv"


_BLOCKS = "input_blocks.*.*.transformer_blocks middle_block.*.transformer_blocks output_blocks.*.*.transformer_blocks"
_TRAINED = (r".*\.(transformer_blocks\.\d+\..*|proj_in|proj_out)",)
"""kohya's default: all that a transformer holds; its convolutions are not trained here."""
_IMAGE = ImageInput(reads="input_blocks.0.0", writes="out.2")


def _resnet(ldm: str, diffusers: str, *, shortcut: bool) -> Iterator[tuple[str, str]]:
    names = _RESNET | _SHORTCUT if shortcut else _RESNET
    yield from ((f"{ldm}.{ours}", f"{diffusers}.{theirs}") for ours, theirs in names.items())


def _transformer(ldm: str, diffusers: str, depth: int) -> Iterator[tuple[str, str]]:
    inside = [[f"transformer_blocks.{n}.{name}" for name in names] for n in range(depth) for names in _TRANSFORMER]
    for names in (*_PROJECTIONS, *inside) if depth else ():
        yield " ".join(f"{ldm}.{name}" for name in names), " ".join(f"{diffusers}.{name}" for name in names)


def _groups(unet: _UNet, *, text: tuple[int, ...], kohya_has_ldm_names: bool) -> tuple[Group, ...]:
    """A group for each module of a UNet.

    Args:
        text: widths of the embeddings that the models of the family are given.
        kohya_has_ldm_names: whether kohya calls the modules as LDM does, or as diffusers.
    """
    return tuple(
        group(
            ldm if kohya_has_ldm_names else diffusers,
            ldm,
            diffusers,
            heights=(1,) * len(ldm.split()),
            inputs=text if ldm.endswith("attn2.to_v") else (),
        )
        for ldm, diffusers in unet.names()
    )


SD15 = Architecture(
    id="sd15",
    title="Stable Diffusion 1.x/2.x",
    diffusers_prefix="unet.",
    groups=_groups(
        _UNet((_Level(320, 1), _Level(640, 1), _Level(1280, 1), _Level(1280, 0)), label="class_embedding"),
        text=(768, 1024),
        kohya_has_ldm_names=False,
    ),
    depths={},
    training=trained_here(
        MusubiNames("sd_v1", "stable-diffusion-v1", "https://github.com/Stability-AI/generative-models"),
        _BLOCKS,
        "STABLE_DIFFUSION",
        outside=_TRAINED,
        image_input=_IMAGE,
        sampling="uniform",
        shift=1.0,
    ),
)

SDXL = Architecture(
    id="sdxl",
    title="SDXL",
    diffusers_prefix="unet.",
    groups=_groups(
        _UNet((_Level(320, 0), _Level(640, 2), _Level(1280, 10)), label="add_embedding"),
        text=(2048,),
        kohya_has_ldm_names=True,
    ),
    depths={},
    training=trained_here(
        MusubiNames(
            "sdxl_base_v1-0",
            "stable-diffusion-xl-v1-base",
            "https://github.com/Stability-AI/generative-models",
            "lora",
            (1024, 1024),
        ),
        _BLOCKS,
        "STABLE_DIFFUSION",
        outside=_TRAINED,
        image_input=_IMAGE,
        sampling="uniform",
        shift=1.0,
    ),
)

SDXL_REFINER = Architecture(
    id="sdxl_refiner",
    title="SDXL refiner",
    diffusers_prefix="unet.",
    groups=_groups(
        _UNet((_Level(384, 0), _Level(768, 4), _Level(1536, 4), _Level(1536, 0)), label="add_embedding"),
        text=(1280,),
        kohya_has_ldm_names=True,
    ),
    depths={},
)
