"""Which batches a step has, and how its gradients are divided, against the library that Musubi Tuner trains with."""

import pytest
import torch
from lyco_testing.toy import WIDTH, ToyModel, described, z_image
from torch.utils.data import DataLoader

from lyco_core.train.items import Item
from lyco_core.train.loop import Training
from lyco_core.train.network import Network
from lyco_core.train.options import train_options
from lyco_core.train.targets import choose_targets

accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")


def theirs(count: int, accumulated: int, epochs: int) -> list[tuple[list[int], float]]:
    """Of every step: the batches in it, counted from the beginning, and the gradient of a loss of 1 in each."""
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulated)
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    optimizer, loader = accelerator.prepare(optimizer, DataLoader(range(count)))
    found: list[tuple[list[int], float]] = []
    batches: list[int] = []
    for epoch in range(epochs):
        for number, _ in enumerate(loader):
            with accelerator.accumulate(torch.nn.Identity()):
                accelerator.backward(parameter * 1.0)
                batches.append(epoch * count + number)
                if accelerator.sync_gradients:
                    found.append((batches, float(parameter.grad)))
                    batches = []
                optimizer.step()
                optimizer.zero_grad()
    return found


class Constant(ToyModel):
    """Its loss does not depend on the noise, so that a gradient tells how many batches it is the mean of."""

    def velocity(self, x, t, conditions):
        return super().velocity(torch.zeros_like(x), t * 0, conditions)


def ours(count: int, accumulated: int, epochs: int) -> list[tuple[list[int], float]]:
    items = [Item(torch.zeros(WIDTH, 2, 2), 0.0) for _ in range(count)]
    settings = {"network_module": "lora", "learning_rate": 0.0, "max_grad_norm": 0.0}
    options = train_options({**settings, "gradient_accumulation_steps": accumulated, "max_train_epochs": epochs})
    network = Network.initial(choose_targets(described(z_image()), options.network), options.network)
    made = Training(Constant(), network, items, options)
    found: list[tuple[list[int], float]] = []
    batches: list[int] = []
    original, noise = made._batch, torch.randn
    made._batch = lambda number: (batches.append(number), original(number))[1]
    torch.randn = lambda *size, generator=None: torch.zeros(*size)
    try:
        with network.attached(made.model.model):
            for step in made.steps():
                found.append((batches.copy(), step.grad_norm))
                batches.clear()
    finally:
        torch.randn = noise
    whole = found[0][1] * (accumulated / len(found[0][0]))
    return [(numbers, norm / whole) for numbers, norm in found]


@pytest.mark.parametrize(("count", "accumulated"), [(5, 2), (4, 2), (3, 4), (7, 3), (6, 1), (1, 2)])
def test_steps_and_their_gradients(count: int, accumulated: int):
    expected, found = theirs(count, accumulated, 3), ours(count, accumulated, 3)
    assert [numbers for numbers, _ in found] == [numbers for numbers, _ in expected]
    assert [norm for _, norm in found] == pytest.approx([norm for _, norm in expected], rel=1e-5)
