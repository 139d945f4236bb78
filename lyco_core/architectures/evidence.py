"""What rules a family out for a file or a model, in words; and what is not enough to tell one."""

from __future__ import annotations

from collections.abc import Iterable

from ..text import clipped, one_line
from .reading import Reading

__all__ = ["contradiction", "of_one_stream", "ruled_out"]

_STREAMS = (
    ("attn.to_q", "attn.add_q_proj"),
    ("attn.to_k", "attn.add_k_proj"),
    ("attn.to_v", "attn.add_v_proj"),
    ("attn.to_out.0", "attn.to_add_out"),
)
"""diffusers' names in a block of two streams: those of the first are the names of any block of one."""


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


def of_one_stream(reading: Reading) -> str:
    """What of a family of two streams there is, if that is one of them alone; empty if the names are enough."""
    known = reading.architecture.spellings(reading.layout, underscored=False)
    found = {reading.architecture.template_of(path, reading.layout)[0] for path in reading.modules}
    if reading.is_whole or len(reading.blocks) != 1 or not all("{n}" in template for template in found):
        return ""
    for own, other in (pair for streams in _STREAMS for pair in (streams, streams[::-1])):
        for template in found:
            beside = template.removesuffix(own) + other
            if template.endswith(f".{own}") and beside in known and beside not in found:
                return f"of two streams they have {own} alone, in {len(next(iter(reading.blocks.values())))} blocks"
    return ""


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
