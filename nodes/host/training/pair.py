"""Wan 2.2's two models as the loop sees them: one that predicts a velocity, by whichever of the two has the timestep.

Both are ready for gradients all the time, with hooks of one network. Where the weights of both do not fit on the
device, those of the one that does not compute wait in the computer's memory; see `idle.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch
from torch import Tensor

from ....lyco_core.errors import TrainError
from ....lyco_core.train.block_shard import Passes
from ....lyco_core.train.distributed import World
from ....lyco_core.train.estimate import Estimate
from ....lyco_core.train.memory_options import MemoryOptions
from ....lyco_core.train.options import TrainOptions
from ....lyco_core.train.two_models import at_high_noise
from ..protocols import Conditioning, ModelPatcher
from .demand import Demand
from .flow_model import FlowModel, computing, own_clone
from .idle import Idle
from .placing import MARGIN, SHARED, Plan, emptied, in_parts
from .process import process_of


class Pair:
    """`lyco_core.train.velocity.VelocityModel` over two models."""

    def __init__(self, low: FlowModel, high: FlowModel, boundary: float, idle: Sequence[Idle]) -> None:
        """`idle`: what has the weights of each come and go; empty: they stay."""
        self._flows, self._boundary, self._idle = (low, high), boundary, idle
        self.patchers, self.models = (low.patcher, high.patcher), (low.model, high.model)
        self.process = low.process
        self.device, self.dtype = low.device, low.dtype
        self._now: int | None = None if idle else 0
        """Which of the two is on the device; None: none is."""

    @property
    def shard(self) -> Passes | None:
        """The blocks that are divided over the processes."""
        return self if self._flows[0].shard else None

    def one_pass(self, *, backward: bool) -> AbstractContextManager[None]:
        """See `BlockShard`."""
        shard = self._flow.shard
        assert shard is not None
        return shard.one_pass(backward=backward)

    def turn(self, t: Tensor) -> None:
        """Have the model that has these timesteps compute."""
        wanted = int(at_high_noise(t[0], self._boundary))
        if self._idle and wanted != self._now:
            self._leave()
            try:
                self._idle[wanted].come(self._flows[wanted].swap)
            except BaseException:  # a sample's passes: the training goes on with neither there
                self._idle[wanted].go(self._flows[wanted].swap)
                raise
        self._now = wanted

    def _leave(self) -> None:
        """Have neither on the device, where one waits at a time."""
        if self._now is not None:
            self._idle[self._now].go(self._flow.swap)
        self._now = None  # if memory runs out meanwhile

    def parts(self, sigmas: Tensor) -> list[tuple[FlowModel, Tensor]]:
        """Which of the two samples which part: the one for high noise all steps that begin at the boundary or above.

        So ComfyUI's workflow has it, with two *KSampler (Advanced)*.
        """
        count = int(at_high_noise(sigmas[:-1], self._boundary).sum())
        low, high = self._flows
        return [(high, sigmas[: count + 1]), (low, sigmas[count:])]

    @contextmanager
    def aside(self, *, apart: bool) -> Generator[None]:
        """See `FlowModel`; the one whose turn is next comes back by itself."""
        with ExitStack() as undo:
            if self._idle and apart:
                self._leave()
            elif apart:
                for flow in self._flows:
                    undo.enter_context(flow.aside(apart=True))
            yield

    def latent(self, latent: Tensor) -> Tensor:
        """See `FlowModel`; both take the same."""
        return self._flow.latent(latent)

    def groups(self, conditions: Sequence[Conditioning]) -> list[list[int]]:
        """See `velocity.VelocityModel`."""
        return self._flow.groups(conditions)

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[Conditioning]) -> Tensor:
        """See `velocity.VelocityModel`."""
        return self._flow.velocity(x, t, conditions)

    @property
    def _flow(self) -> FlowModel:
        return self._flows[self._now or 0]


@contextmanager
def both_loaded(
    low: ModelPatcher,
    high: ModelPatcher,
    options: TrainOptions,
    demand: Demand,
    tell: Callable[[Estimate], None],
    world: World,
) -> Generator[Pair]:
    """`flow_model.loaded` for two models.

    Args:
        options: with the boundary.

    Raises:
        TrainError: see `loaded`; or both are one model, or compute in two precisions.
    """
    if high.model is low.model:
        raise TrainError("the model for high noise is the same as the other one; load it from its own file")
    run, memory = options.run, options.memory
    clones, families = zip(*(own_clone(patcher, run) for patcher in (low, high)), strict=True)
    with torch.inference_mode(False), ExitStack() as undo:
        flows = [
            FlowModel(clone, run.guidance_scale, process_of(clone, known))
            for clone, known in zip(clones, families, strict=True)
        ]
        _require_one_dtype(flows)
        plans = [Plan(f.model, known, memory, demand, world) for f, known in zip(flows, families, strict=True)]
        device = flows[0].device
        share = Share.of(plans, memory, device, flows[0].dtype, emptied(device))
        tell(share.estimate)
        idle = [Idle() for _ in flows] if share.estimate.waiting else []
        for index, (flow, clone, trained) in enumerate(zip(flows, clones, families, strict=True)):
            move = idle[index].hold if idle else None
            flow.swap = undo.enter_context(in_parts(clone, plans[index], share.counts[index], move))
            if idle:
                undo.callback(idle[index].go)
            undo.enter_context(computing(flow, clone, trained, run, memory))
            if idle:
                idle[index].go(flow.swap)
                idle[index].pin(flow.model, undo)
        yield Pair(flows[0], flows[1], options.noise.timestep_boundary, idle)


@dataclasses.dataclass(frozen=True)
class Share:
    """What of two models is on a device."""

    counts: tuple[float, ...]
    """Of each, how many of its largest blocks are swapped."""
    estimate: Estimate

    @classmethod
    def of(
        cls, plans: Sequence[Plan], memory: MemoryOptions, device: torch.device, dtype: torch.dtype, free: int
    ) -> Share:
        """Both where they fit without any block that `auto` would swap; else one at a time."""
        auto, shared = memory.blocks_to_swap == "auto", plans[0].shared is not None
        whole = shared or (auto and device.type in SHARED)
        counts = tuple(0.0 if whole or auto else plan.count(dtype, free) for plan in plans)
        both = cls._estimate(plans, counts, dtype, free, waiting=False)
        fits = whole or both.total * MARGIN <= free
        if fits and not memory.offload_inactive_dit:
            return cls(counts, both)
        if not whole:
            counts = tuple(plan.count(dtype, free) for plan in plans)
        return cls(counts, cls._estimate(plans, counts, dtype, free, waiting=True))

    @staticmethod
    def _estimate(
        plans: Sequence[Plan], counts: Sequence[float], dtype: torch.dtype, free: int, *, waiting: bool
    ) -> Estimate:
        each = [plan.estimate(count, dtype, free) for plan, count in zip(plans, counts, strict=True)]
        largest = max(each, key=lambda estimate: estimate.weights)
        weights = largest.weights if waiting else sum(estimate.weights for estimate in each)
        activations = max(estimate.activations for estimate in each)
        return dataclasses.replace(largest, weights=weights, activations=activations, models=2, waiting=waiting)


def _require_one_dtype(flows: Sequence[FlowModel]) -> None:
    dtypes = [str(flow.dtype).removeprefix("torch.") for flow in flows]
    if dtypes[0] != dtypes[1]:
        raise TrainError(
            f"the model for low noise computes in {dtypes[0]}, the one for high noise in {dtypes[1]}; set "
            "mixed_precision to bf16, or to fp16"
        )
