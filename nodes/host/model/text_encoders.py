"""Modules of text encoders by trainers' names that ComfyUI's own key map lacks."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ....lyco_core.formats.grammar import underscored

_PIPELINES = (
    ("clip_l", "clip_g"),
    ("clip_l", "t5xxl"),
    ("clip_l", "clip_g", "t5xxl"),
    ("clip_l", "clip_g", "t5xxl", "llama"),
    ("llama", "clip_l"),
    ("qwen25_7b", "clip_l"),
    ("qwen25_7b", "byt5_small"),
    ("hydit_clip", "mt5xl"),
)
"""ComfyUI's names of the encoders of a model, as diffusers' pipeline for it numbers them, and trainers after it."""

_HELD = ".transformer."
"""What ComfyUI has between an encoder's name and the names that its model has elsewhere."""

_INNER = ("model.", "bert.")
"""What such a name begins with where the whole model is saved, and not where what it holds is."""

_OTHERS = {"text_embedding_projection": "text_embedding_projection.aggregate_embed"}
"""ComfyUI's name of a module -> what its checkpoint calls it."""


def encoder_names(keys: Collection[str]) -> dict[str, str]:
    """What the keys of a module begin with in files of every trainer -> the weight; names that mean one alone.

    Args:
        keys: of the weights of all text encoders, as ComfyUI has them.
    """
    meant: dict[str, set[str]] = {}
    weights = [key for key in keys if key.endswith(".weight")]
    encoders = list(dict.fromkeys(key.partition(_HELD)[0] for key in weights if _HELD in key))
    numbered = next((names for names in _PIPELINES if set(names) == set(encoders)), ())
    for key in weights:
        module = key.removesuffix(".weight")
        for name in _names(module, numbered, alone=len(encoders) == 1):
            meant.setdefault(name, set()).add(key)
    return {name: next(iter(found)) for name, found in meant.items() if len(found) == 1}


def _names(module: str, numbered: tuple[str, ...], *, alone: bool) -> Iterator[str]:
    yield module
    if other := _OTHERS.get(module):
        yield other
    encoder, held, path = module.partition(_HELD)
    if not held:
        return
    number = 1 if alone else numbered.index(encoder) + 1 if encoder in numbered else 0
    short = next((path.removeprefix(inner) for inner in _INNER if path.startswith(inner)), path)
    for name in dict.fromkeys((path, short)):
        yield from (name, f"transformer.{name}", f"base_model.model.{name}", f"{encoder}.{name}")
        yield f"lora_{encoder}_{underscored(name)}"
        if number:
            yield f"text_encoder{f'_{number}' if number > 1 else ''}.{name}"
            yield f"lora_te{number}_{underscored(name)}"
        if alone:
            yield f"lora_te_{underscored(name)}"
