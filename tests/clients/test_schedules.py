"""Learning rates and weights of the loss against the libraries whose formulas Musubi Tuner uses."""

import itertools
import os
import runpy
from pathlib import Path

import pytest
import torch

from lyco_core.errors import TrainError
from lyco_core.train.noise import NoiseOptions
from lyco_core.train.schedules import ScheduleOptions, rate, require_rate
from lyco_core.train.timesteps import loss_weights

optimization = pytest.importorskip("transformers.optimization", reason="transformers is not installed")
STEPS, DECAY = 40, 12
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
    "warmup_stable_decay": lambda options: {
        "num_cycles": options.lr_scheduler_num_cycles / 2,
        "min_lr_ratio": options.lr_scheduler_min_lr_ratio,
        "num_decay_steps": DECAY,
    },
}
"""Schedule -> what Musubi's get_lr_scheduler passes on to transformers for its options."""


@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize("name", MUSUBIS)
def test_schedule(name: str, warmup: int):
    for learning_rate, cycles, power, low in itertools.product((1.0, 3e-5), (1, 2, 3), (1.0, 2.5), (0.0, 0.2)):
        options = ScheduleOptions(
            lr_scheduler=name,
            lr_warmup_steps=warmup,
            lr_scheduler_num_cycles=cycles,
            lr_scheduler_power=power,
            lr_scheduler_min_lr_ratio=low,
            lr_decay_steps=DECAY,
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


def test_inverse_sqrt_on_another_scale():
    options = ScheduleOptions(lr_scheduler="inverse_sqrt", lr_warmup_steps=5, lr_scheduler_timescale=9)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = optimization.get_inverse_sqrt_schedule(optimizer, 5, timescale=9)
    for step in range(STEPS):
        assert rate(options, step, STEPS, 1.0) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("warmup", [0, 1, 2, 7, 30, 39])
@pytest.mark.parametrize("low", [0.0, 0.2])
def test_rex_is_musubis(warmup: int, low: float):
    """The paper's curve with alpha 0.1 and beta 0.9; from the warm-up's second step on a line to it, and before that
    the point of the curve that lies as far from its end."""
    options = ScheduleOptions(lr_scheduler="rex", lr_warmup_steps=warmup, lr_scheduler_min_lr_ratio=low)
    least, after = low or 0.01, STEPS - warmup
    for step in range(STEPS):
        if warmup > 1 and 1 <= step < warmup:
            expected = least + (1 - least) * (step - 1) / (warmup - 1)
        elif step - warmup == -1 or (warmup == step == 1):
            expected = least
        else:
            z = (after - (step - warmup) % after) / after
            expected = least + (1 - least) * z / (0.1 + 0.9 * z)
        assert rate(options, step, STEPS, 1e-4) == pytest.approx(expected, abs=1e-12), step


def test_rex_is_the_one_of_a_checkout_of_musubi():
    """$MUSUBI_PATH names it."""
    if "MUSUBI_PATH" not in os.environ:
        pytest.skip("MUSUBI_PATH names no checkout of Musubi Tuner")
    musubi = runpy.run_path(str(Path(os.environ["MUSUBI_PATH"], "src", "musubi_tuner", "modules", "lr_schedulers.py")))
    for warmup, low in itertools.product((0, 1, 2, 7, 30, 39), (0.0, 0.2)):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
        schedule = musubi["RexLR"](optimizer, 1e-3, 1e-3 * (low or 0.01), STEPS, warmup)
        options = ScheduleOptions(lr_scheduler="rex", lr_warmup_steps=warmup, lr_scheduler_min_lr_ratio=low)
        for step in range(STEPS):
            expected = schedule.get_last_lr()[0]
            assert 1e-3 * rate(options, step, STEPS, 1e-3) == pytest.approx(expected, abs=1e-12), (warmup, low, step)
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
