"""How modules are spelled: the first part of a key, as one table."""

from __future__ import annotations

import dataclasses

__all__ = ["FORMATS", "UNKNOWN", "Format", "format_of"]

UNKNOWN = "unknown"
"""Stands for a format's id where no format spells a file's modules so."""


@dataclasses.dataclass(frozen=True)
class Format:
    """A trainer's way of writing a module's name."""

    id: str
    title: str
    module_prefix: str
    """What stands before the name of a module of the diffusion model."""
    other_prefixes: tuple[str, ...]
    """What stands before modules of its text encoders; these keep their whole name."""
    underscored: bool = False
    """Every `.` of the module path is written as `_`: the name is ambiguous without a table."""
    peft: bool = False
    """LoRA is spelled lora_A and lora_B, its alpha stands in the metadata (`lora_adapter_metadata`)."""

    def prefix(self, module_path: str) -> str:
        """What the keys of a module of the diffusion model begin with."""
        return self.module_prefix + (module_path.replace(".", "_") if self.underscored else module_path)


FORMATS: dict[str, Format] = {
    found.id: found
    for found in (
        Format("musubi", "Musubi Tuner / kohya (lora_unet_…)", "lora_unet_", ("lora_te",), underscored=True),
        Format("comfyui", "dotted (diffusion_model.…)", "diffusion_model.", ("text_encoders.",)),
        Format("diffusers", "diffusers (transformer.…)", "transformer.", ("text_encoder",), peft=True),
    )
}


def format_of(prefix: str) -> Format | None:
    """The format that spells a module as `prefix`, or None."""
    for candidate in FORMATS.values():
        if prefix.startswith((candidate.module_prefix, *candidate.other_prefixes)):
            return candidate
    return None
