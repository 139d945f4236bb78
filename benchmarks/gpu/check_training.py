"""Steps of training on the device against the CPU's."""

from __future__ import annotations

import torch

from gpu.comfyui import ComfyUI
from gpu.device import Device
from gpu.exactness import named
from gpu.flow import Flow
from gpu.results import Results

STEPS, TOKENS, WIDTH = 4, 48, 96
ALGORITHMS = ("lora", "loha", "lokr")
LIMITS = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""How far losses and gradients' norms may be from the CPU's in the same dtype: sums go in another order."""


def run(device: Device, results: Results, _: ComfyUI | None) -> None:
    """The loop by itself, without a ComfyUI."""
    section = "training steps"
    cases = {f"{name}, {named(dtype)}": (name, dtype) for name in ALGORITHMS for dtype in LIMITS}
    for case, (algorithm, dtype) in results.in_time(section, cases):
        with results.case(section, case):
            _steps(device, results, section, case, algorithm, dtype)


def _steps(device: Device, results: Results, section: str, case: str, algorithm: str, dtype: torch.dtype) -> None:
    """Losses and the norms of gradients, step by step; each step depends on all before it."""
    found: list[list[float]] = []
    for where in (device.device, torch.device("cpu")):
        flow = Flow(where, dtype, WIDTH)
        settings = {"network_module": algorithm, "network_dim": 4, "batch_size": 2, "max_train_steps": STEPS}
        training = flow.training(TOKENS, **settings)
        with training.network.attached(flow.model):
            found.append([number for step in training.steps() for number in (step.loss, step.grad_norm)])
    off = max(abs(a / b - 1) for a, b in zip(*found, strict=True))
    results.at_most(section, case, off, LIMITS[dtype], f"relative difference in {STEPS} steps")
