"""What is said of a training in words: before its first step, and once its file is there."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from ....lyco_core.text import counted, size_text
from ....lyco_core.train.loop import Step, Training
from ....lyco_core.train.targets import TargetChoice
from .means import mean_line, recent


def opening(training: Training, choice: TargetChoice) -> str:
    """What is about to be trained, and on what."""
    device, run = training.model.device, training.options.run
    named = f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
    numbers = sum(parameter.numel() for parameter in training.network.parameters())
    batch = run.batch_size * run.gradient_accumulation_steps * training.world.processes
    boundary = training.options.noise.timestep_boundary
    two = f", the model for high noise at timestep {boundary:g} and above" if boundary else ""
    return (
        f"training {choice.architecture.title} on {named}: {counted(len(choice.targets), 'module')}, "
        f"{numbers:,} parameters, learning rate {training.options.optimizer.learning_rate:g}, steps "
        f"{training.step + 1} to {training.total_steps}, {counted(len(training.items), 'item')}, {batch} a step{two}"
    )


def report(path: str, training: Training, done: Sequence[Step], choice: TargetChoice) -> str:
    """What was trained, and how it went."""
    numbers = sum(parameter.numel() for parameter in training.network.parameters())
    lines = [
        f"{os.path.basename(path)}: {choice.architecture.title}, {counted(len(choice.targets), 'module')}, "
        f"{numbers:,} numbers, {size_text(os.path.getsize(path))}",
        f"{counted(training.step, 'step')}, {counted(len(training.items), 'item')}, "
        f"{mean_line(recent([step.loss for step in done]))}",
    ]
    if tried := [s.validation for s in done if s.validation is not None]:
        lines.append(f"validation {tried[0]:.4f} -> {tried[-1]:.4f}")
    if training.options.network.verbose:
        lines.append(training.network.listing())
    return "\n".join(lines)
