"""The files of a merge: which tensor goes into which, where in it, and the index of several."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence

from ..io.checkpoint import INDEX_SUFFIX, shard_name
from ..io.gguf import GgufFile
from ..io.output import NewFile
from ..io.paths import without_ending
from ..io.writer import StoredSpec, header_bytes
from .plan import Plan
from .record import RECORD

__all__ = ["Written", "index_path", "shards_of", "write_index"]


class Written:
    """The new files, and where in them each tensor belongs."""

    def __init__(
        self,
        shards: Mapping[str, Sequence[StoredSpec]],
        files: Mapping[str, NewFile],
        metadata: Mapping[str, str],
        gguf: GgufFile | None,
    ) -> None:
        self._places: dict[str, tuple[NewFile, int]] = {}
        self.total = 0
        for path, specs in shards.items():
            header, places = _gguf(gguf, metadata) if gguf else _safetensors(specs, metadata)
            files[path].write(header, 0)
            self._places |= {spec.key: (files[path], places[spec.key]) for spec in specs}
            self.total += sum(spec.bytes for spec in specs)

    def write(self, key: str, data: memoryview, offset: int) -> int:
        """Write a part of a tensor from byte `offset` of it on; returns how many bytes that was."""
        file, start = self._places[key]
        file.write(data, start + offset)
        return len(data)


def _safetensors(specs: Sequence[StoredSpec], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """(header, key -> place in the file), end to end."""
    header = header_bytes(specs, metadata)
    ends = itertools.accumulate((spec.bytes for spec in specs), initial=len(header))
    return header, {spec.key: place for spec, place in zip(specs, ends, strict=False)}


def _gguf(base: GgufFile, metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """(header, key -> place in the file) of a GGUF file like the base, with the record of the merge in its header."""
    header = base.header_bytes({RECORD: metadata[RECORD]})
    moved = len(header) - base.layout.start
    return header, {key: info.start + moved for key, info in base.header.tensors.items()}


def shards_of(plan: Plan, output: str) -> dict[str, list[StoredSpec]]:
    """Path -> the tensors of that file, in order."""
    checkpoint, limit = plan.checkpoint, plan.options.max_shard_bytes
    is_index = output.lower().endswith(INDEX_SUFFIX)
    stem = _stem(output)
    if limit is not None:
        groups = _by_size(plan.specs, limit)
    elif is_index:
        groups = [[spec for spec in plan.specs if checkpoint.holder[spec.key] is file] for file in checkpoint.files]
    else:
        groups = [list(plan.specs)]
    if len(groups) == 1 and not is_index:
        return {output: groups[0]}
    return {shard_name(stem, n, len(groups)): group for n, group in enumerate(groups, 1)}


def _by_size(specs: Sequence[StoredSpec], limit: int) -> list[list[StoredSpec]]:
    groups: list[list[StoredSpec]] = [[]]
    size = 0
    for spec in specs:
        if groups[-1] and size + spec.bytes > limit:
            groups.append([])
            size = 0
        groups[-1].append(spec)
        size += spec.bytes
    return groups


def index_path(output: str) -> str:
    """Where the index of an output's shards is written."""
    return output if output.lower().endswith(INDEX_SUFFIX) else _stem(output) + INDEX_SUFFIX


def _stem(output: str) -> str:
    return without_ending(without_ending(output, INDEX_SUFFIX))


def write_index(file: NewFile, shards: Mapping[str, Sequence[StoredSpec]], total: int) -> None:
    """The index of shards: which file has a tensor, and how many bytes there are in all."""
    places = {spec.key: os.path.basename(path) for path, specs in shards.items() for spec in specs}
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=2, ensure_ascii=False)
    file.write(text.encode(), 0)
