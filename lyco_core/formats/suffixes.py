"""How the tensors of an adapter are spelled: the last parts of a key, as one table."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = [
    "ALPHA",
    "BIAS_SUFFIX",
    "BIAS_SUFFIXES",
    "BORA",
    "COFT",
    "COFT_EPS",
    "DORA",
    "INITIAL_NORM",
    "LOKR_DIM",
    "MAGNITUDES",
    "NOTES",
    "NUMBERS",
    "ON_INPUT",
    "ON_OTHERS",
    "OTHER_SUFFIXES",
    "OWN_BIAS_SUFFIXES",
    "PARAMETER_SUFFIXES",
    "RSLORA_FLAG",
    "SCALED_OFT",
    "TENSOR_SUFFIXES",
    "is_known",
    "split_key",
    "suffix_of",
    "unread",
]

ALPHA = "alpha"
DORA = "dora"
"""Stands for an algorithm where a tensor belongs to a DoRA, which sits on the others of its module."""
BORA = "bora"
"""The same of a BoRA."""
ON_INPUT = "on_input"
"""LyCORIS's IA3: 1 if the factors are along the inputs."""

RSLORA_FLAG = "use_rslora_flag"
"""A whole key, of Blissful Tuner: 1 if the scale of a LoRA is alpha / sqrt(rank)."""

LOKR_DIM = "lokr_dim"
"""AkaneTendo25's fork of Musubi: what alpha is divided by where w1's rank is cut and w2 is whole."""

INITIAL_NORM = "initial_norm"
"""The same fork: the norms of the weight's rows before it was trained."""

SCALED_OFT, COFT, COFT_EPS = "oft_R.scaled_oft", "oft_coft_metadata", "coft_eps_metadata"

_NOTES_OF_OFT = (
    *(SCALED_OFT, "scaled_oft_metadata", COFT, COFT_EPS),
    *("oft_block_size_metadata", "oft_block_share_metadata"),
)

NOTES = frozenset({LOKR_DIM, INITIAL_NORM, *_NOTES_OF_OFT})
"""Suffixes of what stands beside a module's tensors and says how they are meant."""

NUMBERS = frozenset({ALPHA, ON_INPUT, RSLORA_FLAG, *NOTES} - {INITIAL_NORM})
"""Suffixes of single numbers that are read even where only shapes are asked for."""

_LORA = {"up": "lora_up.weight", "down": "lora_down.weight", "mid": "lora_mid.weight"}
_LORA_PEFT = {"up": "lora_B.weight", "down": "lora_A.weight"}
_LORA_OTHERS = {
    "up": ("lora_B", "lora.up.weight", "lora_linear_layer.up.weight", "_lora.up.weight"),
    "down": ("lora_A", "lora.down.weight", "lora_linear_layer.down.weight", "_lora.down.weight"),
}

_LOKR = ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b")

TENSOR_SUFFIXES: dict[str, tuple[str, str]] = {
    **{suffix: ("lora", field) for spelled in (_LORA, _LORA_PEFT) for field, suffix in spelled.items()},
    **{suffix: ("lora", field) for field, suffixes in _LORA_OTHERS.items() for suffix in suffixes},
    **{f"hada_{field}": ("loha", field) for field in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{f"glokr_{field}": ("lokr", field) for field in _LOKR},
    **{f"lokr_{field}": ("lokr", field) for field in (*_LOKR, "t2")},
    **{f"{field}.weight": ("glora", field) for field in ("a1", "a2", "b1", "b2", "bm")},
    "oft_blocks": ("oft", "blocks"),
    "rescale": ("oft", "rescale"),
    "oft_R.weight": ("oftv2", "vectors"),
    "bora_m_row": (BORA, "row"),
    "bora_m_col": (BORA, "column"),
    "diff": ("full", "diff"),
    "diff_param": ("full", "diff"),
    "w_norm": ("full", "diff"),
    "dora_scale": (DORA, "magnitude"),
    "lora_magnitude_vector": (DORA, "magnitude"),
    "lora_magnitude_vector.weight": (DORA, "magnitude"),
    "magnitude": (DORA, "magnitude"),
}
"""Suffix -> (algorithm id, field of the adapter class)."""

MAGNITUDES = frozenset(suffix for suffix, (algorithm, _) in TENSOR_SUFFIXES.items() if algorithm == DORA)
"""Suffixes of DoRA's magnitudes."""

ON_OTHERS = frozenset({*MAGNITUDES, "bora_m_row", "bora_m_col"})
"""Suffixes of what sits on the factors of another algorithm."""

BIAS_SUFFIX = "diff_b"
"""The suffix under which a difference of the module's bias is written."""

OWN_BIAS_SUFFIXES = frozenset({BIAS_SUFFIX, "b_norm"})
"""Suffixes of a difference of the module's bias."""

BIAS_SUFFIXES = OWN_BIAS_SUFFIXES | {"lora_B.bias"}
"""Suffixes of what changes the module's bias; PEFT's lora_B.bias is scaled as its LoRA is."""

PARAMETER_SUFFIXES = {"diff_m": ".modulation"}
"""Suffix of a difference of a parameter that is neither the module's weight nor its bias -> the parameter."""

_TLORA = (
    "T-LoRA",
    "its change is measured from singular vectors of the weight that it was trained on, and masked by the step; the "
    "file has neither, and no one weight is right for all steps",
)
_COMFYUI = ("ComfyUI's set_weight and reshape_weight", "only ComfyUI itself applies them")
_FASTVIDEO = ("FastVideo's set_param", "it is a parameter that the model does not have")

OTHER_SUFFIXES: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("q_layer.weight", "p_layer.weight", "lambda_layer"), _TLORA),
    **dict.fromkeys(("set_weight", "reshape_weight"), _COMFYUI),
    "set_param": _FASTVIDEO,
    "oft_R": ("the OFT of PEFT before 0.14", "PEFT itself no longer reads it; train it with a newer PEFT"),
    "ia3_l": ("PEFT's IA3", "it scales the module's bias too, and the file does not say whether there was one"),
}
"""Suffixes of algorithms that are known but not read here -> (which, why not): a module with one is not what it seems
without."""

_CHOSEN = {
    **{("lora", field): suffix for field, suffix in _LORA.items()},
    **{("lokr", field): f"lokr_{field}" for field in _LOKR},
    ("oftv2", "scaled"): SCALED_OFT,
    ("oftv2", "magnitude"): "dora_scale",
    ("oftv2", "initial_norm"): INITIAL_NORM,
    ("full", "diff"): "diff",
    ("dora", "magnitude"): "dora_scale",
    ("boft", "blocks"): "oft_blocks",
    ("boft", "rescale"): "rescale",
    ("ia3", "weight"): "weight",
    ("ia3", ON_INPUT): ON_INPUT,
}
_WRITTEN = {name: suffix for suffix, name in TENSOR_SUFFIXES.items()} | _CHOSEN
_WRITTEN_PEFT = _WRITTEN | {("lora", field): suffix for field, suffix in _LORA_PEFT.items()}
_WRITTEN_PEFT[("dora", "magnitude")] = "lora_magnitude_vector"

_KNOWN = frozenset({*TENSOR_SUFFIXES, *BIAS_SUFFIXES, *PARAMETER_SUFFIXES, *OTHER_SUFFIXES, *NUMBERS, *NOTES})
_JOINED = tuple(suffix for suffix in TENSOR_SUFFIXES if suffix.startswith("_"))

_NAMED = {
    "lora_A": ("weight",),
    "lora_B": ("weight", "bias"),
    "lora_magnitude_vector": ("weight",),
    "oft_R": ("weight",),
}
"""First part of PEFT's suffixes -> the last: between them stands the adapter's name where PEFT itself does not save."""

_DEFAULT = re.compile(r"default(_\d+)?")
"""PEFT's own names of an adapter, which alone are known for one where they end a key."""


def suffix_of(algorithm: str, field: str, *, peft: bool) -> str:
    """The suffix that writes an adapter's field; `peft`: as PEFT spells LoRA and DoRA."""
    return ALPHA if field == ALPHA else (_WRITTEN_PEFT if peft else _WRITTEN)[algorithm, field]


def is_known(suffix: str) -> bool:
    """Whether it is a suffix of an adapter's tensors, read here or not."""
    return suffix in _KNOWN


def unread(keys: Iterable[str]) -> list[str]:
    """`T-LoRA (why it is not read)` and the like, of each algorithm among keys that belong to no adapter."""
    found = dict.fromkeys(OTHER_SUFFIXES[s] for s in (split_key(key)[1] for key in keys) if s in OTHER_SUFFIXES)
    return [f"{what} ({why})" for what, why in found]


def split_key(key: str) -> tuple[str, str]:
    """(what the module is called, suffix): the longest suffix that the tables know, else the last part.

    A suffix is the same whatever PEFT calls the adapter: `lora_A.default_0.weight` is `lora_A.weight`.
    """
    for joined in _JOINED:  # old diffusers: to_q_lora.down.weight
        if key.endswith(joined) and not key.endswith("." + joined):
            module = key.removesuffix(joined).replace(".processor.", ".")
            return module + ".0" * module.endswith(".to_out"), joined
    parts = key.split(".")
    for size in (3, 2):
        if (suffix := ".".join(parts[-size:])) in _KNOWN and len(parts) > size:
            return ".".join(parts[:-size]), suffix
    return _without_adapters_name(parts) or (key.rpartition(".")[0], parts[-1])


def _without_adapters_name(parts: list[str]) -> tuple[str, str] | None:
    """(module, suffix) of a key of PEFT's that has an adapter's name in it; None for any other."""
    head = next((at for at, part in enumerate(parts) if at and part in _NAMED), 0)
    if head and len(parts) > head + 2 and parts[-1] in _NAMED[parts[head]]:
        return ".".join(parts[:head]), f"{parts[head]}.{parts[-1]}"
    if len(parts) > 2 and parts[-2] in TENSOR_SUFFIXES and _DEFAULT.fullmatch(parts[-1]):
        return ".".join(parts[:-2]), parts[-2]
    return None
