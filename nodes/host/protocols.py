"""What we use of ComfyUI's objects, as types: ComfyUI has few of its own, and is not there where types are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

Rows: TypeAlias = tuple[int, int, int]
"""(dimension, start, length): rows of a weight; columns where the dimension is 1."""

Reorder: TypeAlias = Callable[[Tensor], Tensor]
"""Makes of what a trainer adds what the model's weight takes, where the model keeps its rows in another order."""

PatchKey: TypeAlias = str | tuple[str, Rows | None] | tuple[str, Rows | None, Reorder | None]
"""Where a patch goes, as `add_patches` and ComfyUI's key maps spell it: key, (key, rows) or (key, rows, reorder)."""

Conditioning: TypeAlias = list[Any]
"""[tensor, options]: one entry of a CONDITIONING."""


class ModelPatcher(Protocol):
    """`comfy.model_patcher.ModelPatcher`: a model, and how a MODEL of the graph, or a CLIP, changes it."""

    model: BaseModel
    load_device: torch.device
    parent: ModelPatcher | None
    patches: dict[str, list[Any]]
    """By key of a weight, as ComfyUI's arithmetic takes them."""
    patches_uuid: object
    """Another one whenever `patches` change."""
    backup: dict[str, Any]
    """Weights as they were before they were patched in place."""
    object_patches_backup: dict[str, Any]
    hook_backup: dict[str, Any]
    is_clip: bool
    hook_patches: dict[object, dict[str, Any]]
    """By the reference of a hook: what it patches, by key."""
    current_hooks: Any
    """The `HookGroup` that a model is called under, None for none."""
    forced_hooks: Any
    """A text encoder's `HookGroup`."""
    callbacks: dict[str, dict[str, list[Any]]]
    wrappers: dict[str, dict[str, list[Any]]]
    cached_patcher_init: object
    clone_base_uuid: object

    def clone(self, *, disable_dynamic: bool = ...) -> ModelPatcher: ...
    def is_clone(self, other: object) -> bool: ...
    def add_patches(self, patches: Mapping[PatchKey, Any], strength_patch: float = ...) -> list[PatchKey]: ...
    def get_injections(self, key: str) -> list[Any] | None: ...
    def set_injections(self, key: str, injections: list[Any]) -> None: ...
    def remove_injections(self, key: str) -> None: ...
    def use_ejected(self) -> AbstractContextManager[object]: ...
    def add_hook_patches(self, hook: object, patches: Mapping[PatchKey, Any], strength_patch: float) -> list[Any]: ...
    def add_callback_with_key(self, call_type: str, key: str, callback: Callable[..., Any]) -> None: ...
    def remove_callbacks_with_key(self, call_type: str, key: str) -> None: ...
    def is_dynamic(self) -> bool: ...  # newer ones alone
    def inject_model(self) -> None: ...
    def eject_model(self) -> None: ...
    def add_wrapper_with_key(self, wrapper_type: str, key: str, wrapper: Callable[..., Any]) -> None: ...
    def remove_wrappers_with_key(self, wrapper_type: str, key: str) -> None: ...
    def set_attachments(self, key: str, attachment: object) -> None: ...
    def get_model_object(self, name: str) -> nn.Module: ...
    def set_model_compute_dtype(self, dtype: torch.dtype) -> None: ...
    def patch_weight_to_device(self, key: str, device_to: torch.device) -> object: ...
    def get_additional_models_with_key(self, key: str) -> list[Any]: ...  # newer ones alone
    def pre_run(self) -> None: ...
    def cleanup(self) -> None: ...


class CLIP(Protocol):
    """`comfy.sd.CLIP`: text encoders."""

    patcher: ModelPatcher
    cond_stage_model: nn.Module
    layer_idx: int | None
    """That of CLIP Set Last Layer."""
    tokenizer_options: dict[str, Any]
    apply_hooks_to_conds: object

    def clone(self) -> CLIP: ...
    def tokenize(self, text: str) -> Any: ...
    def encode_from_tokens_scheduled(self, tokens: Any) -> list[Conditioning]: ...


class VAE(Protocol):
    """`comfy.sd.VAE`."""

    patcher: ModelPatcher
    first_stage_model: nn.Module
    vae_dtype: torch.dtype
    memory_used_decode: Callable[[tuple[int, ...], torch.dtype], float]

    def encode(self, pixel_samples: Tensor) -> Tensor: ...
    def decode(self, samples_in: Tensor) -> Tensor: ...
    def spacial_compression_decode(self) -> int: ...
    def spacial_compression_encode(self) -> int: ...
    def temporal_compression_decode(self) -> int | None: ...
    def throw_exception_if_invalid(self) -> None: ...


class BaseModel(nn.Module):
    """`comfy.model_base.BaseModel`; of a text encoder's patcher, the model is any nn.Module.

    A class, as `Linear` is, since no Protocol can be an nn.Module; only its type is used, and no object is made of it.
    """

    diffusion_model: nn.Module
    model_config: Any
    latent_format: Any
    model_sampling: Any
    manual_cast_dtype: torch.dtype | None
    current_patcher: ModelPatcher | None

    def get_dtype(self) -> torch.dtype: ...
    def process_latent_in(self, latent: Tensor) -> Tensor: ...
    def apply_model(self, x: Tensor, t: Tensor, **arguments: Any) -> Tensor: ...
    def extra_conds(self, **arguments: Any) -> dict[str, Any]: ...


class Linear(nn.Module):
    """A linear module of ComfyUI or of a pack; those of quantized weights are no nn.Linear."""

    in_features: int
    out_features: int
    weight: Tensor
    bias: Tensor | None
    comfy_cast_weights: bool
    """Whether ComfyUI casts the weight to the input's dtype and device whenever it multiplies."""
    weight_function: list[Reorder]
    """ComfyUI passes every weight through them that it brings to the device."""
    cast_bias_weight: Callable[..., tuple[Tensor, ...]]
    """Of GGUF's packs alone."""
