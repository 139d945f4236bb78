"""A checkpoint file with adapters in it: the base is streamed into new files, which appear whole or not at all."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from ..errors import MergeError
from ..io import Checkpoint
from ..io.checkpoint import INDEX_SUFFIX, shard_name
from ..io.gguf import GgufFile
from ..io.output import NewFile, new_files, refuse_inputs, require_space
from ..io.paths import without_ending
from ..io.writer import RawSpec, bytes_of, header_bytes
from .options import EXACT, MergeOptions, Source
from .plan import Plan, make_plan
from .record import RECORD, merged_metadata
from .weight import Weight

__all__ = ["Merged", "merge_checkpoint"]

COPY_BYTES = 2**23
"""Of what is copied as it is, at a time."""

Progress = Callable[[int, int], None]
Job = Callable[[], int]
"""Computes and writes a part; how many bytes of the output that was."""


@dataclasses.dataclass(frozen=True)
class Merged:
    """What a merge made."""

    files: tuple[str, ...]
    """Paths of the new files, the index last where there is one."""
    weights: int
    """How many weights were changed."""
    tensors: int
    """How many tensors there are."""
    modules: tuple[int, ...]
    """How many modules of each adapter file were merged."""
    left_out: tuple[str, ...]
    """What of each has no place and why; empty if everything has."""
    ignored: tuple[Sequence[str], ...]
    """What counts for nothing in each, and why: see `AdapterSet.left_out`."""
    bytes: int
    """Size of all files together."""
    survival: tuple[str, ...]
    """What a person is told of the change that rounding leaves in quantized weights; empty where there are none."""


def merge_checkpoint(
    base: str | os.PathLike[str],
    sources: Sequence[Source],
    output: str | os.PathLike[str],
    options: MergeOptions = EXACT,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Merged:
    """Write `base` with every adapter of `sources` added to its weights.

    Arithmetic is float32, rounded once for all adapters together. Tensors that nothing changes are
    copied byte for byte. Memory holds the adapters and a few bands of rows, whatever the size of
    the base.

    Args:
        base: a safetensors file, one of its shards, their index, or a folder with one of these.
        output: `….safetensors`, or `….safetensors.index.json` for shards like the base's.
        progress: called with bytes written and in total; what it raises ends the merge.

    Raises:
        LycoError: an input is bad or does not fit, or the output cannot be written. Nothing is
            left under the output's name unless the merge was whole.
    """
    if not sources:
        raise MergeError("there is no adapter to merge; name at least one")
    output = os.fspath(output)
    with Checkpoint(base) as checkpoint:
        inputs = [checkpoint.path, *(file.path for file in checkpoint.files), *(source.path for source in sources)]
        refuse_inputs(output, [path for path in inputs if os.path.isfile(path)])
        _require_kind(checkpoint, output, options)
        plan = make_plan(checkpoint, sources, options)
        metadata = merged_metadata(plan, sources)
        shards = _shards(plan, output)
        paths = list(shards)
        for path in paths:
            refuse_inputs(path, [file.path for file in checkpoint.files])
        require_space(output, sum(spec.bytes for spec in plan.specs))
        index = _index_path(output) if len(paths) > 1 or output.lower().endswith(".json") else None
        with new_files([*paths, *([index] if index else [])], overwrite=overwrite) as files:
            written = _Written(shards, dict(zip(paths, files, strict=False)), metadata, plan.gguf)
            _run(_jobs(plan, written), written.total, progress)
            if index:
                _write_index(files[-1], shards, written.total)
            checkpoint.require_unchanged()
        size = sum(os.path.getsize(path) for path in paths)
        made = (*paths, *([index] if index else []))
        left_out = tuple(addition.left_out for addition in plan.additions)
        ignored = tuple(addition.adapter_set.left_out for addition in plan.additions)
        told = tuple(plan.tally.lines())
        return Merged(made, len(plan.changed), len(plan.specs), tuple(plan.modules), left_out, ignored, size, told)


class _Written:
    """The new files, and where in them each tensor belongs."""

    def __init__(
        self,
        shards: Mapping[str, Sequence[RawSpec]],
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
        """Write a part of a tensor from byte `offset` of it on; how much that was."""
        file, start = self._places[key]
        file.write(data, start + offset)
        return len(data)


def _safetensors(specs: Sequence[RawSpec], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """(header, key -> place in the file), end to end."""
    header = header_bytes(specs, metadata)
    ends = itertools.accumulate((spec.bytes for spec in specs), initial=len(header))
    return header, {spec.key: place for spec, place in zip(specs, ends, strict=False)}


def _gguf(base: GgufFile, metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """The same of a GGUF file that is like the base but for its numbers, and the record of the merge."""
    header = base.header_bytes({RECORD: metadata[RECORD]})
    moved = len(header) - base.layout.start
    return header, {key: info.start + moved for key, info in base.header.tensors.items()}


def _require_kind(checkpoint: Checkpoint, output: str, options: MergeOptions) -> None:
    """Raise `MergeError` unless the output's name is of the kind of file that will be written."""
    wanted = output.lower().endswith(".gguf")
    if checkpoint.gguf is None or options.dtype is not None:
        if wanted:
            raise MergeError(
                f"{output}: a GGUF file is written from one, in the base's own types; name the output ….safetensors"
            )
    elif not wanted:
        raise MergeError(
            f"{output}: the base is a GGUF file, and so is what is merged; name the output ….gguf, "
            "or choose a dtype (bfloat16) for a safetensors file"
        )
    elif options.max_shard_bytes is not None:
        raise MergeError(f"{output}: a GGUF file is not split into shards")


def _jobs(plan: Plan, written: _Written) -> Iterator[Job]:
    """Everything to do, each part on its own; the factors of a weight live as long as its bands."""
    for weight in plan.weights():
        for start, stop in weight.bands():
            yield _merging(weight, start, stop, written)
    for key in plan.copied:
        size = plan.checkpoint.tensors[key].bytes
        for offset in range(0, size, COPY_BYTES):
            yield _copying(plan.checkpoint, key, offset, min(COPY_BYTES, size - offset), written)


def _merging(weight: Weight, start: int, stop: int, written: _Written) -> Job:
    def job() -> int:
        return sum(written.write(key, bytes_of(data), offset) for key, offset, data in weight.stored(start, stop))

    return job


def _copying(checkpoint: Checkpoint, key: str, offset: int, size: int, written: _Written) -> Job:
    def job() -> int:
        data = memoryview(bytearray(size))
        checkpoint.holder[key].read_into(data, key, offset)
        return written.write(key, data, offset)

    return job


def _run(jobs: Iterator[Job], total: int, progress: Progress | None) -> None:
    """Do all jobs, as many at once as there are cores; the first error ends the rest."""
    workers = min(os.cpu_count() or 1, 16)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # each worker is one; more would take turns
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[int]] = deque()
    done = 0

    def finish(left: int) -> None:
        nonlocal done
        while len(waiting) > left:
            done += waiting.popleft().result()
            if progress is not None:
                progress(done, total)

    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            finish(4 * workers)
        finish(0)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _shards(plan: Plan, output: str) -> dict[str, list[RawSpec]]:
    """Path -> what goes there."""
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


def _by_size(specs: Sequence[RawSpec], limit: int) -> list[list[RawSpec]]:
    groups: list[list[RawSpec]] = [[]]
    size = 0
    for spec in specs:
        if groups[-1] and size + spec.bytes > limit:
            groups.append([])
            size = 0
        groups[-1].append(spec)
        size += spec.bytes
    return groups


def _index_path(output: str) -> str:
    return output if output.lower().endswith(INDEX_SUFFIX) else _stem(output) + INDEX_SUFFIX


def _stem(output: str) -> str:
    return without_ending(without_ending(output, INDEX_SUFFIX))


def _write_index(file: NewFile, shards: Mapping[str, Sequence[RawSpec]], total: int) -> None:
    places = {spec.key: os.path.basename(path) for path, specs in shards.items() for spec in specs}
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=2, ensure_ascii=False)
    file.write(text.encode(), 0)
