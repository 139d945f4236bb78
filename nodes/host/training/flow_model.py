"""A ComfyUI model as the loop sees it: what predicts a velocity."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.model_sampling
import torch
from torch import Tensor

from ....lyco_core.architectures import ARCHITECTURES
from ....lyco_core.errors import TrainError
from ....lyco_core.train.block_shard import BlockShard
from ....lyco_core.train.block_swap import BlockSwap
from ....lyco_core.train.distributed import World
from ....lyco_core.train.estimate import Estimate
from ....lyco_core.train.memory_options import MemoryOptions
from ....lyco_core.train.options import RunOptions
from ....lyco_core.train.targets import require_trainable
from ..model.matching import model_weights
from ..model.merging import standing
from ..protocols import Conditioning, ModelPatcher
from .conditions import forward_arguments, groups, together
from .demand import Demand
from .differentiable import ATTENTION, differentiable
from .placing import Plan, placed

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""`mixed_precision` -> what the model computes in; `auto` leaves it."""


class FlowModel:
    """`lyco_core.train.loop.VelocityModel` over a loaded ModelPatcher."""

    def __init__(self, patcher: ModelPatcher, guidance: float) -> None:
        self.patcher, self.model = patcher, patcher.model
        self.device: torch.device = patcher.load_device
        self.dtype: torch.dtype = self.model.manual_cast_dtype or self.model.get_dtype()
        self.swap: BlockSwap | None = None
        """The blocks that are not on the device all the time."""
        self._guidance = guidance

    @property
    def shard(self) -> BlockShard | None:
        """The blocks that are divided over the processes."""
        return self.swap if isinstance(self.swap, BlockShard) else None

    def latent(self, latent: Tensor) -> Tensor:
        """(C, …) of a VAE as this model takes it; an image becomes one frame for models of videos."""
        latent = latent.detach().clone().to("cpu", torch.float32)[None]
        if latent.dim() == 4 and self.model.latent_format.latent_dimensions == 3:
            latent = latent.unsqueeze(2)
        return self.model.process_latent_in(latent)[0]

    def groups(self, conditions: Sequence[Conditioning]) -> list[list[int]]:
        """See `loop.VelocityModel`."""
        return groups(conditions)

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Conditioning]) -> Tensor:
        """See `loop.VelocityModel`; the output of the diffusion model itself, before ComfyUI makes x_0 of it."""
        arguments = together(
            [forward_arguments(self.model, c, x[i : i + 1], self._guidance) for i, c in enumerate(conditions)]
        )
        said: list[Any] = []
        handle = self.model.diffusion_model.register_forward_hook(lambda _, args, output: said.append(output))
        try:
            self.model.apply_model(x, t, transformer_options=dict(ATTENTION), **arguments)
        finally:
            handle.remove()
        return said[0].float()


@contextmanager
def loaded(
    patcher: ModelPatcher,
    run: RunOptions,
    memory: MemoryOptions | None = None,
    demand: Demand | None = None,
    tell: Callable[[Estimate], None] = lambda _: None,
    world: World | None = None,
) -> Generator[FlowModel]:
    """A clone of `patcher` on its device, ready for gradients; everything else is moved out of its way.

    Args:
        memory: what of it is where; without, all is on the device.
        demand: what is needed beside it.
        tell: told how much memory a step takes, before the model is loaded.
        world: the processes that its blocks are divided over, if they are.

    Raises:
        TrainError: it is no flow model, or of a family that is not trained, or runs on several GPUs; or it has fewer
            blocks than are to be swapped.
    """
    _require_flow(patcher)
    _, trained = require_trainable(model_weights(patcher).architecture)
    clone = standing(patcher, "load the model with ComfyUI's own loader").clone()
    if run.mixed_precision in DTYPES:
        clone.set_model_compute_dtype(DTYPES[run.mixed_precision])
    memory, demand = memory or MemoryOptions(blocks_to_swap=0), demand or Demand()
    with torch.inference_mode(False):
        flow = FlowModel(clone, run.guidance_scale)
        plan = Plan(clone.model, trained, memory, demand, world)
        with placed(clone, plan, flow.dtype, tell) as flow.swap:
            clone.pre_run()
            try:
                offload = memory.gradient_checkpointing_cpu_offload
                kept = run.gradient_checkpointing
                with differentiable(clone, trained, flow.dtype, checkpointing=kept, offload=offload, swap=flow.swap):
                    yield flow
            finally:
                clone.cleanup()


def _require_flow(patcher: ModelPatcher) -> None:
    sampling = patcher.get_model_object("model_sampling")
    kind = getattr(comfy.model_sampling, "IMG_TO_IMG_FLOW", ())
    if not isinstance(sampling, comfy.model_sampling.CONST) or (kind and isinstance(sampling, kind)):
        titles = [family.title for family in ARCHITECTURES.values() if family.training and family.training.clip_type]
        raise TrainError(
            f"the model predicts as {type(patcher.model).__name__} does, which is not a flow from noise to data; "
            f"Musubi's families are: connect {', '.join(titles[:-1])} or {titles[-1]}"
        )
    if getattr(patcher, "get_additional_models_with_key", None) and patcher.get_additional_models_with_key("multigpu"):
        raise TrainError("the model is spread over several GPUs; take the multi-GPU node away, or train with torchrun")
