"""Learning rates and weights of the loss against the libraries whose formulas Musubi Tuner uses."""

import itertools

import pytest
import torch

from lyco_core.errors import TrainError
from lyco_core.train.noise import NoiseOptions, loss_weights
from lyco_core.train.schedules import SCHEDULES, ScheduleOptions, rate, require_rate

optimization = pytest.importorskip("transformers.optimization", reason="transformers is not installed")
STEPS = 40
MUSUBIS = {
    "constant": lambda options: {},
    "constant_with_warmup": lambda options: {},
    "linear": lambda options: {},
    "cosine": lambda options: {},
    "cosine_with_restarts": lambda options: {"num_cycles": options.lr_scheduler_num_cycles},
    "polynomial": lambda options: {"power": options.lr_scheduler_power},
    "inverse_sqrt": lambda options: {},
    "cosine_with_min_lr": lambda options: {
        "num_cycles": options.lr_scheduler_num_cycles / 2,
        "min_lr_rate": options.lr_scheduler_min_lr_ratio,
    },
}
"""Schedule -> what Musubi's get_lr_scheduler passes on to transformers for its options."""


@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule(name: str, warmup: int):
    for learning_rate, cycles, power, low in itertools.product((1.0, 3e-5), (1, 2, 3), (1.0, 2.5), (0.0, 0.2)):
        options = ScheduleOptions(
            lr_scheduler=name,
            lr_warmup_steps=warmup,
            lr_scheduler_num_cycles=cycles,
            lr_scheduler_power=power,
            lr_scheduler_min_lr_ratio=low,
        )
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=learning_rate)
        kind = optimization.SchedulerType(name)
        steps = {} if name in ("inverse_sqrt", "constant_with_warmup", "constant") else {"num_training_steps": STEPS}
        if name != "constant":
            steps["num_warmup_steps"] = warmup
        elif warmup:
            return  # Musubi refuses it
        schedule = optimization.TYPE_TO_SCHEDULER_FUNCTION[kind](optimizer, **steps, **MUSUBIS[name](options))
        for step in range(STEPS):
            expected = schedule.get_last_lr()[0]
            assert learning_rate * rate(options, step, STEPS, learning_rate) == pytest.approx(expected, abs=1e-12), step
            optimizer.step()
            schedule.step()


def test_a_part_of_all_steps():
    options = ScheduleOptions(lr_warmup_steps=0.25)
    assert [rate(options, step, 16, 1.0) for step in (0, 1, 4, 15)] == [0, 0.25, 1, 1]


def test_polynomial_cannot_end_above_where_it_begins():
    """As transformers says too."""
    options = ScheduleOptions(lr_scheduler="polynomial")
    with pytest.raises(TrainError, match="polynomial ends at 1e-07 and learning_rate is 1e-07; raise it"):
        require_rate(options, 1e-7)
    require_rate(options, 2e-7)
    require_rate(ScheduleOptions(), 0.0)


def test_a_cosine_with_a_least_rate_is_another_one(caplog: pytest.LogCaptureFixture):
    ScheduleOptions(lr_scheduler="cosine", lr_scheduler_min_lr_ratio=0.2)
    assert "cosine falls to 0; cosine_with_min_lr is what has lr_scheduler_min_lr_ratio" in caplog.text


@pytest.mark.parametrize("scheme", ["none", "sigma_sqrt", "cosmap"])
def test_weights_of_the_loss(scheme: str):
    diffusers = pytest.importorskip("diffusers.training_utils", reason="diffusers is not installed")
    grid = torch.arange(1, 1001) / 1000
    expected = diffusers.compute_loss_weighting_for_sd3(scheme, grid)
    assert torch.equal(loss_weights(NoiseOptions(weighting_scheme=scheme, timestep_sampling="sigma"), grid), expected)
