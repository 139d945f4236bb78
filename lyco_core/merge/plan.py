"""What a merge will write, decided from headers before a byte is: specs of every tensor, and what changes which."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping

import torch

from ..adapters import Adapter
from ..adapters.base import compute_dtype
from ..errors import MergeError, PlacementError, Remedy, about_file
from ..io import Checkpoint
from ..io.writer import RawSpec
from ..model_weights import describe_weights
from .additions import Addition, add_file
from .devices import knows
from .options import MergeOptions, Source
from .storage import PLAIN, QUANTIZATION_METADATA, SCALED_MARKER, Scaling, companions, scaling_of, unmergeable
from .weight import Piece, Weight

__all__ = ["Plan", "make_plan"]

_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """A merge, ready to run."""

    checkpoint: Checkpoint
    options: MergeOptions
    specs: tuple[RawSpec, ...]
    """Every tensor that will be written, in the base's order."""
    computed: Collection[str]
    """Weights that are read, changed or converted, and written; their scales with them."""
    scalings: Mapping[str, Scaling]
    """Weight key -> its scale, of those of `computed` that have one."""
    additions: tuple[Addition, ...]

    @property
    def copied(self) -> list[str]:
        """Keys of tensors that are copied as they are."""
        made = {*self.computed, *(s.key for s in self.scalings.values())}
        return [spec.key for spec in self.specs if spec.key not in made]

    @property
    def changed(self) -> set[str]:
        """Keys of the weights that some adapter changes."""
        return {key for addition in self.additions for key in addition.pieces}

    @property
    def modules(self) -> list[int]:
        """How many modules of each adapter file take part."""
        return [len({p.module_path for ps in a.pieces.values() for p, _ in ps}) for a in self.additions]

    @property
    def dropped_metadata(self) -> set[str]:
        """Metadata keys that would be wrong of what is written."""
        return {QUANTIZATION_METADATA} if self.options.dtype is not None else set()

    def weights(self) -> Iterator[Weight]:
        """Each weight to compute, made ready one at a time: its factors on the device, in the dtype of the sums."""
        stored = {spec.key: spec for spec in self.specs}
        dtypes = {name: dtype for dtype, name in _NAMES.items()}
        for key in self.computed:
            file, info, scaling = self.checkpoint.holder[key], self.checkpoint.tensors[key], self.scalings.get(key)
            rows = info.shape[0] if info.shape else 1
            wide = compute_dtype(file.dtype(key))
            device = self.options.device if knows(self.options.device, wide) else "cpu"
            yield Weight(
                key,
                file,
                rows,
                torch.Size(info.shape).numel() // max(rows, 1),
                tuple(self._pieces(key, rows, wide, device)),
                scaling,
                None if scaling is None else self.checkpoint.holder[scaling.key].tensor(scaling.key),
                dtypes.get(stored[key].dtype_name, file.dtype(key)),
                self.options.dtype is None,
                self.options.seed,
                device,
            )

    def _pieces(self, key: str, rows: int, dtype: torch.dtype, device: str) -> Iterator[Piece]:
        for addition in self.additions:
            for placed, strength in addition.pieces.get(key, []):
                adapter: Adapter = placed.part(addition.adapter_set.adapters[placed.module_path])
                if not abs(factor := strength * adapter.scale) <= torch.finfo(torch.float32).max:
                    raise MergeError(f"{placed.module_path}: strength times scale is {factor:g}; lower the strength")
                adapter = adapter.to(dtype=dtype).to(device)  # the device may not know what is stored
                start, stop = placed.rows or (0, rows)
                yield Piece(adapter, start, stop, strength, placed.module_path, placed.shape[1:])


def make_plan(checkpoint: Checkpoint, sources: Collection[Source], options: MergeOptions) -> Plan:
    """Decide everything about a merge; the adapters' tensors are read, the base's are not.

    Raises:
        LycoError: the base, or an adapter, is bad or does not fit; all that does not is listed.
    """
    with about_file(checkpoint.path):
        base = describe_weights(checkpoint.shapes)
        if base.architecture is None:
            raise PlacementError("its weights are those of no known model; expected a checkpoint of a known one")
        refused = unmergeable(checkpoint, base.prefix)
    additions = tuple(add_file(source, base, refused, options, checkpoint) for source in sources)
    with about_file(checkpoint.path):
        changed = {key for addition in additions for key in addition.pieces}
        floats = {k for k, info in checkpoint.tensors.items() if k.startswith(base.prefix) and info.dtype in PLAIN}
        wanted = changed
        if options.dtype is not None:
            _require_plain(refused)
            wanted = changed | floats
        scalings = {key: scaling for key in wanted if (scaling := scaling_of(checkpoint, key)) is not None}
        dropped: set[str] = set()
        if options.dtype is not None:  # scales and markers go with float8
            dropped = {
                SCALED_MARKER,
                base.prefix + SCALED_MARKER,
                *(name for key in scalings for name in companions(checkpoint, key)),
            }
        computed = [key for key in checkpoint.tensors if key in wanted and key not in dropped]
        specs = _specs(checkpoint, dropped, computed if options.dtype is not None else (), options.dtype)
        return Plan(checkpoint, options, specs, computed, scalings, additions)


def _require_plain(refused: Mapping[str, str]) -> None:
    if refused:
        path, title = next(iter(refused.items()))
        raise MergeError(f"{path}: is stored as {title}, which no other dtype can be made of", Remedy.OWN_DTYPE)


def _specs(
    checkpoint: Checkpoint, dropped: Collection[str], converted: Collection[str], dtype: torch.dtype | None
) -> tuple[RawSpec, ...]:
    """What will be written, in the base's order."""
    specs: list[RawSpec] = []
    chosen = set(converted)
    for key, info in checkpoint.tensors.items():
        if key in dropped:
            continue
        if key in chosen and dtype is not None:
            size = torch.Size(info.shape).numel() * dtype.itemsize
            specs.append(RawSpec(key, info.shape, _NAMES[dtype], size))
        else:
            specs.append(RawSpec(key, info.shape, info.dtype, info.bytes))
    return tuple(specs)
