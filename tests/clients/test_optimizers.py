"""Optimizers of libraries, in trainings that are resumed: each goes on bit for bit."""

import warnings
from pathlib import Path

import pytest
import torch
from lyco_testing.toy_training import EVERYTHING, numbers, steps, training

from lyco_core.errors import TrainError
from lyco_core.train.state import load_state, save_state

KINDS = {
    "AdamW8bit": ("bitsandbytes", ["min_8bit_size=4"]),
    "bitsandbytes.optim.Lion8bit": ("bitsandbytes", ["min_8bit_size=4"]),
    "Prodigy": ("prodigyopt", ["decouple=True", "safeguard_warmup=True"]),
    "AdaFactor": ("transformers", []),
    "transformers.optimization.Adafactor": ("transformers", ["relative_step=False", "scale_parameter=False"]),
    "schedulefree.AdamWScheduleFree": ("schedulefree", ["warmup_steps=2"]),
    "pytorch_optimizer.CAME": ("pytorch_optimizer", ["weight_decay=0.01"]),
    "pytorch_optimizer.ScheduleFreeAdamW": ("pytorch_optimizer", []),
}
"""optimizer_type -> the package that has it, and arguments."""


def settings_of(kind: str, **more: object) -> dict[str, object]:
    package, args = KINDS[kind]
    with warnings.catch_warnings():  # of what a package does as it is imported
        warnings.simplefilter("ignore")
        pytest.importorskip(package, reason=f"{package} is not installed", exc_type=ImportError)
    return EVERYTHING | {"max_train_steps": 9, "optimizer_type": kind, "optimizer_args": args} | more


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_it_is_the_uninterrupted_one(kind: str, tmp_path: Path):
    settings = settings_of(kind, ema_decay=0.0)
    through, first, resumed = training(**settings), training(**settings), training(**settings)
    before = numbers(through)
    expected = steps(through)
    assert not torch.equal(before, numbers(through))
    steps(first, 4)
    save_state(tmp_path / "a-state.pt", first)
    load_state(tmp_path / "a-state.pt", resumed)
    assert steps(resumed) == expected[4:]
    assert torch.equal(numbers(resumed), numbers(through))
    with through.as_saved(), resumed.as_saved():
        assert torch.equal(numbers(resumed), numbers(through))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "8bit" in kind])
def test_it_keeps_8_bits(kind: str):
    made = training(**settings_of(kind))
    steps(made, 1)
    kept = [value for state in made.optimizer.state.values() for value in state.values()]
    assert any(torch.is_tensor(value) and value.dtype == torch.uint8 for value in kept)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "ScheduleFree" in kind])
def test_what_is_saved_is_the_average_and_training_goes_on_from_the_other(kind: str):
    plain, looked = (training(**settings_of(kind, ema_decay=0.0)) for _ in range(2))
    steps(plain)
    for _ in range(3):
        steps(looked, 3)
        moved = numbers(looked)
        with looked.as_saved():
            assert not torch.equal(numbers(looked), moved)
        assert torch.equal(numbers(looked), moved)
    assert torch.equal(numbers(looked), numbers(plain))


def test_what_does_not_go_together():
    prodigy = settings_of("Prodigy")
    with pytest.raises(TrainError, match="prodigy finds one learning rate for all"):
        training(**prodigy, loraplus_lr_ratio=4.0)
    free = settings_of("schedulefree.AdamWScheduleFree")
    with pytest.raises(TrainError, match="keeps averages that it does not scale"):
        training(**free, scale_weight_norms=1.0)
