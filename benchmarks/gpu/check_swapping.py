"""Training in ComfyUI: blocks that wait in the computer's memory against all of them on the device."""

from __future__ import annotations

import contextlib
import functools
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from lyco_testing import quantized_models as models
from safetensors.torch import load_file
from torch import Tensor

from gpu.check_formats import Made, collected
from gpu.comfyui import ComfyUI
from gpu.device import Device
from gpu.results import Results

STEPS = 4
SWAPPED: tuple[tuple[str, dict[str, object]], ...] = (
    ("bf16", {}),
    ("bf16", {"fp8_scaled": True}),
    ("bf16", {"fp8_base": True}),
    ("fp8_scaled", {}),
    ("nvfp4", {}),
    ("int8_convrot", {}),
)
"""How a model is stored, and options of the training."""
FAMILY = "z_image"
"""Of four blocks in all."""


def run(_: Device, results: Results, comfyui: ComfyUI | None) -> None:
    """The same numbers, bit for bit, whichever blocks wait in the computer's memory."""
    assert comfyui is not None
    section = f"training with swapped blocks, {'dynamic' if comfyui.dynamic else 'legacy'} VRAM"
    options = comfyui.part("lyco_core.train.options")
    if "blocks_to_swap" not in {option.name for _, option in options.every_option()}:
        results.say(f"{section}: not checked, training has no blocks_to_swap yet")
        return
    cases = {", ".join([name, *more]): (name, more) for name, more in SWAPPED if models.why_not(name) is None}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as after:
        after.callback(torch.use_deterministic_algorithms, False)
        for case, (name, more) in results.in_time(section, cases):
            with results.case(section, case), collected():
                made = Made(comfyui, Path(folder), FAMILY, name)

                def trained(made: Made = made, more: Mapping[str, object] = more, **settings: object) -> Learned:
                    return _trained(comfyui, made, folder, {**more, **settings})

                whole = in_one_order(results, f"{section}, {case}", functools.partial(trained, blocks_to_swap=0))
                finite = all(math.isfinite(loss) for loss in whole[0])
                results.holds(section, f"{case}, losses", finite, "finite losses", f"{whole[0]}")
                _same(results, section, f"{case}, all resident again", whole, trained(blocks_to_swap=0))
                _same(results, section, f"{case}, 2 swapped", whole, trained(blocks_to_swap=2))
                offloaded = trained(blocks_to_swap=4, gradient_checkpointing_cpu_offload=True)
                _same(results, section, f"{case}, 4 swapped, activations offloaded", whole, offloaded)


Learned = tuple[list[float], dict[str, Tensor]]
"""Losses, and the adapter's tensors."""


def _trained(comfyui: ComfyUI, made: Made, folder: str, settings: Mapping[str, object]) -> Learned:
    """A few steps of *Train Adapter* on a MODEL that is loaded anew."""
    part = comfyui.part
    run, item = part("nodes.host.training.run"), part("lyco_core.train.items").Item
    asked = {"network_module": "lokr", "network_dim": 4, "max_train_steps": STEPS, "save_precision": "fp32"}
    options = part("lyco_core.train.options").train_options(asked | {"learning_rate": 1e-2} | dict(settings))
    text = [models.normal(9, 1, models.TOKENS, models.TEXT), {}]
    data = run.Data([item(models.normal(n, *models.LATENTS[made.family]), text, f"item {n}") for n in range(2)])
    # Dynamic VRAM's models are loaded from their file once more: as weights that stay in memory.
    with models.known_as(FAMILY), torch.inference_mode(), tempfile.TemporaryDirectory(dir=folder) as output:
        done = run.train(made.load(), data, options, output, lambda *_: None)
        return [step.loss for step in done.steps], load_file(done.path)


def _same(results: Results, section: str, case: str, one: Learned, other: Learned) -> None:
    different = sum(not torch.equal(tensor, other[1][key]) for key, tensor in one[1].items())
    words = f"losses {one[0]} and {other[0]}; {different} of {len(one[1])} tensors differ"
    results.holds(section, case, one[0] == other[0] and not different, "the same losses and tensors", words)


def in_one_order(results: Results, case: str, trained: Callable[[], Learned]) -> Learned:
    """What is learned with kernels that add up in one order, from now on: else two trainings differ on a GPU.

    If an operation has none, that is told, and the others have them alone. (Where torch is to warn of such, its flash
    attention does not take the one that it has.)
    """
    torch.use_deterministic_algorithms(True)
    try:
        return trained()
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        results.say(f"{case}: trainings may differ by themselves: {str(error).partition(',')[0]}")
    torch.use_deterministic_algorithms(True, warn_only=True)
    return trained()
