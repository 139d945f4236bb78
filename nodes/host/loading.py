"""Adapters onto a ComfyUI model: our placement first, ComfyUI's own names for what is left."""

from __future__ import annotations

import dataclasses
import logging

from ...lyco_core.adapter_set import AdapterSet
from ...lyco_core.adapters import ALGORITHMS
from ...lyco_core.architectures import ARCHITECTURES, identify
from ...lyco_core.errors import PlacementError, about_file
from ...lyco_core.inspect import describe_match, inspect_file
from ...lyco_core.model_weights import ModelWeights, describe_weights
from ...lyco_core.placement import Placement, place
from .files import adapter_path, cached_adapter_set
from .patch import LycoPatch
from .stock import StockMatch, match_by_names

log = logging.getLogger("lyco")


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What *Load LoHa/LoKr* returns."""

    model: object
    clip: object | None
    report: str


def load_onto(model, clip, name: str, strength: float, *, partial: bool) -> Loaded:
    """Clones of `model` and `clip` with the file's adapters at `strength`.

    Args:
        model: a ModelPatcher.
        clip: a CLIP, or None.
        name: of a file in models/loras.
        partial: apply what matches and warn about the rest, instead of refusing.

    Raises:
        LycoError: the file is bad, or does not fit (all of it, unless `partial`).
    """
    with about_file(adapter_path(name)):
        weights = model_weights(model)
        adapters = identify(cached_adapter_set(name), weights=weights.paths)
        placement = place(adapters, weights.shapes, prefix=weights.prefix)
        rest = match_by_names(placement, model, clip, weights.shapes)
        left_out = problem(placement, rest, weights)
        if left_out and (not partial or not (placement.placed or rest.patches)):
            raise PlacementError(left_out)
        if left_out:
            log.warning("%s: %s", name, left_out)
        if strength == 0:
            return Loaded(model, clip, f"{name}: strength 0, nothing is applied")
        patches = our_patches(placement) | rest.patches
        patched, patched_clip = _add(model, clip, patches, strength)
        if adapters.metadata:
            patched.set_attachments("lora_metadata", dict(adapters.metadata))
    return Loaded(patched, patched_clip, report(name, strength, placement, rest, left_out))


def inspect(name: str, model=None) -> str:
    """What a file is, from its header, and what `model` would take of it."""
    path = adapter_path(name)
    lines = inspect_file(path).lines()
    if model is not None:
        with about_file(path):
            weights = model_weights(model)
            placement = place(
                identify(cached_adapter_set(name), weights=weights.paths), weights.shapes, prefix=weights.prefix
            )
            rest = match_by_names(placement, model, None, weights.shapes)
            lines += match_lines(placement, rest, problem(placement, rest, weights))
    return "\n".join(lines)


def model_weights(model) -> ModelWeights:
    """Keys and shapes of a ModelPatcher's weights; of quantized ones, the shape that they stand for."""
    shapes = {key: tuple(tensor.shape) for key, tensor in model.model.state_dict().items()}
    shapes |= {key: tuple(p.shape) for key, p in model.model.named_parameters() if key in shapes}
    return describe_weights(shapes)


def our_patches(placement: Placement) -> dict:
    """What `add_patches` takes: weight key, or (key, (dimension, start, length)) for rows -> patch."""
    patches = {}
    for piece in placement.placed:
        prefix = placement.adapter_set.prefixes[piece.module_path]
        patch = LycoPatch.of(piece.part(placement.adapter_set.adapters[piece.module_path]), prefix)
        rows = piece.rows
        patches[piece.key if rows is None else (piece.key, (0, rows[0], rows[1] - rows[0]))] = patch
    return patches


def _add(model, clip, patches: dict, strength: float) -> tuple:
    patched = model.clone()
    taken = set(patched.add_patches(patches, strength))
    patched_clip = None
    if clip is not None:
        patched_clip = clip.clone()
        taken |= set(patched_clip.add_patches(patches, strength))
    if lost := patches.keys() - taken:
        raise PlacementError(f"ComfyUI did not take {len(lost)} patches, e.g. {next(iter(lost))}; nothing was applied")
    return patched, patched_clip


def problem(placement: Placement, rest: StockMatch, weights: ModelWeights) -> str:
    """What of the file is left out and why, in one line; empty if nothing is."""
    homeless = tuple(path for path in placement.homeless if path not in rest.modules)
    remaining = dataclasses.replace(
        placement,
        adapter_set=dataclasses.replace(
            placement.adapter_set, unrecognised={key: placement.adapter_set.unrecognised[key] for key in rest.unread}
        ),
        homeless=homeless,
        misfits=placement.misfits + rest.misfits,
    )
    text = remaining.problem()
    if not text:
        return ""
    ours = ARCHITECTURES.get(placement.adapter_set.architecture or "")
    theirs = weights.architecture
    if homeless and not placement.placed and ours and theirs and ours is not theirs:
        text = f"is an adapter for {ours.title}, the model is {theirs.title}; {text}"
    return text


def report(name: str, strength: float, placement: Placement, rest: StockMatch, left_out: str) -> str:
    """What was loaded, for a person to read."""
    found: AdapterSet = placement.adapter_set
    family = ARCHITECTURES.get(found.architecture or "")
    kinds = ", ".join(f"{count} {ALGORITHMS[algorithm].title}" for algorithm, count in found.algorithms.items())
    head = f"{name}: {family.title + ', ' if family else ''}{kinds or 'no LoRA, LoHa or LoKr'}, strength {strength:g}"
    return "\n".join([head, *match_lines(placement, rest, left_out)])


def match_lines(placement: Placement, rest: StockMatch, left_out: str) -> list[str]:
    """How much matched, by which names, and what did not."""
    lines = [line for line in describe_match(placement) if not line.startswith("left out")]
    if rest.patches:
        lines.append(f"{len(rest.patches)} weights through ComfyUI's own names: {rest.summary}")
    if left_out:
        lines.append(f"left out: {left_out}")
    return lines
