"""How the tensors of an adapter are spelled: the last parts of a key, as one table."""

from __future__ import annotations

__all__ = ["ALPHA", "TENSOR_SUFFIXES", "split_key"]

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


def split_key(key: str) -> tuple[str, str]:
    """(what the module is called, suffix): the longest suffix that the table knows, else the last part."""
    prefix, _, last = key.rpartition(".")
    before, _, two = prefix.rpartition(".")
    if f"{two}.{last}" in TENSOR_SUFFIXES:
        return before, f"{two}.{last}"
    return prefix, last
