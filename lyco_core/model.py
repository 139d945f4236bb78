"""A model as adapters see it: its weights by key and shape, whose names they are, and where adapters go on them."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Collection, Mapping, Set

from torch import Tensor

from .adapter_set import AdapterSet
from .architectures import Architecture, identify, recognise
from .errors import FormatError, about_file
from .formats import sort_keys
from .io import Checkpoint
from .layouts import LAYOUTS, Layout
from .placement import Placement, place
from .quantized import Quantization, find_forms
from .selection import EVERYTHING, Selection
from .text import counted

__all__ = ["Model", "model_of"]

_PREFIXES = ("diffusion_model.", "model.diffusion_model.", "transformer.", "model.model.", "net.", "model.", "")
"""What the keys of a diffusion model begin with: in ComfyUI, in its checkpoints, in diffusers' pipelines, and what else
ComfyUI's loader takes off."""

_SEVERAL = {"model.model.", "net."}
"""Prefixes that may be a module's name as well: taken for one, as ComfyUI does, where more than five keys have it."""


@dataclasses.dataclass(frozen=True, repr=False)
class Model:
    """What of a model decides where adapters go."""

    shapes: Mapping[str, tuple[int, ...]]
    """Key -> shape of everything in the model."""
    prefix: str
    """What the keys of its diffusion model begin with."""
    architecture: Architecture | None
    layout: Layout
    """Whose names they are; `comfyui` where the architecture is unknown."""

    @classmethod
    def of(cls, weights: Mapping[str, Tensor | tuple[int, ...]], *, packed: Collection[str] = ()) -> Model:
        """A model by its state dict, or by the shapes of one: its keys and shapes tell architecture, layout and prefix.

        Args:
            packed: keys whose shapes are not those of the weights that they stand for, and tell nothing.
        """
        shapes = {key: tuple(w.shape) if isinstance(w, Tensor) else w for key, w in weights.items()}
        coded = {key for key, w in weights.items() if isinstance(w, Tensor) and not w.dtype.is_floating_point}
        prefixes = [p for p in _PREFIXES if sum(key.startswith(p) for key in shapes) > (5 if p in _SEVERAL else 0)]
        for prefix in prefixes:
            modules = _modules(shapes, prefix)
            silent = (p for p in modules if f"{prefix}{p}.weight" in packed or f"{prefix}{p}.weight" in coded)
            if found := recognise({**modules, **dict.fromkeys(silent)}):
                return cls(shapes, prefix, *found)
        return cls(shapes, prefixes[0] if prefixes else "", None, "comfyui")

    @classmethod
    def of_file(cls, path: str | os.PathLike[str]) -> Model:
        """A model by its checkpoint, or by all the shards of one; headers alone are read.

        Raises:
            FileError: it is not a readable checkpoint.
        """
        with Checkpoint(path) as checkpoint, about_file(path):
            return model_of(checkpoint)[0]

    def __repr__(self) -> str:
        """How large it is, and of which family: `Model(Z-Image, 453 weights)`."""
        family = self.architecture.title if self.architecture else "unknown architecture"
        return f"{type(self).__name__}({family}, {counted(len(self.shapes), 'weight')})"

    @functools.cached_property
    def modules(self) -> dict[str, tuple[int, ...]]:
        """Module path -> shape of the weights of the diffusion model."""
        return _modules(self.shapes, self.prefix)

    @property
    def paths(self) -> Set[str]:
        """Module paths of the weights of the diffusion model."""
        return self.modules.keys()

    @functools.cached_property
    def naming(self) -> Layout:
        """`comfyui` where its names are ComfyUI's as well as those of its layout, and its layout elsewhere."""
        family, layout = self.architecture, self.layout
        if family is None or layout == "comfyui":
            return layout
        known = (path for path in self.paths if family.resolve(path, layout, underscored=False))
        return "comfyui" if all(family.resolve(path, "comfyui", underscored=False) for path in known) else layout

    def identify(self, adapter_set: AdapterSet, architecture: str | None = None) -> AdapterSet:
        """The set with its architecture filled in; where its names leave that open, this model decides.

        A model of no known family has only names of its own: a set whose modules are all among them stays as it is.

        Args:
            adapter_set: as `formats.parse` makes it; an outline will do.
            architecture: the family's id, where a person says it.

        Raises:
            ArchitectureError: see `architectures.identify`.
        """
        if architecture is None and self.architecture is None and self._has_all(adapter_set):
            return adapter_set
        return identify(
            adapter_set,
            architecture=architecture,
            model_modules=self.modules,
            prefer=self.architecture.id if self.architecture else None,
            layout=self.naming,
        )

    def _has_all(self, adapter_set: AdapterSet) -> bool:
        """Whether every module, but those of text encoders, is one of this model by its name and its shape."""
        others = adapter_set.format.other_prefixes if adapter_set.format else ()
        found = place(adapter_set, self.shapes, prefix=self.prefix)
        strangers = (path for path in found.homeless if not adapter_set.prefixes[path].startswith(others))
        return bool(found.placed) and not found.misfits and not any(strangers)

    def place(self, adapter_set: AdapterSet, selection: Selection = EVERYTHING) -> Placement:
        """Find the weight, and the rows of it, for each adapter, and what of them takes part.

        Args:
            adapter_set: an outline will do; it is identified here, unless it is already.

        Raises:
            ArchitectureError: see `architectures.identify`.
            AdapterError: two modules contradict each other.
            SelectionError: a pattern takes too long.
        """
        found = adapter_set if adapter_set.architecture else self.identify(adapter_set)
        # Families share names, so the model may have been taken for a sister of the adapter's in another layout.
        sisters = found.architecture is not None and found.architecture is not self.architecture
        layouts = dict.fromkeys((self.naming, *LAYOUTS)) if sisters else (self.naming,)
        placements = (place(found, self.shapes, layout=layout, prefix=self.prefix) for layout in layouts)
        best = max(placements, key=lambda placement: placement.modules)
        return dataclasses.replace(best, family=self.architecture).select(selection)


def model_of(checkpoint: Checkpoint) -> tuple[Model, Quantization]:
    """The model of an open checkpoint, packed weights by the shapes that they stand for; and their forms.

    Raises:
        FileError: what the file says of its formats is damaged.
        FormatError: it is an adapter.
    """
    stored = Model.of(checkpoint.shapes)
    if stored.architecture is None:
        _refuse_adapter(checkpoint)
    quantization = find_forms(checkpoint, stored.prefix)
    shapes = quantization.shapes(stored.shapes)
    if shapes == stored.shapes and not quantization.refused:
        return stored, quantization
    model = Model.of(shapes, packed={f"{stored.prefix}{path}.weight" for path in quantization.refused})
    return model, quantization if model.prefix == stored.prefix else find_forms(checkpoint, model.prefix)


def _refuse_adapter(checkpoint: Checkpoint) -> None:
    keys = sort_keys(checkpoint.shapes, lambda key: checkpoint.holder[key].tensor(key))
    if keys.modules and not keys.unrecognised:
        raise FormatError("is an adapter, expected a model's weights; name the model's own file")


def _modules(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> dict[str, tuple[int, ...]]:
    """Path -> shape, for every key that is `prefix` + path + `.weight`."""
    start, stop = len(prefix), -len(".weight")
    return {k[start:stop]: shape for k, shape in shapes.items() if k.startswith(prefix) and k.endswith(".weight")}
