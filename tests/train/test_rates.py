"""Learning rates by a class of torch's kind; those of `lr_scheduler` are in tests/clients/test_schedules.py."""

import ast
from pathlib import Path

import pytest
import torch
from lyco_testing.toy_training import EVERYTHING, numbers, steps, training

from lyco_core.errors import TrainError
from lyco_core.train.state import load_state, save_state

CLASSES = {
    "StepLR": ["step_size=3", "gamma=0.5"],
    "torch.optim.lr_scheduler.CosineAnnealingWarmRestarts": ["T_0=4", "eta_min=1e-4"],
    "OneCycleLR": ["max_lr=0.02", "total_steps=12"],
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_and_its_arguments(name: str):
    args = CLASSES[name]
    found = [step.learning_rate for step in steps(training(lr_scheduler_type=name, lr_scheduler_args=args))]
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
    cls = getattr(torch.optim.lr_scheduler, name.rpartition(".")[2])
    schedule = cls(optimizer, **{text.partition("=")[0]: ast.literal_eval(text.partition("=")[2]) for text in args})
    for rate in found:
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-15)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("name", CLASSES)
def test_resumed_it_is_the_uninterrupted_one(name: str, tmp_path: Path):
    settings = EVERYTHING | {"max_train_steps": 9, "lr_scheduler": None, "lr_warmup_steps": None}
    settings |= {"lr_scheduler_type": name, "lr_scheduler_args": CLASSES[name]}
    through, first, resumed = training(**settings), training(**settings), training(**settings)
    expected = steps(through)
    steps(first, 4)
    save_state(tmp_path / "a-state.pt", first)
    load_state(tmp_path / "a-state.pt", resumed)
    assert steps(resumed) == expected[4:]
    assert torch.equal(numbers(resumed), numbers(through))
    with pytest.raises(TrainError, match="lr_scheduler_type, lr_scheduler_args changed since it was saved"):
        load_state(tmp_path / "a-state.pt", training(**settings | {"lr_scheduler_type": "", "lr_scheduler_args": []}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr_scheduler_type": "Steps"}, "torch.optim.lr_scheduler has no Steps"),
        ({"lr_scheduler_type": "nowhere.Steps"}, "needs nowhere, which cannot be imported"),
        ({"lr_scheduler_type": "torch.nn.Linear"}, "torch.nn.Linear is no schedule of torch's kind"),
        ({"lr_scheduler_type": "ReduceLROnPlateau"}, "is stepped with metrics, which a training has not"),
        ({"lr_scheduler_type": "StepLR"}, r"lr_scheduler_args \[\]: StepLR refuses them: .*step_size"),
        ({"lr_scheduler_type": "StepLR", "lr_warmup_steps": 3}, "stands in for lr_scheduler and lr_warmup_steps"),
        ({"lr_scheduler_args": ["step_size=3"]}, "are for lr_scheduler_type, which is empty"),
    ],
)
def test_refused(settings: dict[str, object], message: str):
    with pytest.raises(TrainError, match=message):
        training(**settings)


def test_one_that_ends_too_early():
    made = training(lr_scheduler_type="OneCycleLR", lr_scheduler_args=["max_lr=0.02", "total_steps=3"])
    with pytest.raises(TrainError, match=r"lr_scheduler_type OneCycleLR goes no further: .*set lr_scheduler_args"):
        steps(made)
