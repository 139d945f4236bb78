"""How the tensors of an adapter are spelled: the last parts of a key, as one table."""

from __future__ import annotations

__all__ = ["ALPHA", "OTHER_SUFFIXES", "TENSOR_SUFFIXES", "split_key", "suffix_of"]

ALPHA = "alpha"

TENSOR_SUFFIXES: dict[str, tuple[str, str]] = {
    "lora_up.weight": ("lora", "up"),
    "lora_down.weight": ("lora", "down"),
    "lora_mid.weight": ("lora", "mid"),
    "lora_B.weight": ("lora", "up"),
    "lora_A.weight": ("lora", "down"),
    "hada_w1_a": ("loha", "w1_a"),
    "hada_w1_b": ("loha", "w1_b"),
    "hada_w2_a": ("loha", "w2_a"),
    "hada_w2_b": ("loha", "w2_b"),
    "hada_t1": ("loha", "t1"),
    "hada_t2": ("loha", "t2"),
    "lokr_w1": ("lokr", "w1"),
    "lokr_w1_a": ("lokr", "w1_a"),
    "lokr_w1_b": ("lokr", "w1_b"),
    "lokr_w2": ("lokr", "w2"),
    "lokr_w2_a": ("lokr", "w2_a"),
    "lokr_w2_b": ("lokr", "w2_b"),
    "lokr_t2": ("lokr", "t2"),
}
"""Suffix -> (algorithm id, field of the adapter class)."""


_SPELLED = {
    peft: {
        name: suffix
        for suffix, name in TENSOR_SUFFIXES.items()
        if name[0] != "lora" or name[1] == "mid" or suffix.startswith(("lora_A", "lora_B")) == peft
    }
    for peft in (False, True)
}


def suffix_of(algorithm: str, field: str, *, peft: bool) -> str:
    """The suffix that writes an adapter's field; `peft`: lora_A and lora_B instead of down and up."""
    return ALPHA if field == ALPHA else _SPELLED[peft][algorithm, field]


OTHER_SUFFIXES = frozenset(
    {
        "dora_scale",
        "lora_magnitude_vector.weight",
        "lora_magnitude_vector",
        "magnitude",
        "lora_B.bias",
        "diff",
        "diff_b",
        "set_weight",
        "reshape_weight",
        "w_norm",
        "b_norm",
        "oft_blocks",
        "oft_diag",
        "rescale",
        "on_input",
        *(f"{x}{n}.weight" for x in "ab" for n in (1, 2)),
    }
)
"""Suffixes of algorithms that are known but not read here: a module with one is not what it seems without."""


def split_key(key: str) -> tuple[str, str]:
    """(what the module is called, suffix): the longest suffix that the tables know, else the last part."""
    prefix, _, last = key.rpartition(".")
    before, _, two = prefix.rpartition(".")
    if f"{two}.{last}" in TENSOR_SUFFIXES or f"{two}.{last}" in OTHER_SUFFIXES:
        return before, f"{two}.{last}"
    return prefix, last
