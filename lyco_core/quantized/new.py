"""Forms for weights that are plain numbers so far: what stands in a file for each, as ComfyUI itself would store it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping

from ..io import TensorInfo
from ..io.tensor_info import DTYPE_BITS
from .find import form_of
from .form import Form, Found, Unreadable
from .tiled import tiles
from .w4 import NewW4A8

__all__ = ["MARKER", "NEW_FORMS", "NewForm"]

MARKER = "comfy_quant"
"""The role of the tensor that names a weight's form to ComfyUI."""

Stored = Mapping[str, tuple[str, tuple[int, ...]]]
"""Role -> dtype and shape."""


@dataclasses.dataclass(frozen=True)
class NewForm:
    """A form that a weight can be given."""

    said: Mapping[str, object]
    """What ComfyUI's own state dict of such a module says in `comfy_quant`, in its order."""
    stored: Callable[[int, int], Stored]
    """What stands in a file for a weight of (rows, columns)."""
    multiples: tuple[int, int] = (1, 1)
    """What divides (rows, columns): ComfyUI fills others up, leaves them unrotated or refuses them; here they stay."""
    of: Callable[[Found], Form] = form_of

    @property
    def packed(self) -> bool:
        """Whether two numbers of a row are in a byte."""
        return self.stored(1, 2)["weight"][1] == (1, 1)

    @property
    def marker(self) -> bytes:
        """The numbers of `comfy_quant`."""
        return json.dumps(self.said).encode()

    def form(self, key: str, shape: tuple[int, ...]) -> Form:
        """The form of a weight; raises `Unreadable` if it cannot have it."""
        for size, multiple, name in zip(shape, self.multiples, ("rows", "columns"), strict=True):
            if size % multiple:
                raise Unreadable(f"{size} {name} are no multiple of {multiple}")
        stored = {**self.stored(*shape), MARKER: ("U8", (len(self.marker),))}
        return self.of(Found(key, {role: _info(*of) for role, of in stored.items()}, self.said))


def _info(dtype: str, shape: tuple[int, ...]) -> TensorInfo:
    size = DTYPE_BITS[dtype] // 8
    for side in shape:
        size *= side
    return TensorInfo(dtype, shape, 0, size)


_ROTATION = 256
"""Columns that are rotated together, in every file that Comfy-Org publishes."""
_GROUP = 16

NEW_FORMS: dict[str, NewForm] = {
    "int8_convrot": NewForm(
        {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": _ROTATION},
        lambda rows, columns: {"weight": ("I8", (rows, columns)), "weight_scale": ("F32", (rows, 1))},
        (1, _ROTATION),
    ),
    # Activations would be rounded too, by a scale that only a calibration can tell: Comfy-Org's converter says as well
    # that they are not.
    "fp8_scaled": NewForm(
        {"format": "float8_e4m3fn", "full_precision_matrix_mult": True},
        lambda rows, columns: {"weight": ("F8_E4M3", (rows, columns)), "weight_scale": ("F32", ())},
        (1, 16),
    ),
    "mxfp8": NewForm(
        {"format": "mxfp8"},
        lambda rows, columns: {
            "weight": ("F8_E4M3", (rows, columns)),
            "weight_scale": ("F8_E8M0", tiles(rows, columns // 32)),
        },
        (32, 32),
    ),
    "nvfp4": NewForm(
        {"format": "nvfp4"},
        lambda rows, columns: {
            "weight": ("U8", (rows, columns // 2)),
            "weight_scale": ("F8_E4M3", tiles(rows, columns // 16)),
            "weight_scale_2": ("F32", ()),
        },
        (16, 16),
    ),
    "w4a8": NewForm(
        {"format": "asym_w4a8_int8", "group_size": _GROUP, "convrot_groupsize": _ROTATION},
        lambda rows, columns: {
            "weight": ("I8", (rows, columns // 2)),
            "weight_s_rel": ("F8_E4M3", (rows, columns // _GROUP)),
            "weight_s_channel": ("F32", (rows,)),
            "weight_codebook": ("F32", (16,)),
        },
        (1, _ROTATION),
        NewW4A8.of,
    ),
}
"""What a file is named after in ComfyUI's model folders -> the form of its Linears."""
