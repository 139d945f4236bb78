"""What a merge will write, decided from headers before a byte is: specs of every tensor, and what changes which."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping

import torch

from ..adapters import Adapter
from ..adapters.base import compute_dtype
from ..devices import knows
from ..errors import MergeError, Remedy, about_file
from ..io import Checkpoint
from ..io.gguf import GgufFile
from ..io.writer import StoredSpec
from ..model import model_of
from ..quantized import PLAIN, QUANTIZATION_METADATA, SCALED_MARKER, Form, Quantization
from ..quantized.reading import key_of
from ..selection import weight_path
from .additions import Addition, add_file
from .options import MergeOptions, Source
from .quantized import Dequantized, Requantized
from .survival import Tally
from .weight import Piece, Weight

__all__ = ["Plan", "make_plan"]

_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """A merge, ready to run."""

    checkpoint: Checkpoint
    options: MergeOptions
    specs: tuple[StoredSpec, ...]
    """Every tensor that will be written, in the base's order."""
    computed: Collection[str]
    """Weights that are read, changed or converted, and written."""
    quantization: Quantization
    """The forms of the base's weights."""
    additions: tuple[Addition, ...]
    prefix: str
    """What the keys of the diffusion model begin with."""
    tally: Tally = dataclasses.field(default_factory=Tally)
    """What rounding leaves of the changes of quantized weights."""

    @property
    def gguf(self) -> GgufFile | None:
        """The base, if what is written is a GGUF file like it."""
        return self.checkpoint.gguf if self.options.dtype is None else None

    @property
    def copied(self) -> list[str]:
        """Keys of tensors that are copied as they are."""
        made = set(self.computed)
        for key in self.computed:
            if (form := self.quantization.forms.get(key)) is not None:
                made |= {key_of(form, role) for role in form.written}
        return [spec.key for spec in self.specs if spec.key not in made]

    @property
    def changed(self) -> set[str]:
        """Keys of the weights that some adapter changes."""
        return {key for addition in self.additions for key in addition.pieces}

    @property
    def modules(self) -> list[int]:
        """How many modules of each adapter file take part."""
        return [len({p.module_path for ps in a.pieces.values() for p, _ in ps}) for a in self.additions]

    def metadata(self) -> dict[str, str]:
        """The base's metadata, without what it says of forms that are not written."""
        metadata = self.checkpoint.metadata
        if self.options.dtype is not None and QUANTIZATION_METADATA in metadata:
            del metadata[QUANTIZATION_METADATA]
            if left := self.quantization.elsewhere:
                metadata[QUANTIZATION_METADATA] = json.dumps({"format_version": "1.0", "layers": left})
        return metadata

    def weights(self) -> Iterator[Weight]:
        """Each weight to compute, made ready one at a time: its factors on the device, in the dtype of the sums."""
        stored = {spec.key: spec for spec in self.specs}
        for key in self.computed:
            file, form = self.checkpoint.holder[key], self.quantization.forms.get(key)
            shape = stored[key].shape if form is None else form.shape
            rows = shape[0] if shape else 1
            source = file.dtype(key) if form is None else torch.float8_e4m3fn  # as rare on devices as all forms are
            wide = compute_dtype(source)
            device = self.options.device if knows(self.options.device, source if form else wide) else "cpu"
            weight = Weight(
                key,
                file,
                rows,
                torch.Size(shape).numel() // max(rows, 1),
                tuple(self._pieces(key, rows, wide, device)),
                self.options.dtype or source,
                self.options.seed,
                device,
            )
            if form is None:
                yield weight
            elif self.options.dtype is not None:
                yield Dequantized.of(weight, form, self.checkpoint.holder)
            else:
                made = Requantized.of(weight, form, self.checkpoint.holder)
                yield dataclasses.replace(made, name=weight_path(key, self.prefix), tally=self.tally)

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
        base, quantization = model_of(checkpoint)
    refused = quantization.refused if options.dtype else {**quantization.unwritable, **quantization.refused}
    additions = tuple(add_file(source, base, refused, options, checkpoint) for source in sources)
    with about_file(checkpoint.path):
        changed = {key for addition in additions for key in addition.pieces}
        recomputed, dropped = changed, set[str]()
        if options.dtype is not None:
            _require_plain(refused)
            floats = {k for k, info in checkpoint.tensors.items() if k.startswith(base.prefix) and info.dtype in PLAIN}
            recomputed = changed | floats | quantization.forms.keys()
            dropped = {SCALED_MARKER, base.prefix + SCALED_MARKER, *quantization.beside}
        elif options.seed is not None:
            _require_stochastic([quantization.forms[key] for key in changed if key in quantization.forms])
        computed = [key for key in checkpoint.tensors if key in recomputed and key not in dropped]
        specs = _specs(checkpoint, dropped, quantization, computed if options.dtype is not None else (), options.dtype)
        return Plan(checkpoint, options, specs, computed, quantization, additions, base.prefix)


def _require_stochastic(forms: Collection[Form]) -> None:
    if rigid := next((form for form in forms if not form.stochastic), None):
        raise MergeError(
            f"{rigid.found.key}: is stored as {rigid.title}, which is rounded to the nearest only; "
            "leave stochastic rounding out"
        )


def _require_plain(refused: Mapping[str, str]) -> None:
    if refused:
        path, title = next(iter(refused.items()))
        raise MergeError(f"{path}: is stored as {title}, which no other dtype can be made of", Remedy.OWN_DTYPE)


def _specs(
    checkpoint: Checkpoint,
    dropped: Collection[str],
    quantization: Quantization,
    converted: Collection[str],
    dtype: torch.dtype | None,
) -> tuple[StoredSpec, ...]:
    """What will be written, in the base's order."""
    specs: list[StoredSpec] = []
    chosen = set(converted)
    for key, info in checkpoint.tensors.items():
        if key in dropped:
            continue
        if key in chosen and dtype is not None:
            shape = quantization.forms[key].shape if key in quantization.forms else info.shape
            specs.append(StoredSpec(key, shape, _NAMES[dtype], torch.Size(shape).numel() * dtype.itemsize))
        else:
            specs.append(StoredSpec(key, info.shape, info.dtype, info.bytes))
    return tuple(specs)
