"""One step by its definition: the gradients of a mean, what is left undone, and float16's scale."""

import math
from collections.abc import Sequence

import pytest
import torch
from lyco_testing.toy import WIDTH, ToyModel, described, z_image

from lyco_core.errors import TrainError
from lyco_core.train.distributed import World
from lyco_core.train.items import Item
from lyco_core.train.loop import Step, Training
from lyco_core.train.network import Network
from lyco_core.train.options import train_options
from lyco_core.train.scaler import LossScale
from lyco_core.train.targets import choose_targets

ITEMS = [
    Item(torch.randn(WIDTH, 4, 4, generator=torch.Generator().manual_seed(number)), float(number))
    for number in range(4)
]


class Recording(ToyModel):
    """Keeps what it is asked; stops at a call if told so."""

    def __init__(self, stop_at: int = 0) -> None:
        super().__init__()
        self.asked: list[tuple[torch.Tensor, torch.Tensor, list[float]]] = []
        self._stop_at = stop_at

    def velocity(self, x: torch.Tensor, t: torch.Tensor, conditions: Sequence[float]) -> torch.Tensor:
        self.asked.append((x, t, list(conditions)))
        if len(self.asked) == self._stop_at:
            raise KeyboardInterrupt
        return super().velocity(x, t, conditions)


class Half(ToyModel):
    """Computes in float16."""

    dtype = torch.float16

    def __init__(self) -> None:
        super().__init__()
        self.model.half()

    def velocity(self, x: torch.Tensor, t: torch.Tensor, conditions: Sequence[float]) -> torch.Tensor:
        return super().velocity(x.half(), t.half(), conditions).float()


def training(
    model: ToyModel | None = None, items: Sequence[Item] = ITEMS, world: World | None = None, **settings: object
) -> Training:
    asked = {"network_module": "lokr", "network_dim": 16, "learning_rate": 1e-2, "timestep_sampling": "uniform"}
    options = train_options({**asked, "max_train_steps": 3, **settings})
    network = Network.initial(choose_targets(described(z_image()), options.network), options.network)
    return Training(model or ToyModel(), network, items, options, world=world)


def steps(made: Training) -> list[Step]:
    assert isinstance(made.model, ToyModel)
    with made.network.attached(made.model.model):
        return list(made.steps())


def numbers(made: Training) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in made.network.parameters()])


@pytest.mark.parametrize(("batch_size", "accumulated"), [(4, 1), (2, 2), (1, 4)])
@pytest.mark.parametrize("weighting", ["none", "cosmap"])
def test_gradients_are_those_of_the_mean_over_all_items(batch_size: int, accumulated: int, weighting: str):
    """However they are split: from what the model was asked, all four items' loss is written out at once."""
    model = Recording()
    made = training(
        model,
        batch_size=batch_size,
        gradient_accumulation_steps=accumulated,
        weighting_scheme=weighting,
        max_train_steps=1,
        max_grad_norm=0.0,
        learning_rate=0.0,
    )
    (step,) = steps(made)
    found = [p.grad.clone() for p in made.network.parameters()]
    assert len(model.asked) == accumulated
    x, t = (torch.cat([part[i] for part in model.asked]) for i in (0, 1))
    conditions = [c for part in model.asked for c in part[2]]
    assert sorted(conditions) == [0.0, 1.0, 2.0, 3.0]
    data = torch.stack([ITEMS[int(c)].latent for c in conditions])
    at = t.view(-1, 1, 1, 1)
    noise = (x - (1 - at) * data) / at
    with made.network.attached(model.model):
        errors = (ToyModel.velocity(model, x, t, conditions) - (noise - data)).square().mean((1, 2, 3))
    grid = torch.floor(1000 * t + 1.5).clamp(1, 1000) / 1000
    weights = 2 / (math.pi * (1 - 2 * grid + 2 * grid**2)) if weighting == "cosmap" else 1
    loss = (weights * errors).mean()
    assert step.loss == pytest.approx(float(loss.detach()), rel=1e-4)
    for one, other in zip(found, torch.autograd.grad(loss, list(made.network.parameters())), strict=True):
        assert float((one - other).norm()) <= 1e-3 * float(other.norm()) + 1e-7


class Alone(ToyModel):
    """Takes no two conditions at once."""

    def groups(self, conditions: Sequence[float]) -> list[list[int]]:
        return [[index] for index in range(len(conditions))]


def test_items_that_go_one_by_one_have_the_gradients_of_their_batch():
    together, apart = training(batch_size=4), training(Alone(), batch_size=4)
    losses = [[step.loss for step in steps(made)] for made in (together, apart)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert torch.allclose(numbers(together), numbers(apart), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("stop_at", [2, 3, 4])
def test_a_step_that_was_stopped_leaves_nothing(stop_at: int):
    """Gradients of its first batches do not come into the next."""
    through, stopped = (
        training(gradient_accumulation_steps=2),
        training(Recording(stop_at), gradient_accumulation_steps=2),
    )
    steps(through)
    with pytest.raises(KeyboardInterrupt):
        steps(stopped)
    steps(stopped)
    assert torch.equal(numbers(stopped), numbers(through))


def test_a_loss_that_is_no_number_moves_nothing():
    """Its square is beyond float32 where its gradients are not."""
    latent = ITEMS[0].latent.clone()
    latent[0, 0, 0] = 1e20
    made = training(items=[Item(latent, 0.0)], min_timestep=999.99999, max_grad_norm=0.0)
    before = numbers(made).clone()
    with pytest.raises(TrainError, match="step 1: the loss is inf"):
        steps(made)
    assert torch.equal(numbers(made), before)
    assert made.step == 0


def test_float16_skips_steps_until_its_scale_fits():
    made = training(Half(), max_train_steps=6)
    made.scaler.load_state_dict({**made.scaler.state_dict(), "scale": 2.0**40})
    before, found = numbers(made).clone(), steps(made)
    assert not math.isfinite(found[0].grad_norm)
    assert made.scaler.value < 2.0**40
    assert torch.equal(numbers(made), before)
    made = training(Half(), max_train_steps=6)
    assert all(math.isfinite(step.grad_norm) for step in steps(made))
    assert not torch.equal(numbers(made), before)


def test_float16_s_scale_is_torch_s():
    """Step by step as GradScaler, over gradients that fit, do not, and fit for long."""
    scaler = torch.amp.GradScaler("cpu")
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scaler.scale(torch.zeros(()))
    ours = LossScale(enabled=True)
    fits = [True, False, False, True, *[True] * 2001, False, True]
    for fit in fits:
        assert ours.scaled(torch.tensor(3.0)) == scaler.scale(torch.tensor(3.0))
        gradient = torch.full((3,), 5.0 * ours.value if fit else math.inf)
        parameter.grad = gradient.clone()
        ours.unscale([gradient])
        scaler.unscale_(optimizer)
        assert torch.equal(gradient, parameter.grad)
        scaler.step(optimizer)
        scaler.update()
        ours.update(float(gradient.norm()))
        assert ours.state_dict() == scaler.state_dict()
    again = LossScale(enabled=True)
    again.load_state_dict(scaler.state_dict())
    assert again.state_dict() == ours.state_dict()
    assert LossScale(enabled=False).state_dict() == {}


class Broken(torch.autograd.Function):
    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    def backward(_, gradient):
        return gradient * math.nan


class Bad(Half):
    """Has no gradients that are numbers."""

    def velocity(self, x: torch.Tensor, t: torch.Tensor, conditions: Sequence[float]) -> torch.Tensor:
        return Broken.apply(super().velocity(x, t, conditions))


def test_float16_whose_gradients_never_fit_is_told():
    """Not: all steps skipped, and a file in which nothing was learned."""
    made = training(Bad(), max_train_steps=60)
    before = numbers(made).clone()
    with pytest.raises(TrainError, match=r"step 16: .* the gradients' norm nan; training diverged"):
        steps(made)
    assert torch.equal(numbers(made), before)


def test_float16_where_a_process_has_no_item_in_its_first_batch():
    class Told(World):
        """The second of two processes: the other one's gradients are ones."""

        def add_up(self, tensors):
            for tensor in tensors:
                tensor.add_(1)

    made = training(Half(), ITEMS[:1], Told(1, 2), max_train_steps=1)
    before = numbers(made).clone()
    steps(made)
    assert not torch.equal(numbers(made), before)
