"""How modules are spelled: the first part of a key, as one table."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

__all__ = ["FORMATS", "WRAPPERS", "Format", "format_of", "is_text_encoders", "underscored", "unwrapped"]


def underscored(name: str) -> str:
    """A name with every dot as an underscore: one for all spellings of it that mix the two."""
    return name.replace(".", "_")


WRAPPERS = (
    "model.",
    "net.",
    "module.",
    "_orig_mod.",
    "pipe.",
    "dit.",
    "video_dit.",
    "diffusion_model.",
)
"""What may stand before every name of a model, after a format's prefix: the attribute by which a trainer's wrapper, a
pipeline or the original checkpoint holds the model. A model's own modules may begin so too, so it is taken off only
where a family, or the model, has what follows and not the whole."""

_WRAPPERS = (*WRAPPERS, *map(underscored, WRAPPERS))

TEXT_ENCODERS = (
    "lora_te",
    "lora_prior_te",
    "lora_clip_",
    "lora_t5",
    "oft_te",
    "text_encoder",
    "text_model.",
    "text_model_",
    "clip_l.",
    "clip_g.",
    "clip_h.",
    "t5.",
    "t5xxl.",
    "mt5.",
    "hydit_clip.",
    "cond_stage_model.",
    "conditioner.embedders.",
    "text_embedding_projection.",
)
"""What the name of a text encoder's module begins with in any spelling, after a format's prefix or as a whole."""


@dataclasses.dataclass(frozen=True)
class Format:
    """A trainer's way of writing a module's name."""

    id: str
    title: str
    module_prefixes: tuple[str, ...]
    """What stands before the name of a module of the diffusion model; the first one is written."""
    other_prefixes: tuple[str, ...] = ()
    """What else its keys begin with: modules of text encoders, which keep their whole name."""
    underscored: bool = False
    """Every `.` of the module path is written as `_`: the name is ambiguous without a table."""
    peft: bool = False
    """LoRA is spelled lora_A and lora_B, its alpha stands in the metadata or in adapter_config.json."""

    def prefix(self, module_path: str) -> str:
        """What the keys of a module of the diffusion model begin with."""
        return self.module_prefixes[0] + (underscored(module_path) if self.underscored else module_path)

    def module(self, prefix: str) -> str:
        """What a module is called whose keys begin with `prefix`; some files mix dots into underscored names."""
        if is_text_encoders(prefix):
            return prefix
        name = self._name(prefix)
        return underscored(name) if self.underscored else name

    def _name(self, prefix: str) -> str:
        """What follows the format's prefix, which is the longest that fits."""
        start = next((p for p in _longest_first(self.module_prefixes) if prefix.startswith(p)), "")
        return prefix.removeprefix(start)


def _longest_first(prefixes: tuple[str, ...]) -> list[str]:
    return sorted(prefixes, key=len, reverse=True)


FORMATS: dict[str, Format] = {
    found.id: found
    for found in (
        Format(
            "musubi",
            "Musubi Tuner / kohya (lora_unet_…)",
            ("lora_unet_", "lora_unet__", "lora_prior_unet_", "oft_unet_", "Hunyuan_video_I2V_lora_"),
            ("lora_te", "lora_prior_te", "oft_te", "lora_clip_", "lora_t5"),
            underscored=True,
        ),
        Format("onetrainer", "OneTrainer (lora_transformer_…)", ("lora_transformer_",), underscored=True),
        Format("lycoris", "LyCORIS library, SimpleTuner (lycoris_…)", ("lycoris_",), underscored=True),
        Format("comfyui", "dotted (diffusion_model.…)", ("diffusion_model.",), ("text_encoders.",)),
        Format(
            "peft",
            "PEFT (base_model.model.…)",
            ("base_model.model.", "transformer.base_model.model.", "unet.base_model.model."),
            peft=True,
        ),
        Format(
            "diffusers", "diffusers (transformer.… or unet.…)", ("transformer.", "unet."), ("text_encoder",), peft=True
        ),
        Format("bare", "bare module names (DiffSynth and others)", ("",), peft=True),
    )
}
"""Id -> format, those of the most particular prefixes first."""


@functools.lru_cache(maxsize=2**14)
def format_of(prefix: str) -> Format | None:
    """The format that spells a module as `prefix`, or None: a bare name is one only if it has a dot."""
    for candidate in FORMATS.values():
        if prefix.startswith((*candidate.module_prefixes, *candidate.other_prefixes)):
            return candidate if candidate.id != "bare" or "." in prefix else None
    return None


def unwrapped(name: str) -> Iterator[str]:
    """What is left of a module's name as each of the `WRAPPERS` before it is taken off in turn; nothing if none is."""
    while name.startswith(_WRAPPERS):
        name = name.removeprefix(next(wrapper for wrapper in _WRAPPERS if name.startswith(wrapper)))
        if not name:
            return
        yield name


@functools.lru_cache(maxsize=2**14)
def is_text_encoders(prefix: str) -> bool:
    """Whether the keys of a module that begin with `prefix` are of a text encoder."""
    found = format_of(prefix)
    names = [prefix] if found is None else [prefix, found._name(prefix)]  # pyright: ignore[reportPrivateUsage]
    return any(form.startswith(TEXT_ENCODERS) for name in names for form in (name, *unwrapped(name)))
