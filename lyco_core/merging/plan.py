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
from ..quantized.new import MARKER
from ..quantized.reading import key_of
from ..selection import weight_path
from .additions import Addition, add_file
from .linears import NOTHING, Chosen, choose
from .options import MergeOptions, Source
from .quantized import Dequantized, Quantized, Requantized
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
    chosen: Chosen = NOTHING
    """The weights that are given a form."""
    tally: Tally = dataclasses.field(default_factory=Tally)
    """What rounding leaves of the changes of quantized weights."""

    @property
    def forms(self) -> dict[str, Form]:
        """Weight key -> the form of each weight that has one, here or in what is written."""
        return {**self.quantization.forms, **self.chosen.forms}

    @property
    def gguf(self) -> GgufFile | None:
        """The base, if what is written is a GGUF file like it."""
        return self.checkpoint.gguf if self.options.dtype is None else None

    @property
    def copied(self) -> list[str]:
        """Keys of tensors that are copied as they are."""
        made, forms = set(self.computed), self.forms
        for key in self.computed:
            if (form := forms.get(key)) is not None:
                made |= {key_of(form, role) for role in form.written}
        made |= {key_of(form, MARKER) for form in self.chosen.forms.values()}
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
        stored, forms = {spec.key: spec for spec in self.specs}, self.forms
        for key in self.computed:
            file, form = self.checkpoint.holder[key], self.quantization.forms.get(key)
            shape = forms[key].shape if key in forms else stored[key].shape
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
            name = weight_path(key, self.prefix)
            if (new := self.chosen.forms.get(key)) is not None:
                yield dataclasses.replace(Quantized.new(weight, new), name=name, tally=self.tally)
            elif form is None:
                yield weight
            elif self.options.dtype is not None:
                yield Dequantized.of(weight, form, self.checkpoint.holder)
            else:
                made = Requantized.of(weight, form, self.checkpoint.holder)
                yield dataclasses.replace(made, name=name, tally=self.tally)

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
        chosen = NOTHING if options.quantize is None else choose(options.quantize, base, quantization)
    refused = quantization.refused if options.dtype else {**quantization.unwritable, **quantization.refused}
    additions = tuple(add_file(source, base, refused, options, checkpoint) for source in sources)
    with about_file(checkpoint.path):
        changed = {key for addition in additions for key in addition.pieces}
        recomputed, dropped = changed | chosen.forms.keys(), set[str]()
        if options.dtype is not None:
            _require_plain(refused)
            floats = {k for k, info in checkpoint.tensors.items() if k.startswith(base.prefix) and info.dtype in PLAIN}
            recomputed = recomputed | floats | quantization.forms.keys()
            dropped = {SCALED_MARKER, base.prefix + SCALED_MARKER, *quantization.beside}
        if options.seed is not None:
            forms = chosen.forms if options.dtype is not None else {**quantization.forms, **chosen.forms}
            _require_stochastic([forms[key] for key in recomputed if key in forms])
        computed = [key for key in checkpoint.tensors if key in recomputed and key not in dropped]
        converted = computed if options.dtype is not None else ()
        specs = _specs(checkpoint, dropped, quantization, chosen.forms, converted, options.dtype)
        return Plan(checkpoint, options, specs, computed, quantization, additions, base.prefix, chosen)


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
    given: Mapping[str, Form],
    converted: Collection[str],
    dtype: torch.dtype | None,
) -> tuple[StoredSpec, ...]:
    """What will be written, in the base's order."""
    specs: list[StoredSpec] = []
    chosen = set(converted)
    for key, info in checkpoint.tensors.items():
        if key in dropped:
            continue
        if (form := given.get(key)) is not None:
            stored = form.found.infos.items()
            specs += [StoredSpec(key_of(form, role), info.shape, info.dtype, info.bytes) for role, info in stored]
        elif key in chosen and dtype is not None:
            shape = quantization.forms[key].shape if key in quantization.forms else info.shape
            specs.append(StoredSpec(key, shape, _NAMES[dtype], torch.Size(shape).numel() * dtype.itemsize))
        else:
            specs.append(StoredSpec(key, info.shape, info.dtype, info.bytes))
    return tuple(specs)
