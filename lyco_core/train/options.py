"""All options of a training, by Musubi Tuner's names."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import TrainError
from ..io.names import name_fault
from .losses import LossOptions
from .memory_options import MemoryOptions
from .musubi.table import unknown
from .network_options import NetworkOptions, parse_network_args
from .noise import NoiseOptions
from .optimizers import OptimizerOptions
from .option import Option, OptionGroup, Saved, option, options_in
from .rules import Choice, FileName, Number, Text, Truth, Whole
from .sample_options import SampleOptions
from .saving import STORAGE_DTYPES
from .schedules import ScheduleOptions

__all__ = ["ENDINGS", "RunOptions", "SaveOptions", "TrainOptions", "every_option", "every_value", "train_options"]


@dataclasses.dataclass(frozen=True)
class RunOptions(OptionGroup):
    """How long, how much at once, and from where."""

    max_train_steps: int = option(1600, Whole(1), "Steps of the optimizer.", rare=False)
    max_train_epochs: int = option(0, Whole(0), "If above 0: so many passes over the dataset, whatever the steps are.")
    batch_size: int = option(1, Whole(1), "Items in a batch, for datasets that do not say.", rare=False)
    gradient_accumulation_steps: int = option(
        1,
        Whole(1),
        "Batches in a step of the optimizer; an epoch's last step has what is left of them.",
        saved=Saved.ALWAYS,
        draws=True,
    )
    seed: int = option(
        42,
        Whole(0),
        "Of everything that is drawn. The same seed gives the same file.",
        rare=False,
        saved=Saved.ALWAYS,
        draws=True,
    )
    mixed_precision: str = option(
        "auto",
        Choice(("auto", "no", "bf16", "fp16")),
        "What the model computes in: auto: what ComfyUI samples it in; no: float32. The adapter is always float32.",
    )
    gradient_checkpointing: bool = option(
        True,
        Truth(),
        "Computes each block again in the backward pass instead of keeping it: much less memory.",
        saved=Saved.ALWAYS,
    )
    enable_bucket: bool = option(
        False, Truth(), "Latents of several sizes: batches of one size each. Without it they are refused."
    )
    guidance_scale: float = option(
        1.0, Number(), "Told to models that have a guidance input (FLUX.1 dev, HunyuanVideo).", saved=Saved.ALWAYS
    )
    caption_dropout_rate: float = option(
        0.0, Number(0, 1), "How often the empty caption stands in for an item's own. Musubi has no such option."
    )
    ema_decay: float = option(
        0.0,
        Number(0, 1, open=True),
        "If above 0, what is saved is the exponential moving average of the adapter, e.g. 0.999. Musubi has no such "
        "option while it trains.",
        saved=Saved.IF_SET,
    )
    validate_every_n_steps: int = option(
        0, Whole(0), "How often the validation items are tried, with noise that is always the same; 0: never."
    )
    network_weights: str = option(
        "", FileName("adapter"), "An adapter to go on from; its rank, alpha and factor count."
    )
    resume: str = option("", FileName("state"), "A saved state to go on from, as if there had been no interruption.")


ENDINGS = (".safetensors", "-step00000000.safetensors", "-step00000000-state.pt")
"""The shortest and the longest endings of the files that a training writes, or may write if it is interrupted."""


@dataclasses.dataclass(frozen=True)
class SaveOptions(OptionGroup):
    """What is saved, when, and what stands in the file."""

    output_name: str = option(
        "adapter", Text(), "Name of the file, without its ending.", rare=False, saved=Saved.ALWAYS
    )
    save_precision: str = option("bf16", Choice(tuple(STORAGE_DTYPES)), "What numbers are stored as. Musubi: fp32.")
    save_every_n_steps: int = option(0, Whole(0), "Also saves NAME-step00000500.safetensors and so on; 0: never.")
    save_every_n_epochs: int = option(0, Whole(0), "Also saves NAME-000001.safetensors and so on; 0: never.")
    save_last_n_steps: int = option(0, Whole(0), "Of those, the ones of this many last steps are kept; 0: all.")
    save_last_n_epochs: int = option(0, Whole(0), "Of those, this many last ones are kept; 0: all.")
    save_state_on_train_end: bool = option(False, Truth(), "Saves NAME-state.pt with the result.", graph=False)
    save_last_n_steps_state: int = option(
        0, Whole(0), "As save_last_n_steps, for the states alone; 0: as long as their adapters.", graph=False
    )
    save_last_n_epochs_state: int = option(
        0, Whole(0), "As save_last_n_epochs, for the states alone; 0: as long as their adapters.", graph=False
    )
    save_state: bool = option(
        False, Truth(), "Beside every file saves NAME…-state.pt, from which `resume` goes on exactly."
    )
    logging_dir: str = option(
        "",
        FileName("folder"),
        "A folder for TensorBoard's events; NAME.jsonl beside the adapter has a line of every step in any case.",
        graph=False,
    )
    log_prefix: str = option(
        "", Text(), "What the name of a training's folder in logging_dir begins with.", graph=False
    )
    log_with: str = option(
        "auto",
        Choice(("auto", "tensorboard", "wandb", "all")),
        "What shows the losses: wandb, if it is installed, tensorboard, or all; auto: tensorboard with a logging_dir.",
        graph=False,
    )
    log_tracker_name: str = option("", Text(), "wandb's project; empty: network_train.", graph=False)
    wandb_run_name: str = option("", Text(), "The name of wandb's run; empty: one that wandb makes up.", graph=False)
    log_tracker_config: str = option(
        "", FileName("file"), "A TOML file whose table [wandb] is for wandb.init, as accelerate takes it.", graph=False
    )
    no_metadata: bool = option(False, Truth(), "Leaves out all metadata but what loaders need.")
    training_comment: str = option("", Text(), "Stored as ss_training_comment.", saved=Saved.OR_NONE)
    metadata_title: str = option("", Text(), "Stored as modelspec.title; empty: output_name.", saved=Saved.MODELSPEC)
    metadata_author: str = option("", Text(), "Stored as modelspec.author.", saved=Saved.MODELSPEC)
    metadata_description: str = option("", Text(), "Stored as modelspec.description.", saved=Saved.MODELSPEC)
    metadata_license: str = option("", Text(), "Stored as modelspec.license.", saved=Saved.MODELSPEC)
    metadata_tags: str = option("", Text(), "Stored as modelspec.tags.", saved=Saved.MODELSPEC)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.log_with in ("tensorboard", "all") and not self.logging_dir:
            raise TrainError(f"log_with is {self.log_with}, and TensorBoard's events have no logging_dir; give one")
        if not self.output_name:
            raise TrainError("output_name is empty, expected a name for the file")
        if "/" in self.output_name or "\\" in self.output_name:
            raise TrainError(f"output_name is {self.output_name!r}, expected a plain file name, without folders")
        for ending in ENDINGS:
            if fault := name_fault(self.output_name + ending):
                raise TrainError(f"output_name is {self.output_name!r}: with {ending} the file's name {fault}")


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """All options of a training, by what they are about."""

    network: NetworkOptions = dataclasses.field(default_factory=NetworkOptions)
    run: RunOptions = dataclasses.field(default_factory=RunOptions)
    optimizer: OptimizerOptions = dataclasses.field(default_factory=OptimizerOptions)
    schedule: ScheduleOptions = dataclasses.field(default_factory=ScheduleOptions)
    noise: NoiseOptions = dataclasses.field(default_factory=NoiseOptions)
    loss: LossOptions = dataclasses.field(default_factory=LossOptions)
    save: SaveOptions = dataclasses.field(default_factory=SaveOptions)
    sample: SampleOptions = dataclasses.field(default_factory=SampleOptions)
    memory: MemoryOptions = dataclasses.field(default_factory=MemoryOptions)


_PARTS: dict[str, type[OptionGroup]] = {
    "network": NetworkOptions,
    "run": RunOptions,
    "optimizer": OptimizerOptions,
    "schedule": ScheduleOptions,
    "noise": NoiseOptions,
    "loss": LossOptions,
    "save": SaveOptions,
    "sample": SampleOptions,
    "memory": MemoryOptions,
}


def every_option() -> Iterator[tuple[str, Option]]:
    """(part of `TrainOptions`, option) for every option, in the order in which a person meets them."""
    for part, cls in _PARTS.items():
        for made in options_in(cls):
            yield part, made


def every_value(options: TrainOptions) -> Iterator[tuple[Option, Any]]:
    """Every option with its value."""
    for part, made in every_option():
        yield made, getattr(getattr(options, part), made.name)


def train_options(settings: Mapping[str, Any]) -> TrainOptions:
    """The options that settings give under Musubi's names; what is missing has its default.

    `network_module` names the algorithm; `network_args` may hold the options that Musubi takes
    there, each of which is also one of its own.

    Raises:
        TrainError: an unknown name, or a value that its option cannot have.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    values: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
    args = given.pop("network_args", ())
    if not isinstance(args, (list, tuple)):
        raise TrainError(f"network_args is {args!r}, expected a list of texts, such as ['factor=4']")
    given |= parse_network_args(map(str, args))  # pyright: ignore[reportUnknownArgumentType]
    known = {made.called: (part, made) for part, made in every_option()}
    known |= {
        made.name: (part, dataclasses.replace(made, read=None))
        for part, made in every_option()
        if made.name != made.called
    }
    for name, value in given.items():
        if name not in known:
            raise TrainError(unknown(name, [*known, "network_args"]))
        part, made = known[name]
        values[part][made.name] = made.read(value) if made.read else value
    values["network"]["seed"] = values["run"].get("seed", RunOptions.seed)
    parts: dict[str, Any] = {part: cls(**values[part]) for part, cls in _PARTS.items()}
    return TrainOptions(**parts)
