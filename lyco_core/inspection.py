"""What an adapter file is, and what of it a model takes: for people and, as JSON, for programs."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from .adapter_file import AdapterFile
from .adapter_reader import require_known
from .adapter_set import AdapterSet
from .architectures import identify, recognise
from .errors import ArchitectureError, FileError, Remedy, about_file
from .formats.suffixes import unread
from .model import Model
from .placement import Placement, place
from .text import counted, one_line, shorten, size_text

__all__ = ["Inspection", "describe_match", "inspect_file"]

SHOWN = 50
"""So many different ranks, alphas and kinds of blocks are listed, and four times as many notes of the metadata."""

_WITHOUT_FORMAT = {
    "checkpoint": "checkpoint: a model's weights, not an adapter",
    "unknown": "unknown: modules are spelled as in no format that is known here",
}


_ENCODED = re.compile(r"(?:data:([^;,]{0,50})[^,]{0,50},|[A-Za-z0-9+/_=-]{100})")
"""A data URL, with the type that it says it has, or base64 that is longer than any name."""


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What an adapter file is, and where it goes on a model; see `as_json` and `lines`."""

    file: str
    file_bytes: int
    adapter_set: AdapterSet
    placement: Placement | None
    """Onto the model, where one was given."""
    is_checkpoint: bool = False
    """Whether the file holds a model's weights; then the set is empty, and says of which model."""

    @property
    def kind(self) -> str:
        """What a file is that has no format: `checkpoint` or `unknown`."""
        return "checkpoint" if self.is_checkpoint else "unknown"

    def as_json(self) -> dict[str, Any]:
        """What the file is as one JSON object; its keys are stable."""
        found = self.adapter_set
        result: dict[str, Any] = {
            "file": one_line(self.file),
            "bytes": self.file_bytes,
            "format": found.format.id if found.format else self.kind,
            "architecture": found.architecture.id if found.architecture else None,
            "doubt": found.doubt or None,
            "layout": found.layout,
            "modules": len(found.adapters),
            "algorithms": found.algorithms,
            "ranks": found.ranks,
            "alphas": found.alphas,
            "dtypes": _dtypes(found),
            "unrecognised_keys": [*found.unrecognised_keys, *found.foreign],
            "idle": dict(found.idle),
            "metadata": dict(found.metadata),
        }
        if self.placement is not None:
            result["model"] = {
                "matched": self.placement.modules,
                "weights": len({p.key for p in self.placement.placed}),
                "homeless": [found.prefixes[path] for path in self.placement.homeless],
                "misfits": [dataclasses.asdict(m) for m in self.placement.misfits],
            }
        return result

    def columns(self) -> list[str]:
        """What the file is in a table of several: architecture, algorithm, rank, size; what matched, onto a model."""
        found = self.adapter_set
        ranks = found.ranks
        columns = [
            found.family or "unknown",
            ", ".join(found.titles) or self.kind,
            (f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]}-{ranks[-1]}")
            if ranks
            else "full"
            if found.adapters
            else "",
            size_text(self.file_bytes),
        ]
        if self.placement is not None:
            columns.append(f"{self.placement.modules} of {len(found.adapters)}" if found.adapters else "")
        return columns

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """What the file is, line by line for a person to read."""
        found = self.adapter_set
        rows = {
            "file": f"{self.file} ({size_text(self.file_bytes)})",
            "format": found.format.title if found.format else _WITHOUT_FORMAT[self.kind],
            "architecture": found.family or f"unknown: {found.doubt}".strip(": "),
        }
        if found.adapters:
            rows |= {
                "modules": f"{len(found.adapters)}: {_counts(found)}",
                "rank": _numbers(found.ranks) or "full matrices",
                "alpha": _numbers(found.alphas) or "none (scale 1)",
                "dtype": ", ".join(_dtypes(found)),
            }
        lines = [f"{name:<13} {value}" for name, value in rows.items()]
        if found.unrecognised_keys:
            keys = found.unrecognised_keys
            lines.append(f"{'unrecognised':<13} {counted(len(keys), 'key')}, e.g. {_clip(keys[0], 300)}")
            lines += [f"{'not read':<13} {_clip(other, 500)}" for other in unread(keys)]
        lines += [f"{'left out':<13} {_clip(line, 500)}" for line in found.left_out]
        lines += [f"{'metadata':<13} {line}" for line in _notes(found.metadata)]
        if self.placement is not None:
            lines += [f"{'model':<13} {line}" for line in describe_match(self.placement)]
        return [one_line(line) for line in lines]


def inspect_file(
    path: str | os.PathLike[str],
    model: str | os.PathLike[str] | Model | None = None,
    *,
    architecture: str | None = None,
) -> Inspection:
    """Read the header of an adapter file, and of a model's checkpoint, and say what they are.

    Args:
        model: the checkpoint, or what `Model.of_file` has read of it, for several files.

    Raises:
        LycoError: the file is not an adapter that is known here.
    """
    onto = model if model is None or isinstance(model, Model) else Model.of_file(model)
    with about_file(path):
        with AdapterFile(path) as file:
            outline = file.outline
        found = onto.identify(outline, architecture) if onto else _identified(outline, architecture)
        checkpoint = _as_checkpoint(found)
        found = checkpoint or place(found).adapter_set
        if not found.adapters and checkpoint is None and not unread(found.unrecognised):
            require_known(found)
        placement = None if onto is None else onto.place(found)
        try:
            size = os.stat(path).st_size
        except OSError as error:
            raise FileError(f"went away while it was read: {error.strerror}; try again") from None
    return Inspection(os.path.basename(os.fspath(path)), size, found, placement, checkpoint is not None)


def _identified(outline: AdapterSet, architecture: str | None) -> AdapterSet:
    """The set with its family; of several that it may be for, all are said."""
    try:
        return identify(outline, architecture=architecture)
    except ArchitectureError as error:
        if architecture is not None:
            raise
        return dataclasses.replace(outline, doubt=f"{error.message}; {Remedy.ARCHITECTURE.value}")


def describe_match(placement: Placement) -> list[str]:
    """How much of an adapter a model takes, block by block, and what it does not."""
    total = len(placement.adapter_set.adapters)
    weights = len({p.key for p in placement.placed})
    lines = [f"{placement.modules} of {counted(total, 'module')} on {counted(weights, 'weight')}"]
    if by_name := {p.module_path for p in placement.placed if p.by_name}:
        lines.append(f"{len(by_name)} of them by the model's own names: no table of ours has them")
    kinds = _by_block(placement)
    lines += [f"{_clip(name)} {count}" for name, count in list(kinds.items())[:SHOWN]]
    if len(kinds) > SHOWN:
        lines.append(f"and {len(kinds) - SHOWN} other kinds of blocks")
    if problem := placement.problem():
        lines.append(f"left out: {problem}")
    return lines


def _as_checkpoint(found: AdapterSet) -> AdapterSet | None:
    """What stands in for an adapter set where the file holds a model's weights; None elsewhere."""
    if found.adapters:
        return None
    model = Model.of(found.unrecognised)
    if model.architecture is None and recognise(model.modules) is None:
        return None
    doubt = "" if model.architecture else "its weights are those of several families"
    return AdapterSet({}, {}, None, found.metadata, architecture=model.architecture, layout=model.layout, doubt=doubt)


def _by_block(placement: Placement) -> dict[str, int]:
    """Kind of block -> how many modules of it have a place."""
    paths = {p.module_path for p in placement.placed}
    return dict(Counter(path.split(".")[0] for path in sorted(paths)))


def _counts(found: AdapterSet) -> str:
    return ", ".join(f"{count} {title}" for title, count in found.titles.items())


def _numbers(values: list[int] | list[float]) -> str:
    return shorten([f"{value:g}" for value in values], SHOWN)


def _notes(metadata: Mapping[str, str]) -> list[str]:
    keys = sorted(metadata)
    lines = [f"{_clip(key)} = {_value(metadata[key])}" for key in keys[: 4 * SHOWN]]
    return lines if len(keys) <= len(lines) else [*lines, f"and {len(keys) - len(lines)} more"]


def _value(text: str) -> str:
    """A note as a person reads it: of what is encoded, a thumbnail say, only what it is."""
    if match := _ENCODED.match(text):
        return f"({match[1] or 'encoded'}, {size_text(len(text))})"
    return _clip(text)


def _dtypes(found: AdapterSet) -> list[str]:
    dtypes = {tensor.dtype for adapter in found.adapters.values() for tensor in adapter.tensors.values()}
    return sorted(str(dtype).removeprefix("torch.") for dtype in dtypes)


def _clip(value: str, width: int = 100) -> str:
    return value if len(value) <= width else value[: width - 1] + "…"
