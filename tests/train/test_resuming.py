"""A training that goes on from its state is the uninterrupted one; any other state is refused."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from lyco_testing.toy_training import EVERYTHING, FIVE, ITEMS, numbers, steps, training

from lyco_core.errors import TrainError
from lyco_core.train.items import Item
from lyco_core.train.option import Option
from lyco_core.train.options import every_option
from lyco_core.train.state import load_state, save_state


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_resumed_it_is_the_uninterrupted_one(optimizer: str, tmp_path: Path):
    pytest.importorskip("transformers", reason="transformers is not installed") if optimizer == "adafactor" else None
    settings = EVERYTHING | {"max_train_steps": 9, "optimizer_type": optimizer}
    through = training(**settings)
    expected = steps(through)
    first = training(**settings)
    steps(first, 4)
    save_state(tmp_path / "a-state.pt", first)
    resumed = training(**settings)
    load_state(tmp_path / "a-state.pt", resumed)
    assert steps(resumed) == expected[4:]
    assert torch.equal(numbers(resumed), numbers(through))
    with through.as_saved(), resumed.as_saved():
        assert torch.equal(numbers(resumed), numbers(through))


def test_resumed_within_an_epoch_of_uneven_steps(tmp_path: Path):
    settings = {"gradient_accumulation_steps": 2, "max_train_epochs": 3, "network_args": ["rank_dropout=0.2"]}
    through = training(FIVE, **settings)
    expected = steps(through)
    for count in (1, 2, 3, 5):
        first, resumed = training(FIVE, **settings), training(FIVE, **settings)
        steps(first, count)
        save_state(tmp_path / "a-state.pt", first)
        load_state(tmp_path / "a-state.pt", resumed)
        assert steps(resumed) == expected[count:]
        assert torch.equal(numbers(resumed), numbers(through))


@pytest.mark.parametrize(("items", "accumulated", "fits"), [(ITEMS, 2, True), (FIVE, 1, True), (FIVE, 2, False)])
def test_a_state_of_steps_that_crossed_epochs(items: list[Item], accumulated: int, fits: bool, tmp_path: Path):
    """Of version 2: it goes on where its steps were the same ones."""
    made, path = training(items, gradient_accumulation_steps=accumulated), tmp_path / "a-state.pt"
    steps(made, 2)
    save_state(path, made)
    torch.save(torch.load(path, weights_only=True) | {"version": 2}, path)
    other = training(items, gradient_accumulation_steps=accumulated)
    if fits:
        load_state(path, other)
        assert other.step == 2
    else:
        with pytest.raises(TrainError, match="steps of 2 batches went on across the end of an epoch of 5"):
            load_state(path, other)
        assert other.step == 0


NOISE = [option for part, option in every_option() if part == "noise"]


def as_version_3(path: Path) -> None:
    """The options of noise lay together before."""
    state = torch.load(path, weights_only=True)
    state["order"]["noise"] = {option.name: state["order"].pop(option.name) for option in NOISE}
    torch.save(state | {"version": 3}, path)


def test_a_state_whose_options_of_noise_lay_together(tmp_path: Path):
    settings = EVERYTHING | {"max_train_steps": 6, "discrete_flow_shift": 3.0, "timestep_sampling": "shift"}
    through, first, path = training(**settings), training(**settings), tmp_path / "a-state.pt"
    expected = steps(through)
    steps(first, 3)
    save_state(path, first)
    as_version_3(path)
    resumed = training(**settings)
    load_state(path, resumed)
    assert steps(resumed) == expected[3:]
    assert torch.equal(numbers(resumed), numbers(through))
    with pytest.raises(TrainError, match=r"a-state.pt: discrete_flow_shift changed since it was saved"):
        load_state(path, training(**settings | {"discrete_flow_shift": 2.0}))


def test_a_state_of_before_an_option_goes_on_with_its_default(tmp_path: Path):
    made, path = training(sigmoid_scale=2.0), tmp_path / "a-state.pt"
    steps(made, 2)
    save_state(path, made)
    state = torch.load(path, weights_only=True)
    assert state["order"].pop("sigmoid_scale") == 2.0
    torch.save(state, path)
    load_state(path, training())
    with pytest.raises(TrainError, match="sigmoid_scale changed"):
        load_state(path, training(sigmoid_scale=2.0))


DRAWING = [option for _, option in every_option() if option.draws]
OTHER = {
    "timestep_sampling": "logsnr",
    "weighting_scheme": "cosmap",
    "preserve_distribution_shape": True,
    "max_timestep": 900.0,
    "lr_scheduler_type": "LinearLR",
    "lr_scheduler_args": ["total_iters=3"],
    "network_reg_lrs": [".*=5e-5"],
}
"""What an option is set to; the others to one more than their default."""

WITH = {"lr_scheduler_args": {"lr_scheduler_type": "LinearLR"}}
"""Without which an option means nothing."""


def test_what_draws():
    """Not what is only trained with: the rate, say, may change."""
    names = {option.name for option in DRAWING}
    assert names >= {"seed", "gradient_accumulation_steps", *(option.name for option in NOISE)}
    assert "learning_rate" not in names


@pytest.mark.parametrize("option", DRAWING, ids=lambda option: option.name)
def test_every_option_that_draws_holds_a_state_to_it(option: Option, tmp_path: Path):
    settings = WITH.get(option.name, {})
    made, path = training(**settings), tmp_path / "a-state.pt"
    save_state(path, made)
    value = OTHER[option.name] if option.name in OTHER else option.default + 1
    with pytest.raises(TrainError, match=f"a-state.pt: {option.name} changed since it was saved"):
        load_state(path, training(**settings, **{option.name: value}))


class Trap:
    """Unpickled it would write a file."""

    def __reduce__(self):
        return os.system, ("touch trapped",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network_dim": 2}, "the state is of another network"),
        ({"network_module": "loha"}, "the state is of another network"),
        ({"optimizer_type": "adafactor"}, "has the state of adamw, optimizer_type is adafactor"),
        ({"ema_decay": 0.0}, "ema_decay was set when it was saved"),
        ({"seed": 8, "batch_size": 1}, "batch_size, seed changed since it was saved"),
        ({"discrete_flow_shift": 2.0}, "discrete_flow_shift changed since it was saved"),
        ({"network_alpha": 2.0}, "network_alpha changed since it was saved"),
    ],
)
def test_another_training_s_state_is_refused(change: dict, message: str, tmp_path: Path):
    if "optimizer_type" in change:
        pytest.importorskip("transformers", reason="transformers is not installed")
    saved = training(**EVERYTHING)
    steps(saved, 2)
    save_state(tmp_path / "a-state.pt", saved)
    other = training(**EVERYTHING | change)
    before = numbers(other).clone()
    with pytest.raises(TrainError, match=f"a-state.pt: .*{message}"):
        load_state(tmp_path / "a-state.pt", other)
    assert torch.equal(numbers(other), before)
    assert other.step == 0


def test_files_that_are_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    made = training()
    (tmp_path / "text-state.pt").write_text("nothing")
    (tmp_path / "trap-state.pt").write_bytes(pickle.dumps(Trap()))
    torch.save({"trap": Trap()}, tmp_path / "torch-state.pt")
    torch.save([1], tmp_path / "list-state.pt")
    save_state(tmp_path / "cut-state.pt", made)
    whole = (tmp_path / "cut-state.pt").read_bytes()
    (tmp_path / "cut-state.pt").write_bytes(whole[: len(whole) // 2])
    for name in ("text", "trap", "torch", "list", "cut"):
        with pytest.raises(TrainError, match=f"{name}-state.pt: is no state of a training"):
            load_state(tmp_path / f"{name}-state.pt", made)
    assert not (tmp_path / "trapped").exists()
    with pytest.raises(TrainError, match=r"none.pt: there is no such file to resume from"):
        load_state(tmp_path / "none.pt", made)
