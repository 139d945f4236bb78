"""A checkpoint file with adapters in it: the base is streamed into new files, which appear whole or not at all."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence

from ..errors import MergeError, Remedy
from ..io import Checkpoint
from ..io.output import new_files, refuse_inputs, require_space
from ..io.writer import bytes_of
from ..workers import workers
from .options import EXACT, MergeOptions, Source
from .plan import Plan, make_plan
from .record import merged_metadata
from .weight import Weight
from .written import Written, index_path, shards_of, write_index

__all__ = ["Merged", "merge_checkpoint"]

COPY_BYTES = 2**23
"""How much of what is copied as it is one job copies."""

Progress = Callable[[int, int], None]
Job = Callable[[], int]
"""Computes and writes a part; returns how many bytes of the output that was."""


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
    """What of each adapter file has no place, and why; empty if everything has."""
    ignored: tuple[Sequence[str], ...]
    """What counts for nothing in each adapter file, and why: see `AdapterSet.left_out`."""
    bytes: int
    """Size of all files together."""
    quantized: tuple[str, ...]
    """Lines that say which weights were given a form, and which were not; empty where that was not asked for."""
    survival: tuple[str, ...]
    """Lines that say how much of the change rounding leaves in quantized weights; empty where there are none."""


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
        shards = shards_of(plan, output)
        paths = list(shards)
        for path in paths:
            refuse_inputs(path, [file.path for file in checkpoint.files])
        require_space(output, sum(spec.bytes for spec in plan.specs))
        index = index_path(output) if len(paths) > 1 or output.lower().endswith(".json") else None
        with new_files([*paths, *([index] if index else [])], overwrite=overwrite) as files:
            written = Written(shards, dict(zip(paths, files, strict=False)), metadata, plan.gguf)
            _run(_jobs(plan, written), written.total, progress)
            if index:
                write_index(files[-1], shards, written.total)
            checkpoint.require_unchanged()
        size = sum(os.path.getsize(path) for path in paths)
        made = (*paths, *([index] if index else []))
        left_out = tuple(addition.left_out for addition in plan.additions)
        ignored = tuple(addition.adapter_set.left_out for addition in plan.additions)
        survival = plan.tally.first_lines() if plan.chosen.forms else plan.tally.lines()
        told = plan.chosen.lines, tuple(survival)
        return Merged(made, len(plan.changed), len(plan.specs), tuple(plan.modules), left_out, ignored, size, *told)


def _require_kind(checkpoint: Checkpoint, output: str, options: MergeOptions) -> None:
    """Raise `MergeError` unless the output's name is of the kind of file that will be written."""
    if checkpoint.gguf is not None and options.quantize is not None:
        raise MergeError(f"{checkpoint.path}: is a GGUF file; to quantize, expected safetensors", Remedy.UNQUANTIZED)
    gguf_named = output.lower().endswith(".gguf")
    if checkpoint.gguf is None or options.dtype is not None:
        if gguf_named:
            raise MergeError(
                f"{output}: a GGUF file is written from one, in the base's own types; name the output ….safetensors"
            )
    elif not gguf_named:
        raise MergeError(
            f"{output}: the base is a GGUF file, and so is what is merged; name the output ….gguf, "
            "or choose a dtype (bfloat16) for a safetensors file"
        )
    elif options.max_shard_bytes is not None:
        raise MergeError(f"{output}: a GGUF file is not split into shards")


def _jobs(plan: Plan, written: Written) -> Iterator[Job]:
    """Everything to do, each part on its own; the factors of a weight live as long as its bands."""
    for weight in plan.weights():
        for start, stop in weight.bands():
            yield _merging(weight, start, stop, written)
    for key in plan.copied:
        size = plan.checkpoint.tensors[key].bytes
        for offset in range(0, size, COPY_BYTES):
            yield _copying(plan.checkpoint, key, offset, min(COPY_BYTES, size - offset), written)


def _merging(weight: Weight, start: int, stop: int, written: Written) -> Job:
    def job() -> int:
        return sum(written.write(key, bytes_of(data), offset) for key, offset, data in weight.stored(start, stop))

    return job


def _copying(checkpoint: Checkpoint, key: str, offset: int, size: int, written: Written) -> Job:
    def job() -> int:
        data = memoryview(bytearray(size))
        checkpoint.holder[key].read_into(data, key, offset)
        return written.write(key, data, offset)

    return job


def _run(jobs: Iterator[Job], total: int, progress: Progress | None) -> None:
    """Do all jobs, as many at once as there are cores; the first error ends the rest."""
    done = 0
    with workers() as threads:
        for written in threads.each(lambda job: job(), jobs):
            done += written
            if progress is not None:
                progress(done, total)
