"""A state that does not fit, or is damaged, is refused in one line, and the training is as it was."""

import dataclasses
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lyco_testing.toy import WIDTH, ToyModel, described, z_image

from lyco_core.errors import TrainError
from lyco_core.train.items import Item
from lyco_core.train.loop import Training
from lyco_core.train.network import Network
from lyco_core.train.options import train_options
from lyco_core.train.state import load_state, save_state
from lyco_core.train.targets import choose_targets

ITEMS = [
    Item(torch.randn(WIDTH, 4, 4, generator=torch.Generator().manual_seed(number)), float(number))
    for number in range(2)
]


class Half(ToyModel):
    """Says so, which is all that the scale of the loss depends on."""

    dtype = torch.float16


def training(model: ToyModel | None = None, items: Sequence[Item] = ITEMS, **settings: object) -> Training:
    asked = {"network_module": "lora", "network_dim": 2, "learning_rate": 1e-2, "timestep_sampling": "uniform"}
    options = train_options({**asked, "max_train_steps": 6, "ema_decay": 0.9, **settings})
    network = Network.initial(choose_targets(described(z_image()), options.network), options.network)
    return Training(model or ToyModel(), network, items, options)


def steps(made: Training, count: int) -> None:
    with made.network.attached(made.model.model):  # pyright: ignore[reportAttributeAccessIssue]
        for _, _ in zip(range(count), made.steps(), strict=False):
            pass


def moving(made: Training) -> list[torch.Tensor]:
    """Everything that a step changes."""
    tensors = [*made.network.state_dict().values(), *made.average.values.values(), torch.tensor(made.step)]
    tensors += (v for state in made.optimizer.state_dict()["state"].values() for v in state.values())
    return [tensor.detach().clone() for tensor in tensors]


def refused(path: Path, other: Training, message: str) -> None:
    """Also for one that has learned something, which it keeps."""
    steps(other, 1)
    before = moving(other)
    with pytest.raises(TrainError, match=f"^{path.name}: .*{message}"):
        load_state(path, other)
    for one, same in zip(moving(other), before, strict=True):
        assert torch.equal(one, same)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    made, path = training(), tmp_path / "a-state.pt"
    steps(made, 3)
    save_state(path, made)
    return path


OTHERS: dict[str, tuple[Callable[[], Training], str]] = {
    "a group more": (
        lambda: training(loraplus_lr_ratio=4.0),
        "does not fit this training .*different number of parameter groups",
    ),
    "arguments": (
        lambda: training(optimizer_args=["weight_decay=0.5"]),
        r"has the state of optimizer_args \[\], now \['weight_decay=0.5'\]; set it back",
    ),
    "float16": (lambda: training(Half()), "mixed_precision was not fp16 when it was saved"),
    "a dataset's batches": (
        lambda: training(items=[dataclasses.replace(item, batch_size=2) for item in ITEMS]),
        "batch_size changed since it was saved",
    ),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_training_s_state_changes_nothing(other: str, saved: Path):
    make, message = OTHERS[other]
    refused(saved, make(), message)


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no optimizer": lambda state: state.pop("optimizer"),
    "no architecture": lambda state: state.pop("architecture"),
    "no step": lambda state: state.pop("step"),
    "averages of other shapes": lambda state: state["average"].update({list(state["average"])[-1]: torch.zeros(1, 7)}),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_state_that_lacks_something_changes_nothing(edit: str, saved: Path):
    state = torch.load(saved, weights_only=True)
    EDITS[edit](state)
    torch.save(state, saved)
    refused(saved, training(), "does not fit this training")


def test_damaged_bytes_are_refused_or_do_not_matter(saved: Path):
    """Wherever they are: in numbers, in the pickle, in the archive's own tables."""
    whole, chosen, made = saved.read_bytes(), random.Random(0), training()
    load_state(saved, made)
    expected = moving(made)
    told, other = 0, training()
    for number in range(120):
        data = bytearray(whole)
        # Half of them where the pickle is, at the beginning.
        data[chosen.randrange(len(data) if number % 2 else 3000)] ^= 1 << chosen.randrange(8)
        saved.write_bytes(data)
        try:
            load_state(saved, other)
        except TrainError:
            told += 1
        else:
            assert all(torch.equal(a, b) for a, b in zip(moving(other), expected, strict=True))
            other = training()
    assert told > 60


def test_a_state_of_musubi_or_accelerate_is_a_folder(tmp_path: Path):
    with pytest.raises(
        TrainError, match=r"is a folder, as Musubi Tuner and accelerate keep a state in; .*network_weights"
    ):
        load_state(tmp_path, training())
