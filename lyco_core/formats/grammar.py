"""How modules are spelled: the first part of a key, as one table."""

from __future__ import annotations

import dataclasses

__all__ = ["FORMATS", "Format", "format_of", "underscored"]


def underscored(name: str) -> str:
    """A name with every dot as an underscore: one for all spellings of it that mix the two."""
    return name.replace(".", "_")


@dataclasses.dataclass(frozen=True)
class Format:
    """A trainer's way of writing a module's name."""

    id: str
    title: str
    module_prefixes: tuple[str, ...]
    """What stands before the name of a module of the diffusion model; the first one is written."""
    other_prefixes: tuple[str, ...] = ()
    """What stands before modules of its text encoders; these keep their whole name."""
    underscored: bool = False
    """Every `.` of the module path is written as `_`: the name is ambiguous without a table."""
    peft: bool = False
    """LoRA is spelled lora_A and lora_B, its alpha stands in the metadata or in adapter_config.json."""

    def prefix(self, module_path: str) -> str:
        """What the keys of a module of the diffusion model begin with."""
        return self.module_prefixes[0] + (underscored(module_path) if self.underscored else module_path)

    def module(self, prefix: str) -> str:
        """What a module is called whose keys begin with `prefix`; some files mix dots into underscored names."""
        if prefix.startswith(self.other_prefixes):
            return prefix
        start = next(p for p in _longest_first(self.module_prefixes) if prefix.startswith(p))
        name = prefix.removeprefix(start)
        return underscored(name) if self.underscored else name


def _longest_first(prefixes: tuple[str, ...]) -> list[str]:
    return sorted(prefixes, key=len, reverse=True)


FORMATS: dict[str, Format] = {
    found.id: found
    for found in (
        Format(
            "musubi",
            "Musubi Tuner / kohya (lora_unet_…)",
            ("lora_unet_", "lora_unet__", "lora_prior_unet_"),
            ("lora_te", "lora_prior_te"),
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


def format_of(prefix: str) -> Format | None:
    """The format that spells a module as `prefix`, or None: a bare name is one only if it has a dot."""
    for candidate in FORMATS.values():
        if prefix.startswith((*candidate.module_prefixes, *candidate.other_prefixes)):
            return candidate if candidate.id != "bare" or "." in prefix else None
    return None
