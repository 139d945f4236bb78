"""An adapter from two checkpoints: what turns the one into the other, one weight at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .. import __version__
from ..adapters import Adapter, Full
from ..errors import FileError, LycoError, MergeError, PlacementError, about_file, shorten
from ..formats import FORMATS
from ..formats.suffixes import ALPHA, suffix_of
from ..io import Checkpoint, TensorSpec, library_order, refuse_existing, sshs_hashes, write_safetensors
from ..io.output import refuse_inputs
from ..load import check_finite
from ..model_weights import ModelWeights, describe_checkpoint
from ..quantized import Quantization
from ..quantized.reading import read_weight
from ..selection import weight_path
from .hadamard import nearest_loha
from .kronecker import nearest_lokr
from .lora import best_lora
from .options import ExtractOptions
from .report import Module, Report

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
    with Checkpoint(base) as old, Checkpoint(tuned) as new:
        refuse_inputs(output, [file.path for file in (*old.files, *new.files)])
        pairs = _Pairs(old, new)
        made = _extracted(pairs, options, progress)
        architecture = pairs.base.architecture
        names = os.path.basename(old.path), os.path.basename(new.path)
    tensors, report = made
    if not tensors:
        raise LycoError(f"{names[1]}: none of its selected weights differs from that of {names[0]}; nothing to extract")
    record = {"version": __version__, "base": names[0], "tuned": names[1], "error": report.error}
    metadata = {"lyco_extraction": json.dumps(record, sort_keys=True)}
    if architecture is not None:
        metadata["lyco_architecture"] = architecture.id
    metadata |= _network_metadata(options, report)
    specs = library_order([TensorSpec(key, tuple(t.shape), t.dtype) for key, t in tensors.items()])
    data = (tensors[spec.key] for spec in specs)
    write_safetensors(output, specs, data, metadata | sshs_hashes(tensors, metadata), overwrite=overwrite)
    return report


class _Pairs:
    """The weights of the diffusion models of two checkpoints, under one name each."""

    def __init__(self, old: Checkpoint, new: Checkpoint) -> None:
        self.old, self.new = old, new
        (self.base, self._old_forms), (self.tuned, self._new_forms) = (_described(c) for c in (old, new))
        names = [
            {k.removeprefix(w.prefix): k for k in w.shapes if k.startswith(w.prefix) and k.endswith(_ENDS)}
            for w in (self.base, self.tuned)
        ]
        self.keys = {name: (key, names[1][name]) for name, key in names[0].items() if name in names[1]}
        self._require_alike(set(names[0]), set(names[1]))

    def _require_alike(self, ours: set[str], theirs: set[str]) -> None:
        problems: list[str] = []
        if missing := sorted(ours - theirs):
            problems.append(f"{len(missing)} weights of the base are not in it ({shorten(missing)})")
        if extra := sorted(theirs - ours):
            problems.append(f"{len(extra)} weights are not in the base ({shorten(extra)})")
        if other := [n for n, (a, b) in self.keys.items() if self.base.shapes[a] != self.tuned.shapes[b]]:
            problems.append(f"{len(other)} have another shape than the base's ({shorten(other)})")
        if problems:
            with about_file(self.new.path):
                raise PlacementError("; ".join(problems) + "; give the checkpoint that it was tuned from")

    def difference(self, name: str, device: str) -> Tensor:
        """tuned - base in float32."""
        ours, theirs = self.keys[name]
        tuned = _values(self.new, theirs, self._new_forms, device)
        return tuned.sub_(_values(self.old, ours, self._old_forms, device))


_ENDS = (".weight", ".bias")


def _described(checkpoint: Checkpoint) -> tuple[ModelWeights, Quantization]:
    with about_file(checkpoint.path):
        weights, quantization = describe_checkpoint(checkpoint)
        if quantization.refused:
            path, title = next(iter(quantization.refused.items()))
            raise MergeError(f"{path}: is stored as {title}; extract from a checkpoint that can be read, such as bf16")
    return weights, quantization


def _values(checkpoint: Checkpoint, key: str, quantization: Quantization, device: str) -> Tensor:
    """A float32 copy of what a weight stands for."""
    file, form = checkpoint.holder[key], quantization.forms.get(key)
    with about_file(file.path):
        if form is not None:
            values = read_weight(form, checkpoint.holder, device)
        else:
            values = file.tensor(key).to(device, torch.float32, copy=True)
        check_finite(key, values)
        return values


def _extracted(pairs: _Pairs, options: ExtractOptions, progress: Progress) -> tuple[dict[str, Tensor], Report]:
    form = FORMATS["diffusers" if pairs.base.layout == "diffusers" else "comfyui"]  # dotted: nothing to guess
    family = pairs.base.architecture
    start = family.diffusers_prefix if family is not None and form.peft else form.module_prefixes[0]
    names = {name: (weight_path(name, ""),) for name in pairs.keys}
    chosen = options.selection.choose(names)
    tensors: dict[str, Tensor] = {}
    modules: list[Module] = []
    exact = unchanged = 0
    for done, (name, share) in enumerate(chosen.items()):
        progress(done, len(chosen))
        delta = pairs.difference(name, options.device).mul_(share)
        if not delta.any():
            unchanged += 1
            continue
        prefix, bias = start + name.rpartition(".")[0], name.endswith(".bias")
        if delta.dim() < 2:
            exact += 1
            tensors[f"{prefix}.{'diff_b' if bias else 'diff'}"] = delta.to("cpu", options.dtype)
            continue
        adapter = _fitted(name, delta, options)
        modules.append(_measured(name, adapter, delta))
        tensors |= dict(_stored(prefix, adapter, peft=form.peft))
    progress(len(chosen), len(chosen))
    return tensors, Report(tuple(modules), exact, unchanged)


def _fitted(name: str, delta: Tensor, options: ExtractOptions) -> Adapter:
    """The adapter nearest to `delta` as it will be stored."""
    asked = options.asked
    rank = None if asked is None else asked.rank
    if options.algorithm == "lora":
        assert asked is not None
        made: Adapter = best_lora(Full(delta), rank=rank, max_error=asked.max_error)
    elif options.algorithm == "loha":
        assert rank is not None
        made = nearest_loha(delta.flatten(1), rank)
    else:
        made = nearest_lokr(delta, options.factor, rank)
    stored = made.to("cpu", options.dtype)
    for field, tensor in stored.tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise FileError(f"{name}: {field} has numbers that {options.dtype} cannot hold; use bfloat16 or float32")
    return stored


def _measured(name: str, adapter: Adapter, delta: Tensor) -> Module:
    norm = float(delta.double().square().sum().sqrt())
    adapter.to(delta.device).add_to_(delta, -1.0)
    error = float(delta.double().square().sum().sqrt()) / norm
    return Module(name.removesuffix(".weight"), adapter.algorithm, adapter.rank, error, norm)


def _stored(prefix: str, adapter: Adapter, *, peft: bool) -> Iterator[tuple[str, Tensor]]:
    for (algorithm, field), tensor in adapter.stored.items():
        yield f"{prefix}.{suffix_of(algorithm, field, peft=peft)}", tensor.contiguous()
    yield f"{prefix}.{ALPHA}", torch.tensor(adapter.alpha)


def _network_metadata(options: ExtractOptions, report: Report) -> dict[str, str]:
    """What trainers write of a network; the largest rank stands for all."""
    rank = max((m.rank for m in report.modules if m.rank is not None), default=0)
    found = {"ss_network_module": f"networks.{options.algorithm}"}
    if rank:
        found |= {"ss_network_dim": str(rank), "ss_network_alpha": str(float(rank))}
    if options.algorithm == "lokr":
        found["ss_network_args"] = json.dumps({"factor": str(options.factor)})
    return found
