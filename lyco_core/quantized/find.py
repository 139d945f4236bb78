"""Which form each weight of a checkpoint is in, as ComfyUI's loader would tell it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

from ..errors import FileError
from ..io import Checkpoint, TensorInfo
from ..io.gguf import BLOCKS
from ..io.small_json import parse_small
from .float8 import Float8
from .form import Form, Found, Unreadable
from .ggml import Q8, Blocks
from .int8 import Int8
from .tiled import Mxfp8, Nvfp4
from .w4 import W4A4, W4A8

__all__ = ["PLAIN", "QUANTIZATION_METADATA", "SCALED_MARKER", "Quantization", "find_forms", "form_of"]

PLAIN = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
"""Dtypes that are numbers by themselves."""

_WIDE = {"F64", "F32", "F16", "BF16"}
"""Dtypes in which a change of a weight survives."""

QUANTIZATION_METADATA = "_quantization_metadata"
"""ComfyUI's metadata key: JSON of `layers`, module path -> what a `comfy_quant` tensor would say."""

SCALED_MARKER = "scaled_fp8"
"""A tensor of no numbers that says that a model's float8 weights have scales: ComfyUI's older form, and Musubi's."""

_FORMS: dict[str, Callable[[Found], Form]] = {
    "float8_e4m3fn": Float8.of,
    "float8_e5m2": Float8.of,
    "int8_tensorwise": Int8.of,
    "mxfp8": Mxfp8.of,
    "nvfp4": Nvfp4.of,
    "convrot_w4a4": W4A4.of,
    "asym_w4a8_int8": W4A8.of,
}
"""ComfyUI's name of a format -> what reads it."""

_GGUF = {name for name, block, _ in BLOCKS.values() if block > 1}
"""GGUF's names of what is kept in blocks."""

_TELLTALES = {
    "weight.absmax": "bitsandbytes NF4",
    "SCB": "bitsandbytes INT8",
    "qweight": "SVDQuant or GPTQ",
}
"""Tensor beside the weight, or in its place -> the format that has it."""

_ACTIVATIONS = ("scale_input", "input_scale", "comfy_quant")
"""What belongs to a quantized weight beside its own tensors."""

_MOST_BYTES = 2**16
"""The largest `comfy_quant` tensor; real ones have some 100 bytes."""
_MOST_CHARACTERS = 2**22
"""The longest metadata of forms; real ones have some 100 characters a layer."""


@dataclasses.dataclass(frozen=True)
class Quantization:
    """The forms of the weights under a prefix."""

    forms: Mapping[str, Form]
    """Weight key -> its form, of those that are not plain numbers."""
    refused: Mapping[str, str]
    """Module path -> what it is stored as, of those that cannot be read."""
    unwritable: Mapping[str, str]
    """Module path -> what it is stored as, of those that can be read, and that nothing can be rounded to."""
    elsewhere: Mapping[str, Any]
    """What the metadata says of modules that are not under the prefix."""
    beside: Collection[str]
    """Keys of all that stands beside a weight for its form alone."""

    def shapes(self, stored: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Key -> shape, packed ones as what they stand for."""
        return {**stored, **{key: form.shape for key, form in self.forms.items()}}


def find_forms(checkpoint: Checkpoint, prefix: str) -> Quantization:
    """Tell the form of every weight whose key begins with `prefix`.

    Raises:
        FileError: what the file says of its formats is no JSON.
    """
    layers = _declared(checkpoint)
    modules: dict[str, dict[str, TensorInfo]] = {}
    refused: dict[str, str] = {}
    for key, info in checkpoint.tensors.items():
        if key.startswith(prefix):
            for suffix, title in _TELLTALES.items():
                if key.endswith(f".{suffix}"):
                    refused[key.removeprefix(prefix).removesuffix(f".{suffix}")] = title
            stem, _, name = key.rpartition(".")
            modules.setdefault(stem, {})[name] = info
    forms: dict[str, Form] = {}
    unwritable: dict[str, str] = {}
    for stem, infos in modules.items():
        path = stem.removeprefix(prefix)
        said = layers.get(stem, layers.get(path, {}))
        if "comfy_quant" in infos and not said:
            said = _read(checkpoint, f"{stem}.comfy_quant")
        weight = infos.get("weight")
        if weight is None or path in refused or 0 in (weight.shape or (0,)) or not (said or weight.dtype not in _WIDE):
            continue
        try:
            form = form_of(Found(f"{stem}.weight", infos, said))
        except Unreadable as error:
            refused[path] = str(error)
            continue
        forms[form.found.key] = form
        if form.unavailable:
            refused[path] = f"{form.name}, {form.unavailable}"
        if form.unwritable:
            unwritable[path] = f"{form.name}, {form.unwritable}"
    own = {*modules, *(stem.removeprefix(prefix) for stem in modules)}
    elsewhere = {path: entry for path, entry in layers.items() if path not in own}
    return Quantization(
        forms, refused, unwritable, elsewhere, {key for form in forms.values() for key in _companions(form)}
    )


def form_of(found: Found) -> Form:
    """The form that a weight is said to have, or that its dtype tells; raises `Unreadable` if its tensors make none."""
    if found.said:
        name = str(found.said.get("format"))
        if name not in _FORMS:
            raise Unreadable(name)
        return _FORMS[name](found)
    dtype = found.weight.dtype
    if dtype == "Q8_0":
        return Q8.of(found)
    if dtype in _GGUF:
        return Blocks(found, found.weight.shape)
    if dtype in ("F8_E4M3", "F8_E5M2"):
        return Float8.of(found)
    raise Unreadable({"I8": "INT8 that no comfy_quant describes"}.get(dtype, f"packed {dtype}"))


def _companions(form: Form) -> tuple[str, ...]:
    """Keys of what belongs to a quantized weight and to nothing else."""
    roles = (*form.fixed, *form.beside, *_ACTIVATIONS)
    stem = form.found.key.removesuffix("weight")
    return tuple(f"{stem}{role}" for role in dict.fromkeys(roles) if role in form.found.infos)


def _declared(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    text = checkpoint.metadata.get(QUANTIZATION_METADATA)
    if text is None:
        return {}
    layers = _parsed(QUANTIZATION_METADATA, text.encode()).get("layers")
    if not isinstance(layers, dict):
        raise FileError(f"{QUANTIZATION_METADATA}: expected JSON with layers; the file is damaged")
    return {path: entry for path, entry in cast(dict[str, Any], layers).items() if isinstance(entry, dict)}


def _read(checkpoint: Checkpoint, key: str) -> dict[str, Any]:
    info = checkpoint.tensors[key]
    if info.bytes > _MOST_BYTES:
        raise FileError(f"{key}: expected a JSON object that names a format, found {info.bytes} bytes")
    data = bytearray(info.bytes)
    checkpoint.holder[key].read_into(memoryview(data), key)
    return _parsed(key, bytes(data))


def _parsed(key: str, text: bytes) -> dict[str, Any]:
    try:
        parsed: Any = parse_small(text.decode(), _MOST_CHARACTERS)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise FileError(f"{key}: expected a JSON object that names a format; the file is damaged")
    return cast(dict[str, Any], parsed)
