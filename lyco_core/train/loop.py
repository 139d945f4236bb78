"""The loop: batches, loss, gradients, steps. Free of any host: the model is what predicts a velocity."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..errors import TrainError
from .average import Average
from .batches import Batches, passes_of
from .block_shard import Passes
from .distributed import World
from .draws import draw, seed_of
from .items import Item
from .network import Network
from .optimizers import as_evaluated, make_optimizer
from .options import RunOptions, TrainOptions
from .process import FLOW, Process
from .rates import Rates
from .scaler import LossScale
from .two_models import validation_times
from .validation import TIMES, Validation
from .velocity import Errors, VelocityModel
from .weight_norms import limit_norms

__all__ = ["Step", "Training", "require_needed_inputs"]

logger = logging.getLogger("lyco")


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of the optimizer, and what came of it."""

    step: int
    """Its number, from 1."""
    loss: float
    """The weighted mean over all its items."""
    learning_rate: float
    grad_norm: float
    """The norm of all gradients together, before they were clipped."""
    validation: float | None = None


class Training:
    """A network in training. `steps()` goes on from wherever it is."""

    def __init__(
        self,
        model: VelocityModel,
        network: Network,
        items: Sequence[Item],
        options: TrainOptions,
        *,
        empty: Any = None,  # noqa: ANN401 - the host's own form of a condition
        validation: Sequence[Item] = (),
        world: World | None = None,
        shard: Passes | None = None,
        turn: Callable[[Tensor], None] = lambda _: None,
        process: Process = FLOW,
    ) -> None:
        """See the class.

        Args:
            items: their latents are as the model takes them.
            empty: the condition of the empty caption.
            shard: has the weights of the model's blocks, if they are divided over the processes.
            turn: told the timesteps of all processes before the model computes at them.
            process: how the model's sampler has its noise.
        """
        self.model, self.network, self.items, self.options = model, network.to(model.device), items, options
        self.world, self._shard, self._turn = world or World(), shard, turn
        self._empty, self._errors = empty, Errors(model, process)
        times = validation_times(TIMES, options.noise.timestep_boundary)
        tried = partial(self._pass, backward=False)
        self._validation = Validation(self._errors, validation, times, self.world, tried, turn)
        run = options.run
        require_needed_inputs(run, empty=empty is not None, validation=bool(validation))
        self.batches = Batches(items, run.batch_size, self.world.processes, run.seed)
        self.optimizer = make_optimizer(options.optimizer, network.parameter_groups(options.optimizer.learning_rate))
        self.rates = Rates(self.optimizer, options.optimizer, options.schedule)
        with as_evaluated(self.optimizer):  # after which it is in its mode of training
            pass
        self.scaler = LossScale(enabled=model.dtype == torch.float16)
        self.average = Average(network, run.ema_decay) if run.ema_decay else None
        self.step = 0
        """How many steps are done."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the optimizer in an epoch, the last of which has what is left of the batches, as in Musubi."""
        return math.ceil(len(self.batches) / self.options.run.gradient_accumulation_steps)

    @property
    def total_steps(self) -> int:
        """How many steps there are in all."""
        epochs = self.options.run.max_train_epochs
        return epochs * self.steps_per_epoch if epochs else self.options.run.max_train_steps

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return self.step // self.steps_per_epoch

    def steps(self) -> Iterator[Step]:
        """Train until all steps are done, and yield each.

        Raises `TrainError` if the loss or the gradients are not finite; that step then changes nothing.
        """
        while self.step < self.total_steps:
            with torch.random.fork_rng([]):  # the graph's other nodes draw as if nothing had been
                done = self._step()
            yield done

    def _step(self) -> Step:
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)  # what a step that was stopped has left
        numbers = self._numbers()
        loss = sum(self._batch(number) for number in numbers)
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        loss = self._add_up(loss, parameters) / len(numbers)
        norm = self._move(parameters) if math.isfinite(loss) else math.nan
        # float16's scale falls until the gradients fit; where they do not fit at 1, it is not to blame.
        if not math.isfinite(loss) or (not math.isfinite(norm) and self.scaler.value <= 1):
            raise TrainError(
                f"step {self.step + 1}: the loss is {loss:g} and the gradients' norm {norm:g}; training "
                "diverged: lower learning_rate, add a warm-up, or set mixed_precision to bf16 or no"
            )
        learning_rate = self.optimizer.param_groups[0]["lr"]
        self.rates.moved()
        self.step += 1
        if self.average is not None:
            self.average.update(self.step)
        every = self.options.run.validate_every_n_steps
        validation = self.validate() if every and self.step % every == 0 else None
        return Step(self.step, loss, learning_rate, norm, validation)

    def _numbers(self) -> range:
        """The numbers of the next step's batches, all of one epoch."""
        epoch, step = divmod(self.step, self.steps_per_epoch)
        accumulated, size = self.options.run.gradient_accumulation_steps, len(self.batches)
        first = step * accumulated
        return range(epoch * size + first, epoch * size + min(first + accumulated, size))

    def _add_up(self, loss: float, parameters: list[torch.nn.Parameter]) -> float:
        """Replace the gradients by their sums over all processes; returns the sum of the losses.

        A parameter that nothing reached, anywhere, keeps no gradient, so that the optimizer leaves it alone.
        """
        if self.world.processes == 1:
            return loss
        numbers = [loss, *(float(p.grad is not None) for p in parameters)]
        exchanged = torch.tensor(numbers, device=self.model.device)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        self.world.add_up([exchanged, *gradients])
        for parameter, gradient, reached in zip(parameters, gradients, exchanged[1:], strict=True):
            parameter.grad = gradient if reached else None
        return float(exchanged[0])

    def _move(self, parameters: list[torch.nn.Parameter]) -> float:
        """Clip the gradients and move the parameters, unless the gradients' norm is not finite; returns that norm."""
        self.rates.set(self.step, self.total_steps)
        if all(parameter.grad is None for parameter in parameters):
            return 0.0
        self.scaler.unscale(parameter.grad for parameter in parameters if parameter.grad is not None)
        limit = self.options.optimizer.max_grad_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        if math.isfinite(norm):
            self.optimizer.step()
            if largest := self.options.optimizer.scale_weight_norms:
                limit_norms(self.network.trainables.values(), largest)
        self.scaler.update(norm)
        return norm

    def _batch(self, number: int) -> float:
        """Gradients of this process's part of a batch; its part of the batch's mean loss.

        Gradients are divided by gradient_accumulation_steps in an epoch's last step too, as accelerate does.
        """
        indices = self.batches[number]
        items = [self.items[index] for index in indices]
        drawn = draw(self.options, number, len(indices), items[0].latent.shape, self.batches.before(number))
        self._turn(drawn.t)
        conditions = [
            (item.dropped or self._empty) if drawn.dropped[i] else item.condition for i, item in enumerate(items)
        ]
        # Dropout inside the network draws from the CPU's generator alone, whatever the device; see `trainable.base`.
        torch.default_generator.manual_seed(seed_of(self.options.run.seed, number, 1 + self.world.rank))
        loss = 0.0
        for some in passes_of(self.model.groups, conditions, self.world):
            with self._pass(backward=True):
                if not some:
                    continue
                latents = torch.stack([self.items[indices[i]].latent for i in some])
                own, t = [conditions[i] for i in some], drawn.t[some]
                errors = self._errors.of(latents, drawn.noise[some], t, own, self.options.loss)
                part = (errors * self._errors.weights(self.options.noise, t).to(errors.device)).sum() / len(indices)
                if part.requires_grad:  # module dropout may have left nothing of the network in it
                    self.scaler.scaled(part / self.options.run.gradient_accumulation_steps).backward()
                loss += float(part.detach())
        return loss

    def _pass(self, *, backward: bool) -> AbstractContextManager[None]:
        """What a pass of the model is inside of; every process makes as many."""
        return nullcontext() if self._shard is None else self._shard.one_pass(backward=backward)

    def validate(self) -> float:
        """The mean squared error of the validation items, unweighted, with the EMA if there is one."""
        self.network.eval()
        with self.as_saved():
            return self._validation.error()

    @contextmanager
    def as_saved(self) -> Generator[None]:
        """Inside, the network has the values that are saved: the EMA, if there is one, or what the optimizer says."""
        with as_evaluated(self.optimizer) if self.average is None else self.average.in_place():
            yield


def require_needed_inputs(run: RunOptions, *, empty: bool, validation: bool) -> None:
    """Raises `TrainError` for options that need the empty caption's condition, or validation items, without such."""
    if run.caption_dropout_rate and not empty:
        raise TrainError("caption_dropout_rate needs the conditioning of the empty caption; connect it, or set 0")
    if run.validate_every_n_steps and not validation:
        raise TrainError("validate_every_n_steps needs validation items; give some, or set 0")
