"""An adapter from two checkpoints: what turns the one into the other, one weight at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Set

import torch
from torch import Tensor

from ..adapter_set import AdapterSet
from ..adapter_writer import save_adapter_set, stored_as
from ..adapters import Adapter, Full
from ..checkpoint_weights import CheckpointWeights
from ..errors import LycoError, MergeError, PlacementError, about_file
from ..formats import FORMATS, is_peft, spelled
from ..io import refuse_existing
from ..io.output import refuse_inputs
from ..model import Model
from ..placement import place
from ..quantized import SCALED_MARKER, Quantization
from ..selection import Selection, weight_path
from ..text import shorten
from ..version import __version__
from .nearest import NEAREST
from .options import ExtractOptions, RankTooSmall
from .report import Measured, Report

__all__ = ["extract_file"]

Progress = Callable[[int, int], None]


def extract_file(
    base: str | os.PathLike[str],
    tuned: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: ExtractOptions,
    *,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Write the adapter that turns `base` into `tuned`, under the names of the base's layout.

    Norms and biases that differ are kept exactly. Memory holds the adapters and one weight.

    Args:
        base, tuned: safetensors files, shards, indices, or folders with one of these.
        progress: called with the weights that are done and all there are; what it raises ends it.

    Raises:
        LycoError: the two are not of one shape, nothing differs, or the output cannot be written.
    """
    with about_file(output):
        refuse_existing(output, overwrite=overwrite)
    with CheckpointWeights(base) as old, CheckpointWeights(tuned) as new:
        refuse_inputs(output, [file.path for file in (*old.checkpoint.files, *new.checkpoint.files)])
        pairs = _Pairs(old, new, options.selection)
        adapters, report = _extracted(pairs, options, progress)
        names = os.path.basename(old.checkpoint.path), os.path.basename(new.checkpoint.path)
    if not adapters:
        raise LycoError(f"{names[1]}: none of its selected weights differs from that of {names[0]}; nothing to extract")
    record = {"version": __version__, "base": names[0], "tuned": names[1], "error": report.error}
    metadata = {"lyco_extraction": json.dumps(record, sort_keys=True)} | _network_metadata(options, report)
    with about_file(tuned):
        found = _named(adapters, pairs.base)
        _require_places(found, pairs.base)
        save_adapter_set(found, output, overwrite=overwrite, metadata=metadata)
    return report


def _named(made: Mapping[str, Adapter], base: Model) -> AdapterSet:
    """The adapters under the base's own names, with dots: nothing to guess."""
    names, family = {path: path for path in made}, base.architecture
    found = AdapterSet(made, names, None, {}, architecture=family, layout=base.layout)
    return spelled(found, FORMATS["diffusers" if base.layout == "diffusers" else "comfyui"])


class _Pairs:
    """The weights of the diffusion models of two checkpoints, under one name each."""

    def __init__(self, old: CheckpointWeights, new: CheckpointWeights, selection: Selection) -> None:
        _require_read(old)
        _require_read(new)
        self.old, self.new = old, new
        self.base, self.tuned = old.model, new.model
        ours, theirs = (_by_name(weights.model, weights.quantization) for weights in (old, new))
        self.keys = {name: (key, theirs[name]) for name, key in ours.items() if name in theirs}
        self.chosen = selection.choose({name: (weight_path(name, ""),) for name in dict.fromkeys([*ours, *theirs])})
        self._require_alike(self.chosen.keys() & ours.keys(), self.chosen.keys() & theirs.keys())

    def _require_alike(self, ours: Set[str], theirs: Set[str]) -> None:
        problems: list[str] = []
        if missing := sorted(ours - theirs):
            problems.append(f"{len(missing)} weights of the base are not in it ({shorten(missing)})")
        if extra := sorted(theirs - ours):
            problems.append(f"{len(extra)} weights are not in the base ({shorten(extra)})")
        both = [(name, *self.keys[name]) for name in sorted(ours & theirs)]
        if other := [n for n, a, b in both if self.base.shapes[a] != self.tuned.shapes[b]]:
            problems.append(f"{len(other)} have another shape than the base's ({shorten(other)})")
        if problems:
            with about_file(self.new.checkpoint.path):
                raise PlacementError("; ".join(problems) + "; give the checkpoint that it was tuned from")

    def difference(self, name: str, device: str) -> Tensor:
        """tuned - base in float32. Raises `MergeError` if they are no numbers that a difference could change."""
        ours, theirs = self.keys[name]
        if ours not in self.old.quantization.forms and theirs not in self.new.quantization.forms:
            both = [(w.checkpoint.holder[key], key) for w, key in ((self.old, ours), (self.new, theirs))]
            if any(not outline.is_floating_point() or not outline.dim() for outline in (f.outline(k) for f, k in both)):
                old, new = (file.tensor(key) for file, key in both)
                if torch.equal(old, new):
                    return torch.zeros(1)
                with about_file(self.new.checkpoint.path):
                    raise MergeError(
                        f"{theirs}: {_kind(new)} differs from the base's, which no adapter can express; leave it out "
                        f"(exclude {weight_path(name, '')})"
                    )
        tuned, base = (w.read(key).float().to(device) for w, key in ((self.new, theirs), (self.old, ours)))
        return tuned.sub_(base)


def _kind(tensor: Tensor) -> str:
    return f"a tensor of {str(tensor.dtype).removeprefix('torch.')}" if tensor.dim() else "a lone number"


def _require_read(weights: CheckpointWeights) -> None:
    for path, title in weights.quantization.refused.items():
        with about_file(weights.checkpoint.path):
            raise MergeError(f"{path}: is stored as {title}; extract from a checkpoint that can be read, such as bf16")


def _by_name(model: Model, quantization: Quantization) -> dict[str, str]:
    """Name -> key of every tensor of the diffusion model, but for what only says how others are stored."""
    markers = {*quantization.beside, model.prefix + SCALED_MARKER}
    keys = (key for key in model.shapes if key.startswith(model.prefix) and key not in markers)
    return {key.removeprefix(model.prefix): key for key in keys}


def _extracted(pairs: _Pairs, options: ExtractOptions, progress: Progress) -> tuple[dict[str, Adapter], Report]:
    """What turns the base into the other, as it will be stored, by module path; and how near it is."""
    made: dict[str, Adapter] = {}
    modules: list[Measured] = []
    needed: dict[str, int] = {}
    unchanged = 0
    for done, (name, share) in enumerate(pairs.chosen.items()):
        progress(done, len(pairs.chosen))
        delta = pairs.difference(name, options.device).mul_(share)
        path = weight_path(name, "")
        if not delta.any():
            unchanged += 1
        elif delta.dim() < 2 or path == name:  # a norm, a bias, or a table that is no module's
            made[path] = stored_as(Full(delta.cpu()), options.dtype, name)
        else:
            try:
                made[path] = _fitted(path, delta, options)
            except RankTooSmall as error:
                needed[path] = error.needed
                continue
            modules.append(Measured.of(path, made[path], delta))
    progress(len(pairs.chosen), len(pairs.chosen))
    if options.limits is not None:
        options.limits.require(needed, modules)
    return made, Report(tuple(modules), len(made) - len(modules), unchanged)


def _require_places(found: AdapterSet, base: Model) -> None:
    """Raise `PlacementError` if nobody would find a place for a tensor; PEFT itself asks for none."""
    if is_peft(found):
        return
    if base.layout == "diffusers":  # its files of anything but LoRA are ComfyUI's alone
        placement = place(found, layout="comfyui")
    else:
        placement = place(found, base.shapes, layout=base.layout, prefix=base.prefix)
    if lost := placement.homeless:
        raise PlacementError(
            f"{len(lost)} of the {len(found.adapters)} tensors that differ cannot be loaded under the names that they "
            f"have ({shorten(list(lost))}); leave them out (exclude), or extract from checkpoints with ComfyUI's names"
        )


def _fitted(path: str, delta: Tensor, options: ExtractOptions) -> Adapter:
    """The adapter nearest to `delta` as it will be stored."""
    return stored_as(NEAREST[options.algorithm](delta, options).to("cpu"), options.dtype, path)


def _network_metadata(options: ExtractOptions, report: Report) -> dict[str, str]:
    """What trainers write of a network; the largest rank stands for all."""
    rank = max((m.rank for m in report.modules if m.rank is not None), default=0)
    found = {"ss_network_module": f"networks.{options.algorithm}"}
    if rank:
        found |= {"ss_network_dim": str(rank), "ss_network_alpha": str(float(rank))}
    if options.algorithm == "lokr":
        found["ss_network_args"] = json.dumps({"factor": str(options.factor)})
    return found
