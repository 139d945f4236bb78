"""How a training fits a device's memory, under Musubi Tuner's names and with its meanings."""

from __future__ import annotations

import dataclasses

from ..errors import TrainError
from .option import OptionGroup, Saved, option
from .rules import Truth, WholeOrAuto

__all__ = ["MemoryOptions"]


@dataclasses.dataclass(frozen=True)
class MemoryOptions(OptionGroup):
    """What of the model is where, and how small."""

    blocks_to_swap: int | str = option(
        "auto",
        WholeOrAuto(),
        "How many of the model's blocks stay in the computer's memory and come to the device when they are needed: "
        "less memory, some time, the same result. auto: as many as the estimate says, none where all fit. Smaller "
        "blocks, such as FLUX's single ones, count by their size.",
    )
    fp8_scaled: bool = option(
        False,
        Truth(),
        "Rounds the blocks' weights to float8 with a scale a row while it trains: half of bf16's memory. Weights "
        "that are quantized already stay as they are.",
        saved=Saved.IF_SET,
    )
    fp8_base: bool = option(
        False,
        Truth(),
        "The same without a scale, which rounds small weights more coarsely; with fp8_scaled that counts.",
        saved=Saved.IF_SET,
    )
    gradient_checkpointing_cpu_offload: bool = option(
        False,
        Truth(),
        "With gradient_checkpointing: what each block keeps waits in the computer's memory for the backward pass.",
        saved=Saved.IF_SET,
    )
    offload_inactive_dit: bool = option(
        False,
        Truth(),
        "With Wan 2.2's two models: the one that does not compute always waits in the computer's memory. Without it, "
        "it does so where both do not fit.",
        saved=Saved.IF_SET,
        graph=False,
    )
    shard_blocks: bool = option(
        False,
        Truth(),
        "Under torchrun: each process keeps only its part of the blocks' weights on its device, and they come together "
        "while they are needed: less memory, some time, the same result. Musubi has no such option.",
        graph=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shard_blocks and self.blocks_to_swap not in ("auto", 0):
            raise TrainError(
                f"blocks_to_swap is {self.blocks_to_swap}, and shard_blocks leaves no whole block to swap; set "
                "blocks_to_swap to 0, or shard_blocks to false"
            )
        if self.shard_blocks and self.offload_inactive_dit:
            raise TrainError(
                "shard_blocks leaves each process only its part of both models, and offload_inactive_dit one of them; "
                "set one of the two to false"
            )
