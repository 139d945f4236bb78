"""A training of a small model of a flow, and its steps."""

from collections.abc import Sequence

import torch

from lyco_core.train.items import Item
from lyco_core.train.loop import Step, Training
from lyco_core.train.network import Network
from lyco_core.train.options import train_options
from lyco_core.train.targets import choose_targets

from .toy import WIDTH, ToyModel, described, z_image

EVERYTHING = {
    "network_args": ["rank_dropout=0.2", "module_dropout=0.2"],
    "ema_decay": 0.9,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 3,
    "gradient_accumulation_steps": 2,
    "batch_size": 2,
    "caption_dropout_rate": 0.3,
}
"""Options on all of which the next step depends."""


def latent(seed: int, *size: int) -> torch.Tensor:
    return torch.randn(WIDTH, *(size or (4, 4)), generator=torch.Generator().manual_seed(seed))


ITEMS = [Item(latent(number), float(number), f"item {number}") for number in range(4)]


FIVE = [*ITEMS, Item(latent(4), 4.0, "item 4")]


def training(
    items: Sequence[Item] = ITEMS, *, empty: object = -50.0, validation: Sequence[Item] = (), **settings: object
):
    """A training and its model; attach it with `steps`."""
    asked = {"network_module": "lokr", "network_dim": 3, "learning_rate": 1e-2, "timestep_sampling": "uniform"}
    options = train_options({**asked, "max_train_steps": 8, **settings})
    network = Network.initial(choose_targets(described(z_image()), options.network), options.network)
    return Training(ToyModel(), network, items, options, empty=empty, validation=validation)


def steps(made: Training, count: int | None = None) -> list[Step]:
    found: list[Step] = []
    assert isinstance(made.model, ToyModel)
    with made.network.attached(made.model.model):
        for step in made.steps():
            found.append(step)
            if len(found) == count:
                break
    return found


def numbers(made: Training) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in made.network.parameters()])
