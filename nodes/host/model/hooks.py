"""Adapters that act where a prompt has their hook: ComfyUI's hooks, with what this pack knows of files and weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

import comfy.hooks
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import nn

from ....lyco_core.adapter_set import AdapterSet
from ....lyco_core.errors import PlacementError, Remedy, about_file, advising
from ....lyco_core.formats import split_key
from ....lyco_core.formats.grammar import is_text_encoders
from ....lyco_core.placement import place
from ....lyco_core.text import shorten
from ..files import adapter_path, cached_adapter_set
from ..protocols import CLIP, ModelPatcher
from .beside import MODES, Layer, beside_while, checked_call, divide, layers_of, put_beside
from .beside.seat import adds
from .kept_passes import forget_each_pass
from .matching import Match, model_weights, problem
from .places import Changes, scaled
from .stock import match_by_names
from .weights import gguf_type, layout_of

KEY = "lyco_hooks"
"""Under which a sampling's options hold what its hooks bring."""

ADVICE = {Remedy.LEAVE_OUT: "set on_partial_match of Create Hook LoHa/LoKr to warn to apply the rest"}


@dataclasses.dataclass(frozen=True)
class Request:
    """What *Create Hook LoHa/LoKr* is asked for."""

    name: str
    """Of a file in models/loras."""
    model_strength: float
    clip_strength: float
    partial: bool = False
    mode: str = MODES[0]


def hooked(request: Request, before: comfy.hooks.HookGroup | None) -> comfy.hooks.HookGroup:
    """`before`, and the hook of a file; what a file is is told when it is created, and where it goes when it is used.

    Raises:
        LycoError: the file is bad, or no adapter.
    """
    with about_file(adapter_path(request.name)):
        hook = LycoHook.of(request, cached_adapter_set(request.name))
    group = comfy.hooks.HookGroup()
    group.add(hook)
    return group if before is None else before.clone_and_combine(group)


class LycoHook(comfy.hooks.WeightHook):
    """A hook of weights to ComfyUI, with its keyframes and all; only how it gets onto a model is ours."""

    def __init__(self) -> None:
        super().__init__()
        self.request: Request | None = None
        self.found: AdapterSet | None = None
        """What is in the file."""

    @classmethod
    def of(cls, request: Request, found: AdapterSet) -> LycoHook:
        """The hook of a file."""
        hook = cls()
        hook.request, hook.found = request, found
        hook._strength_model, hook._strength_clip = request.model_strength, request.clip_strength
        return hook

    def clone(self) -> LycoHook:
        """A copy that is the same hook to ComfyUI."""
        made = cast("LycoHook", super().clone())
        made.request, made.found = self.request, self.found
        return made

    def add_hook_patches(
        self,
        model: ModelPatcher,
        model_options: dict[str, Any] | None,
        target_dict: dict[str, Any],
        registered: comfy.hooks.HookGroup,
    ) -> bool:
        """ComfyUI calls this when a sampling begins, and when *Set CLIP Hooks* gives the hook to a text encoder.

        Raises:
            LycoError: the file does not fit; nothing is applied.
        """
        if (
            self.request is None
            or self.found is None
            or not self.should_register(model, model_options, target_dict, registered)
        ):
            return False
        of_text = target_dict.get("target") == comfy.hooks.EnumWeightTarget.Clip
        strength = self.request.clip_strength if of_text else self.request.model_strength
        if strength:
            with about_file(adapter_path(self.request.name)), advising(ADVICE):
                if of_text:
                    _require_encodes(model)
                changes = scaled(_changes(self.request, self.found, model, of_text=of_text), strength)
                self._apply(model, changes, model_options)
        registered.add(self)
        return True

    def _apply(self, patcher: ModelPatcher, changes: Changes, options: dict[str, Any] | None) -> None:
        assert self.request is not None
        division = divide(_mode(self.request.mode, patcher.model), patcher, changes)
        if lost := [place.patch_key for place in changes if place not in division.places]:
            raise PlacementError(f"ComfyUI has no weight for {len(lost)} patches, e.g. {lost[0]}; nothing is applied")
        if division.patched and _is_quantized(patcher.model):
            keys = shorten([place.key for place in division.patched])
            raise PlacementError(
                f"{len(division.patched)} weights ({keys}) can only be patched, which ComfyUI's hooks cannot do to a "
                "quantized model; load the file with Load LoHa/LoKr, or take the model's bf16 file"
            )
        if division.parts:
            _require_one_gpu(patcher)
            layer = Layer(division.parts, hook=self.hook_ref)
            if options is None:
                if all(other.hook is not self.hook_ref for other in layers_of(patcher)):
                    put_beside(patcher, layer)
            else:
                _bring(options, layer)
        for strength in dict.fromkeys(change.strength for change in division.patched.values()):
            alike = {place.patch_key: c.patch for place, c in division.patched.items() if c.strength == strength}
            if left := alike.keys() - set(patcher.add_hook_patches(self, alike, strength)):
                raise PlacementError(
                    f"ComfyUI did not take {len(left)} patches, e.g. {next(iter(left))}; nothing is applied"
                )
        _require_alone(patcher, layers_of(patcher))
        forget_each_pass(patcher, options)


class _Encoders(NamedTuple):
    """A text encoder's patcher as what matches looks at it."""

    patcher: ModelPatcher
    cond_stage_model: nn.Module


def _changes(request: Request, found: AdapterSet, patcher: ModelPatcher, *, of_text: bool) -> Changes:
    """What of a file is for a diffusion model, or for a text encoder, at its own strengths; the other part is left."""
    found = _part_of(found, of_text=of_text)
    if not found.adapters and not found.unrecognised:
        return {}
    if of_text:
        clip = cast(CLIP, _Encoders(patcher, patcher.model))
        placement = place(found, {}, prefix="")
        rest = match_by_names(placement, None, clip, {})
    else:
        weights = model_weights(patcher)
        placement = weights.place(found)
        rest = match_by_names(placement, patcher, None, weights.shapes)
    read = placement.adapter_set.unrecognised.keys() - {*rest.unread}
    remaining = placement.without({*rest.modules, *read})
    match = Match(request.name, placement, rest, remaining.left, problem(remaining, with_clip=True))
    return match.changes(partial=request.partial)


def _part_of(found: AdapterSet, *, of_text: bool) -> AdapterSet:
    """The modules of a file for text encoders, or all others."""
    paths = [path for path, prefix in found.prefixes.items() if is_text_encoders(prefix) == of_text]
    return dataclasses.replace(
        found,
        adapters={path: found.adapters[path] for path in paths if path in found.adapters},
        prefixes={path: found.prefixes[path] for path in paths},
        unrecognised={
            key: tensor for key, tensor in found.unrecognised.items() if is_text_encoders(split_key(key)[0]) == of_text
        },
    )


def _mode(asked: str, model: nn.Module) -> str:
    """Of a quantized model ComfyUI's hooks can patch nothing, not even what is not quantized."""
    return MODES[2] if asked == MODES[0] and _is_quantized(model) else asked


def _is_quantized(model: nn.Module) -> bool:
    return any(layout_of(weight) or gguf_type(weight) for weight in model.parameters())


def _require_encodes(patcher: ModelPatcher) -> None:
    """Refuse a copy of a text encoder that does not encode: under dynamic VRAM ComfyUI 0.33 makes one for hooks, and
    encodes with the model from before."""
    before = patcher.parent
    while before is not None:
        if getattr(before, "is_dynamic", lambda: False)() and before.model is not patcher.model:
            raise PlacementError(
                "under dynamic VRAM this ComfyUI encodes with another copy of the text encoder than the hook is on; "
                "start it with --disable-dynamic-vram, or set strength_clip to 0 and load the file's part for the text "
                "encoder with Load LoHa/LoKr"
            )
        before = before.parent


def _require_one_gpu(patcher: ModelPatcher) -> None:
    asked: Callable[[str], list[Any]] = getattr(patcher, "get_additional_models_with_key", lambda _: [])
    if asked("multigpu"):
        raise PlacementError(
            "its hook acts beside the weights, which it cannot on several GPUs; sample without the node that divides "
            "the work over them, or set mode to patch the weights"
        )


def _require_alone(patcher: ModelPatcher, layers: Iterable[Layer]) -> None:
    """What is computed from a weight is so from the one that hooks have not patched: refuse it where some do."""
    modules = {path for layer in layers for path, parts in layer.parts.items() if not all(map(adds, parts))}
    theirs = {key for patches in patcher.hook_patches.values() for key in patches}
    mine = {f"{path}.{name}" for path in modules for name in ("weight", "bias")}
    if both := sorted(mine & theirs):
        raise PlacementError(
            f"{len(both)} weights ({shorten(both)}) are patched by a hook, and an adapter beside them depends on them; "
            "set mode to apply while sampling for all of these adapters, or to patch the weights"
        )


def _bring(options: dict[str, Any], layer: Layer) -> None:
    """Have a sampling with these options put the layer beside the model's weights, and take it away after."""
    if KEY not in options:
        layers: list[Layer] = []
        options[KEY] = layers

        def sampled(executor: Any, *args: Any, **named: Any) -> Any:
            patcher: ModelPatcher = executor.class_obj.model_patcher
            _require_alone(patcher, (*layers_of(patcher), *layers))
            with beside_while(patcher, *layers):
                return executor(*args, **named)

        add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, sampled, options, is_model_options=True)
        held = options["transformer_options"]["wrappers"].get(WrappersMP.APPLY_MODEL, {})
        if not any(checked_call in wrappers for wrappers in held.values()):
            add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, checked_call, options, is_model_options=True)
        # `options` may be copied before the sampling, and lists with them; `sampled` sees those that are brought here.
    options[KEY].append(layer)
