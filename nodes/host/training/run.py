"""One training on a ComfyUI model: from items to the file, whatever happens in between."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from ....lyco_core.errors import LycoError, TrainError, about_file
from ....lyco_core.train.batches import require_items
from ....lyco_core.train.checking import require_possible
from ....lyco_core.train.distributed import World
from ....lyco_core.train.estimate import Estimate
from ....lyco_core.train.image_inputs import image_input
from ....lyco_core.train.items import Item
from ....lyco_core.train.loop import Step, Training
from ....lyco_core.train.metadata import Run
from ....lyco_core.train.network import Network
from ....lyco_core.train.noise import resolve_sampling
from ....lyco_core.train.options import TrainOptions
from ....lyco_core.train.samples import require_supplied
from ....lyco_core.train.state import load_state
from ....lyco_core.train.targets import TargetChoice, choose_targets
from ....lyco_core.train.training_files import Saved, TrainingFiles
from ....lyco_core.train.two_models import require_pair, resolve_boundary
from ..model.beside import require_constant
from ..model.matching import model_weights
from ..protocols import Conditioning, ModelPatcher
from .adapter_files import network_of
from .conditions import OF_IMAGES, require_fit, require_image, without_caption
from .demand import Demand, demand_of, require_whole_tokens
from .flow_model import FlowModel, loaded
from .memory import memory_for, out_of_memory, with_needs
from .pair import Pair, both_loaded
from .samples import Samples, Sampling
from .summary import opening, report

log = logging.getLogger("lyco")


@dataclasses.dataclass(frozen=True)
class Data:
    """What a training learns from."""

    items: Sequence[Item]
    empty: Conditioning | None = None
    """The conditioning of the empty caption."""
    validation: Sequence[Item] = ()
    datasets: Sequence[Mapping[str, Any]] = ()
    """What the items were made of, for the file's metadata."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """The result of a training."""

    path: str
    steps: Sequence[Step]
    """Those of this run, without the ones before a resume."""
    report: str


LOADING_HELPS = (
    "set blocks_to_swap to auto, set fp8_scaled to true, a model in fp8, fewer other programs that use the GPU, a "
    "lower network_dim, LoKr instead of LoHa"
)

Tell = Callable[[Training, Step, Sequence[str]], None]
"""Told of every step and of the paths that were saved after it; may raise to stop."""


def train(
    patcher: ModelPatcher,
    data: Data,
    options: TrainOptions,
    folder: str,
    tell: Tell,
    *,
    saved: Callable[[Saved], None] = lambda _: None,
    needs: Callable[[Estimate], None] = lambda _: None,
    world: World | None = None,
    high: ModelPatcher | None = None,
    model: str = "",
    vae: str = "",
    sampling: Sampling | None = None,
) -> Trained:
    """Train an adapter for `patcher` and save it in `folder`; the model is as it was afterwards.

    Args:
        patcher: patches that it holds count as part of the model.
        data: latents as the VAE gives them, and conditioning as the text encoder does.
        saved: told of every file that is written, also by a training that then ends early.
        needs: told how much memory a step takes, before the model is loaded.
        high: the model for high noise, of two; `patcher` is then that for low noise.
        model, vae: names of their files, for the metadata.
        sampling: what samples are made with while it trains.

    Raises:
        LycoError: something is wrong with the options, the data or a file, before or while training.
        BaseException: whatever `tell` raises; what was trained so far is saved first.
    """
    world = world or World()
    _require_trainable(patcher, data, options, folder, world)
    data = _with_dropped(data, options)
    choice, options = _resolved(patcher, high, options)
    for item in (*data.items, *data.validation):
        require_whole_tokens(choice.trained, item.name, item.latent.shape)
    network = network_of(choice, options)
    if options.network.verbose:
        log.info("%s", network.listing())
    told = list[Estimate]()

    def tell_needs(estimate: Estimate) -> None:
        log.info("%s", estimate.line())
        told.append(estimate)
        needs(estimate)

    demand = demand_of(patcher.model, (*data.items, *data.validation), network, options, world.processes)
    with ExitStack() as ending:
        with memory_for("the model was loaded", LOADING_HELPS, lambda: [estimate.line() for estimate in told]):
            flow = ending.enter_context(_loaded(patcher, high, options, demand, tell_needs, world))
            training = _training(flow, network, data, options, world)
        files = TrainingFiles(training, Run(training, data.datasets, model, vae), folder, saved)
        ending.callback(files.close)
        samples = Samples(training, flow, sampling, folder, files.sampled) if sampling else None
        log.info("%s", opening(training, choice))
        with network.attached(*flow.models):
            done = _steps(training, files, tell, told[0], samples)
            path = files.finish()
            if samples:
                samples.after(training.step)
        training.world.wait()  # for the one that writes
    return Trained(path, done, report(path, training, done, choice) if training.world.writes else "")


def _require_trainable(patcher: ModelPatcher, data: Data, options: TrainOptions, folder: str, world: World) -> None:
    """Raise `LycoError` for a model, data or options that cannot be trained, or a folder that cannot be written."""
    require_items(data.items)
    require_constant(patcher)
    weights = model_weights(patcher)
    given = {"empty": data.empty is not None, "validation": bool(data.validation)}
    require_possible(options, weights.architecture, folder, **given, processes=world.processes)
    for item in (*data.items, *data.validation):
        require_fit(item.condition, item.name)
    require_supplied(options, [k for k in OF_IMAGES if any(i.condition[1].get(k) is not None for i in data.items)])
    if image := image_input(weights):
        for item in (*data.items, *data.validation):
            require_image(item.condition, item.name, image)


def _with_dropped(data: Data, options: TrainOptions) -> Data:
    """The data, whose items have what stands in for their captions where these are dropped."""
    if data.empty is None or not options.run.caption_dropout_rate:
        return data
    items = [
        dataclasses.replace(item, dropped=item.dropped or without_caption(item.condition, data.empty))
        for item in data.items
    ]
    return dataclasses.replace(data, items=items)


def _resolved(
    patcher: ModelPatcher, high: ModelPatcher | None, options: TrainOptions
) -> tuple[TargetChoice, TrainOptions]:
    """What is trained, and the options without those that say `auto`. Raises `TrainError` if two models do not go
    together.
    """
    weights = model_weights(patcher)
    choice = choose_targets(weights, options.network)
    if high is not None:
        require_pair(weights, model_weights(high), options.network)
    noise = resolve_boundary(resolve_sampling(options.noise, choice.trained), weights, two=high is not None)
    return choice, dataclasses.replace(options, noise=noise)


def _loaded(
    patcher: ModelPatcher,
    high: ModelPatcher | None,
    options: TrainOptions,
    demand: Demand,
    tell: Callable[[Estimate], None],
    world: World,
) -> AbstractContextManager[FlowModel | Pair]:
    if high is not None:
        return both_loaded(patcher, high, options, demand, tell, world)
    return loaded(patcher, options.run, options.memory, demand, tell, world)


def _training(
    flow: FlowModel | Pair, network: Network, data: Data, options: TrainOptions, world: World | None
) -> Training:
    items, validation = (
        [dataclasses.replace(item, latent=flow.latent(item.latent)) for item in some]
        for some in (data.items, data.validation)
    )
    training = Training(
        flow,
        network,
        items,
        options,
        empty=data.empty,
        validation=validation,
        world=world,
        shard=flow.shard,
        turn=flow.turn,
        process=flow.process.under(options.noise),
    )
    if options.run.resume:
        load_state(options.run.resume, training)
        if training.step >= training.total_steps:
            with about_file(options.run.resume):
                raise TrainError(
                    f"is of step {training.step} and there are {training.total_steps} in all: nothing is left to do; "
                    "raise max_train_steps"
                )
    return training


def _steps(
    training: Training, files: TrainingFiles, tell: Tell, needs: Estimate, samples: Samples | None
) -> list[Step]:
    """Do all steps that are left; if something stops them from outside, the adapter is saved first."""
    done: list[Step] = []
    try:
        if samples and training.step == 0:
            samples.after(0)
        for step in training.steps():
            done.append(step)
            tell(training, step, files.after(step))
            if samples and step.step < training.total_steps:  # those of the last come once the result is saved
                samples.after(step.step)
    except LycoError:
        raise
    except BaseException as reason:
        outcome = files.interrupted()
        log.warning("training stopped after step %d: %s", training.step, outcome)
        if out_of_memory(reason):
            raise TrainError(
                f"out of memory in step {training.step + 1} ({outcome}). What helps, most first: "
                "gradient_checkpointing, more blocks_to_swap, batch_size 1 with more gradient_accumulation_steps, "
                "smaller images or fewer frames, gradient_checkpointing_cpu_offload, fp8_scaled or a model in fp8, "
                f"mixed_precision bf16, LoKr instead of LoHa. {with_needs([needs.line()], reason)}"
            ) from reason
        raise
    return done
