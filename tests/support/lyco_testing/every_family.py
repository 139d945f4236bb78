"""The models of `tiny_families`, made by ComfyUI's own loader, sampled as its samplers do, and adapters for them."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from lyco_core.formats import parse

from .comfy_models import known_config
from .hosted import DENSE
from .quantized_models import normal, unit_gain
from .tables import dotted_file
from .tiny_families import Shape, Tiny


@contextlib.contextmanager
def known_as(tiny: Tiny) -> Iterator[None]:
    """ComfyUI tells a model by its full size: it is told instead."""
    import comfy.model_detection
    import comfy.supported_models

    config = known_config(tiny.model, dict(tiny.config))
    found = getattr(comfy.supported_models, tiny.model)
    with contextlib.ExitStack() as told:
        detection = comfy.model_detection
        extra = {name: value for name, value in found.unet_extra_config.items() if name not in config}
        told.enter_context(mock.patch.object(found, "unet_extra_config", extra))
        told.enter_context(mock.patch.object(detection, "detect_unet_config", lambda *_, **__: dict(config)))
        told.enter_context(mock.patch.object(detection, "model_config_from_unet_config", lambda c, *_, **__: found(c)))
        if tiny.fixed is not None:
            name, part, sizes = tiny.fixed
            module = importlib.import_module(name)
            told.enter_context(mock.patch.object(module, part, functools.partial(getattr(module, part), **sizes)))
        if tiny.layers is not None:
            module = importlib.import_module(tiny.layers)
            told.enter_context(mock.patch.object(module, "range", lambda _: range(1), create=True))
        yield


def float_weights(tiny: Tiny) -> tuple[dict[str, Tensor], dict[str, tuple[int, int]]]:
    """(float32 weights, (out, in) of each Linear that the family's table names)."""
    import comfy.ops
    import comfy.supported_models

    with known_as(tiny):
        family = getattr(comfy.supported_models, tiny.model)(known_config(tiny.model, dict(tiny.config)))
        family.set_inference_dtype(torch.float32, None)
        family.custom_operations = comfy.ops.manual_cast
        # One computes while it is built.
        model = family.get_model({}, device="cpu" if tiny.model == "ACEStep15" else "meta").diffusion_model
    linears = {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if hasattr(module, "in_features") and tiny.architecture.resolve(name, "comfyui", underscored=False)
    }
    return unit_gain(model.state_dict()), linears


def load(tiny: Tiny, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, dtype=None):
    """The MODEL that ComfyUI's loader makes of a file's tensors, in inference mode as nodes run."""
    import comfy.sd

    options = {} if dtype is None else {"dtype": dtype}
    with known_as(tiny), torch.inference_mode():
        state = {key: tensor.clone() for key, tensor in tensors.items()}
        return comfy.sd.load_diffusion_model_state_dict(state, options, dict(metadata or {}))


def add(model, changes: Mapping[str, Tensor]) -> None:
    """Add to the weights of a float MODEL, for good."""
    with torch.inference_mode():
        for path, change in changes.items():
            weight = model.model.get_submodule(f"diffusion_model.{path}").weight
            weight.copy_(weight.double() + change)


def sampled(tiny: Tiny, model) -> Tensor:
    """What a MODEL predicts for its latents in one step of a sampler: conditioning, wrappers, the model's call."""
    import comfy.model_management
    import comfy.patcher_extension
    import comfy.utils

    device = torch.device("cpu")
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model])
        options = dict(model.model_options["transformer_options"])
        options["wrappers"] = comfy.patcher_extension.copy_nested_dicts(options.get("wrappers", {}))
        comfy.patcher_extension.merge_nested_dicts(options["wrappers"], model.wrappers, copy_dict1=False)
        options |= {"sigmas": torch.tensor([0.7]), "sample_sigmas": torch.tensor([0.7, 0.0])}
        given = {name: _made(value, number) for number, (name, value) in enumerate(tiny.given.items(), 10)}
        noise = [normal(number, 1, *shape) for number, shape in enumerate(tiny.latents, 1)]
        x = noise[0]
        if len(noise) > 1:
            x, given["latent_shapes"] = comfy.utils.pack_latents(noise)
        given["cross_attn"] = _made(tiny.text, 9)
        conds = model.model.extra_conds(noise=x, device=device, **given)
        conds = {name: cond.cond for name, cond in conds.items()}
        return model.model.apply_model(x, torch.tensor([0.7]), transformer_options=options, **conds).clone()


def _made(value: Any, seed: int) -> Any:
    if isinstance(value, Shape):
        return normal(seed, 1, *value)
    return [_made(one, seed) for one in value] if isinstance(value, list) else value


def adapter(tiny: Tiny, linears: Mapping[str, tuple[int, int]]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of adapters for all `linears`, LoKr, LoHa and LoRA by turns, and the dense change of each.

    A change is a third of the weight's size: larger ones would raise the noise of the base beneath.
    """
    kinds = ("lokr", "loha", "lora")
    tensors: dict[str, Tensor] = {}
    changes: dict[str, Tensor] = {}
    number = 0
    for path, (out, width) in linears.items():
        parts: list[Tensor] = []
        for target in tiny.architecture.locate(path, "comfyui", tiny.layout):
            start, stop, total = target.source
            rows = out * (stop - start) // total
            number += 1
            kind = kinds[number % len(kinds)] if rows % 2 == width % 2 == 0 else "lora"
            generator = torch.Generator().manual_seed(number)
            made = dotted_file({target.path: (rows, width)}, kind, lambda *s, g=generator: torch.randn(s, generator=g))
            (found,) = parse(made, {}).adapters.values()
            change = DENSE[kind](found).roll(rows // 2 if target.swapped else 0, 0)
            gain = torch.tensor(0.3 * rows**0.5 / float(change.norm()))
            tensors |= made | {f"diffusion_model.{target.path}.alpha": gain}
            parts.append(change * float(gain))
        changes[path] = torch.cat(parts)
    return tensors, changes
