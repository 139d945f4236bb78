"""Adapters into a ComfyUI model: a model of its own, whose changed weights are the sums."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from typing import Any

import comfy.lora
import comfy.model_management
import torch
from torch import Tensor

from ....lyco_core.errors import MergeError, about_file
from ....lyco_core.merging.survival import Tally
from ....lyco_core.selection import EVERYTHING, Selection, weight_path
from ....lyco_core.text import counted
from ..files import adapter_path
from ..progress import Progress
from ..protocols import ModelPatcher
from .kept_passes import forget
from .loading import Applied, Loaded
from .matching import match_model
from .places import Change, Place, add_changes, scaled
from .weights import is_quantized, layout_of, read_weight, require_mergeable, write_weight


def merge_onto(
    model: ModelPatcher, name: str, strength: float, *, partial: bool = False, selection: Selection = EVERYTHING
) -> Loaded:
    """A model like `model` with the file's adapters in its weights; `model` stays as it is.

    Weights that nothing changes are shared with it. The sums are float32, rounded once to the
    nearest number that each weight's dtype or layout has. Patches that `model` holds stay patches.

    Args:
        model: it is unloaded, so that its weights are its own.
        name: of a file in models/loras.
        partial: merge what matches and warn about the rest, instead of refusing.

    Raises:
        LycoError: the file is bad or does not fit, or a weight is stored in a way that nothing
            can be merged into.
    """
    with about_file(adapter_path(name)):
        match = match_model(name, model, None, selection)
        found = match.changes(partial=partial)
        if strength == 0:
            text = "strength 0, nothing is merged"
            return Loaded(model, None, f"{name}: {text}", (Applied(match, text),))
        source = standing(model, "use Merge into Checkpoint File")
        changes = patches_by_weight(source, scaled(found, strength))
        unload(source)
        for key in changes:
            require_mergeable(source.model, key)
        with torch.inference_mode(False), torch.no_grad():
            merged = twin(source)
            progress, tally = Progress(), Tally()
            for done, (key, patches) in enumerate(changes.items()):
                progress(done, len(changes))
                before = read_weight(merged.model, key, source.load_device)
                coarse = is_quantized(merged.model, key)
                values = before.clone() if coarse else before
                values = comfy.lora.calculate_weight(patches, values, key, intermediate_dtype=torch.float32)
                change = values - before if coarse else None
                write_weight(merged.model, key, values)
                if change is not None:
                    stored = read_weight(merged.model, key, source.load_device).sub_(before)
                    tally.add(weight_path(key, match.placement.prefix), change, stored.sub_(change))
    report = [
        match.headline(f"strength {strength:g}"),
        *match.lines(),
        f"{counted(len(changes), 'weight')} merged",
        *tally.lines(),
    ]
    return Loaded(merged, None, "\n".join(report), (Applied(match, f"merged, strength {strength:g}"),))


def patches_by_weight(model: ModelPatcher, changes: Mapping[Place, Change]) -> dict[str, list[Any]]:
    """Weight key -> its patches as ComfyUI's arithmetic takes them, spelt by a patcher that has no others."""
    clean = model.clone()
    clean.patches = {}
    add_changes(clean, changes)
    return clean.patches


def standing(model: ModelPatcher, instead: str) -> ModelPatcher:
    """`model`, or the same with weights that stay in memory, where ComfyUI streams them from the file.

    Raises `MergeError`, which names what to do `instead`, if there is no file to load it from again.
    """
    if not getattr(model, "is_dynamic", lambda: False)():
        return model
    try:
        return model.clone(disable_dynamic=True)
    except RuntimeError as error:
        raise MergeError(
            f"ComfyUI streams this model's weights and cannot load them otherwise ({error}); start it with "
            f"--disable-dynamic-vram, or {instead}"
        ) from error


def unload(model: ModelPatcher, device: torch.device | None = None) -> None:
    """Take the model and its clones off the device, and every patch off its weights.

    device: where ComfyUI believes it to be, if that is not where it computes.
    """
    loaded = comfy.model_management.current_loaded_models
    others = [entry for entry in loaded if entry.model is None or not model.is_clone(entry.model)]
    if len(others) < len(loaded):
        comfy.model_management.free_memory(1e30, device or model.load_device, others)
    if model.backup:
        raise MergeError("ComfyUI did not take the patches off the model's weights; run the prompt again")


def twin(model: ModelPatcher) -> ModelPatcher:
    """A patcher over a copy of the model that shares all weights with it, each in a Parameter of its own."""
    memo: dict[int, object] = {id(model.model.model_config): model.model.model_config}
    for tensor in (*model.model.parameters(), *model.model.buffers()):
        memo[id(tensor)] = sharing(tensor)
    copied = model.clone()
    # `current_patcher` would take the patcher along, and with it whatever that holds.
    patcher, model.model.current_patcher = model.model.current_patcher, None
    try:
        copied.model = copy.deepcopy(model.model, memo)
    finally:
        model.model.current_patcher = patcher
    forget(copied.model)
    copied.parent = None
    copied.backup, copied.object_patches_backup, copied.hook_backup = {}, {}, {}
    for name in ("backup_buffers", "pinned"):  # 0.28
        if hasattr(copied, name):
            setattr(copied, name, type(getattr(copied, name))())
    # What was merged is in no file that ComfyUI could load again, and no clone of the original has it.
    copied.cached_patcher_init = None
    copied.clone_base_uuid = uuid.uuid4()
    return copied


def sharing(tensor: Tensor) -> Tensor:
    """Another tensor object on the same memory."""
    if layout_of(tensor) is not None:  # which ComfyUI detaches where nodes run, and torch only if it was made there
        with torch.inference_mode(tensor.is_inference()):
            return torch.nn.Parameter(tensor.detach(), requires_grad=False)
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(tensor.detach(), requires_grad=False)
    return tensor.detach()
