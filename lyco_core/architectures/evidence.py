"""What rules a family out for a file or a model, in words; and what is not enough to tell one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..text import clipped, one_line
from .reading import Reading

__all__ = ["contradiction", "doubt", "ruled_out"]

_STREAMS = tuple(
    (f"{attention}.{own}", f"{attention}.{other}")
    for attention in ("attn", "attn1")
    for own, other in (
        ("to_q", "add_q_proj"),
        ("to_k", "add_k_proj"),
        ("to_v", "add_v_proj"),
        ("to_out.0", "to_add_out"),
    )
)
"""diffusers' names in a block of two streams: those of the first are the names of any block of one."""

_SECOND = "attn2"
"""Beside attn1 in many models; beside attn in blocks of two streams alone."""

_ATTENTIONS = (
    *((f"attn1.{name}", f"attn2.{name}") for name in ("to_q", "to_k", "to_v", "to_out.0")),
    ("self_attention.to_query", "cross_attention.to_query"),
)
"""The same of self-attention, which other models have by these names without any cross-attention."""


def contradiction(reading: Reading) -> str:
    """What no model of the family has; empty if there is nothing."""
    return _of_shapes(reading) or _of_widths(reading) or _of_depths(reading)


def ruled_out(reading: Reading) -> str:
    """The same for a file whose every name that tells something should be the family's."""
    found = contradiction(reading)
    if found or not reading.strange:
        return found
    more = len(reading.strange) - 1
    return f"it has {_quoted(reading.strange[0])}{f' and {more} more' if more else ''}, which {_title(reading)} has not"


def doubt(reading: Reading, depths: Mapping[str, int], *, of_model: bool) -> str:
    """What leaves open whether the modules are the family's, though nothing contradicts it; empty if nothing does.

    Args:
        depths: start of a block's name in Musubi's layout -> how many there are.
        of_model: whether those are the ones of a model that has all of the modules: then a few blocks are enough.
    """
    blocks = {start: len(found) for start, found in reading.blocks.items() if start in depths}
    whole = [count == depths[start] for start, count in blocks.items()]
    if len(blocks) > 1 and reading.runs_on and not all(whole):
        counts = [f"{count} of {depths[start]} {start}" for start, count in blocks.items()]
        return f"they are the first {' and '.join(counts)}, which may be all that another has"
    if of_model and (any(whole) or not reading.runs_on):
        return ""
    return _of_self_attention(reading) or ("" if any(whole) else _of_one_stream(reading))


def _of_one_stream(reading: Reading) -> str:
    streams = _STREAMS
    if reading.has_last and all(len(found) == 1 for found in reading.blocks.values()):
        streams = [pair for pair in _STREAMS if not pair[1].endswith("to_add_out")]  # of its text nothing is left there
    pair = _lone(reading, (*streams, *((other, own) for own, other in streams)))
    if pair and pair[0].startswith("attn.") and any(f".{_SECOND}." in path for path in reading.numbers):
        return ""
    return f"of two streams they have {pair[0]} alone, without {pair[1]}" if pair else ""


def _of_self_attention(reading: Reading) -> str:
    pair = _lone(reading, _ATTENTIONS)
    return f"they have {pair[0]} alone, without {pair[1]}" if pair else ""


def _lone(reading: Reading, pairs: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """The first of `pairs` that the family has in a block, and a file of such blocks alone has one name of."""
    known = reading.architecture.spellings(reading.layout, underscored=False)
    found = reading.numbers.keys()
    if len(reading.blocks) != 1 or not all("{n}" in template for template in found):
        return None
    for own, other in pairs:
        for template in found:
            beside = template.removesuffix(own) + other
            if template.endswith(f".{own}") and beside in known and beside not in found:
                return own, other
    return None


def _of_shapes(reading: Reading) -> str:
    for template, (out, inputs) in reading.misfits[:1]:
        name = reading.kinds[template, (out, inputs)][0]
        group = reading.architecture.group_of(template, reading.layout)[0]
        title = _title(reading)
        if group.inputs and inputs not in group.inputs:
            return f"{_quoted(name)} takes {inputs} numbers, {title}'s takes {_or(group.inputs)}"
        if group.outputs:
            return f"{_quoted(name)} gives {out} numbers, {title}'s gives {_or(group.outputs)}"
        return f"{_quoted(name)} is [{out}, {inputs}], which are not the proportions of {title}'s"
    return ""


def _of_widths(reading: Reading) -> str:
    family = reading.architecture
    if family.widths and not reading.is_toy:
        for width, name in reading.widths.items():
            if width not in family.widths:
                return f"{_quoted(name)} is of a model {width:g} wide, {_title(reading)} is {_or(family.widths)} wide"
    if len(reading.widths) > 1:
        (width, name), (other, theirs) = list(reading.widths.items())[:2]
        found = f"{_quoted(name)} is of a model {width:g} wide, {_quoted(theirs)} of one {other:g} wide"
        return f"{found}, which are one in {_title(reading)}"
    return ""


def _of_depths(reading: Reading) -> str:
    if reading.beyond is None:
        return ""
    block, number = reading.beyond
    return f"it has block {number} of {block}, {_title(reading)} has {reading.limits[block]}"


def _or(numbers: Iterable[int]) -> str:
    return " or ".join(map(str, numbers))


def _quoted(name: str) -> str:
    return one_line(clipped(name, 200))


def _title(reading: Reading) -> str:
    return reading.architecture.title
