"""Learning rates against the library whose schedules Musubi Tuner uses."""

import pytest
import torch

from lyco_core.train.schedules import ScheduleOptions, rate

optimization = pytest.importorskip("transformers.optimization", reason="transformers is not installed")
STEPS = 40
CASES = {
    "linear": {},
    "cosine": {},
    "cosine_with_restarts": {"num_cycles": 3},
    "polynomial": {"power": 2.0, "lr_end": 0.0},
    "inverse_sqrt": {},
    "constant_with_warmup": {},
    "cosine_with_min_lr": {"min_lr_rate": 0.2},
}


@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize("name", CASES)
def test_schedule(name: str, warmup: int):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    makers = {
        "linear": optimization.get_linear_schedule_with_warmup,
        "cosine": optimization.get_cosine_schedule_with_warmup,
        "cosine_with_restarts": optimization.get_cosine_with_hard_restarts_schedule_with_warmup,
        "polynomial": optimization.get_polynomial_decay_schedule_with_warmup,
        "inverse_sqrt": optimization.get_inverse_sqrt_schedule,
        "constant_with_warmup": optimization.get_constant_schedule_with_warmup,
        "cosine_with_min_lr": optimization.get_cosine_with_min_lr_schedule_with_warmup,
    }
    total = {} if name in ("inverse_sqrt", "constant_with_warmup") else {"num_training_steps": STEPS}
    schedule = makers[name](optimizer, num_warmup_steps=warmup, **total, **CASES[name])
    options = ScheduleOptions(
        lr_scheduler=name,
        lr_warmup_steps=warmup,
        lr_scheduler_num_cycles=3,
        lr_scheduler_power=2.0,
        lr_scheduler_min_lr_ratio=0.2 if name == "cosine_with_min_lr" else 0.0,
    )
    for step in range(STEPS):
        assert rate(options, step, STEPS) == pytest.approx(schedule.get_last_lr()[0], abs=1e-9), step
        optimizer.step()
        schedule.step()


def test_a_part_of_all_steps():
    options = ScheduleOptions(lr_warmup_steps=0.25)
    assert [rate(options, step, 16) for step in (0, 1, 4, 15)] == [0, 0.25, 1, 1]
