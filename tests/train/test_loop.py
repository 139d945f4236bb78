"""The loop on a small model of a flow: what is learned, what is drawn, and which steps there are."""

import random

import pytest
import torch
from lyco_testing.toy_training import EVERYTHING, FIVE, ITEMS, numbers, steps, training

from lyco_core.errors import TrainError
from lyco_core.train.distributed import World
from lyco_core.train.loop import Training
from lyco_core.train.metadata import Run


@pytest.mark.parametrize("algorithm", ["lora", "loha", "lokr"])
def test_it_learns(algorithm: str):
    made = training(
        validation=ITEMS,
        network_module=algorithm,
        network_dim=16,
        network_alpha=16,
        max_train_steps=60,
        batch_size=4,
        validate_every_n_steps=60,
    )
    before = made.validate()
    *_, last = steps(made)
    assert last.validation < 0.8 * before


def test_a_seed_gives_the_same_and_another_another():
    one, same, other = (training(seed=seed, **EVERYTHING) for seed in (1, 1, 2))
    losses = [[step.loss for step in steps(made)] for made in (one, same, other)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    assert torch.equal(numbers(one), numbers(same))


def test_the_rest_of_the_program_draws_as_if_nothing_had_been():
    made = training(network_args=["rank_dropout=0.5"])
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    before = random.getstate()
    steps(made, 2)
    Run(made, [])
    assert torch.equal(torch.rand(2), expected)
    assert random.getstate() == before


def test_processes_of_one_batch_draw_what_one_process_draws():
    """Each rank's part of the loss and the gradients adds up to those of all: what `all_reduce` then does."""

    class Apart(World):
        """One of two processes, which is told of no other."""

        parts: list[torch.Tensor]

        def add_up(self, tensors):
            self.parts = [tensor.clone() for tensor in tensors]

    settings = {"max_train_steps": 1, "max_grad_norm": 0.0}
    whole = training(batch_size=4, **settings)
    with whole.network.attached(whole.model.model):
        loss = whole._batch(0)
        expected = [p.grad.clone() for p in whole.network.parameters()]
    parts = []
    for rank in range(2):
        made, world = training(batch_size=2, **settings), Apart(rank, 2)
        steps(Training(made.model, made.network, ITEMS, made.options, empty=-50.0, world=world))
        parts.append(world.parts)
    told, *gradients = [a + b for a, b in zip(*parts, strict=True)]
    assert float(told[0]) == pytest.approx(loss, rel=1e-5)
    for one, other in zip(gradients, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-7)


def test_what_no_step_reaches_stays_as_it_is():
    """No weight decay, no momentum: the optimizer does not know of it."""
    made = training(network_args=["module_dropout=0.999999"], optimizer_args=["weight_decay=0.5"])
    before = numbers(made).clone()
    assert steps(made, 1)[0].grad_norm == 0
    assert torch.equal(numbers(made), before)


def test_gradients_are_shortened():
    made = training(max_grad_norm=1e-3, max_train_steps=1)
    (step,) = steps(made)
    assert step.grad_norm > 1e-3
    loose = training(max_grad_norm=0.0, max_train_steps=1)
    assert steps(loose)[0].grad_norm == pytest.approx(step.grad_norm)


def test_captions_are_dropped():
    made = training(caption_dropout_rate=1.0, batch_size=4, max_train_steps=3)
    steps(made)
    assert set(made.model.seen) == {-50.0}
    some = training(caption_dropout_rate=0.5, batch_size=4, max_train_steps=40)
    steps(some)
    assert some.model.seen.count(-50.0) == pytest.approx(80, abs=25)
    with pytest.raises(TrainError, match="caption_dropout_rate needs the conditioning of the empty caption"):
        training(empty=None, caption_dropout_rate=0.1)


def test_averages():
    made = training(ema_decay=0.5, max_train_steps=4)
    expected = numbers(made).clone()
    for number in range(1, 5):
        steps(made, 1)
        decay = min(0.5, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * numbers(made)
    last = numbers(made).clone()
    with made.as_saved():
        assert torch.allclose(numbers(made), expected, atol=1e-7)
    assert torch.equal(numbers(made), last)


def test_validation_does_not_depend_on_the_training():
    one, two = (training(validation=ITEMS, seed=seed, network_dim=dim) for seed, dim in ((1, 3), (2, 2)))
    assert one.validate() == two.validate()  # ΔW is 0 in both
    with pytest.raises(TrainError, match="validate_every_n_steps needs validation items"):
        training(validate_every_n_steps=3)


def test_validation_is_without_dropout():
    """What is tried is the network that a file gets, whole."""
    made = training(validation=ITEMS, network_args=["rank_dropout=0.5"], learning_rate=0.1, validate_every_n_steps=4)
    found = [step.validation for step in steps(made, 4)][-1]
    made.network.eval()
    with made.network.attached(made.model.model):
        assert {made.validate() for _ in range(3)} == {found}
        assert found != training(validation=ITEMS).validate()  # it has learned something, so that dropout would show
    made.network.train()
    with made.network.attached(made.model.model):
        assert made.validate() == found


def test_divergence_is_told_and_the_network_stays_finite():
    made = training(learning_rate=1e30, max_grad_norm=0.0, max_train_steps=20)
    with pytest.raises(TrainError, match=r"step \d+: the loss is .* training diverged: lower learning_rate"):
        steps(made)
    assert bool(torch.isfinite(numbers(made)).all())


def test_steps_end_with_their_epoch():
    """Five items, two a step: every epoch has every item once, in steps of two, two and one."""
    made = training(FIVE, gradient_accumulation_steps=2, max_train_epochs=16)
    assert (made.steps_per_epoch, made.total_steps) == (3, 48)
    seen, sizes = [], []
    for _ in range(made.total_steps):
        steps(made, 1)
        sizes.append(len(made.model.seen) - len(seen))
        seen = list(made.model.seen)
    assert sizes == [2, 2, 1] * 16
    assert made.epoch == 16
    for epoch in range(16):
        assert sorted(seen[5 * epoch : 5 * epoch + 5]) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert len({tuple(seen[5 * epoch : 5 * epoch + 5]) for epoch in range(16)}) > 10


def test_the_loss_of_an_epoch_s_last_step_is_the_mean_of_what_it_has():
    """Its gradients are divided as those of the others, as accelerate does; that is for its oracle to say."""
    settings = {"max_grad_norm": 0.0, "learning_rate": 0.0, "max_train_epochs": 1}
    alone = [step.loss for step in steps(training(FIVE, **settings))]
    pairs = [step.loss for step in steps(training(FIVE, gradient_accumulation_steps=2, **settings))]
    assert pairs == pytest.approx([(alone[0] + alone[1]) / 2, (alone[2] + alone[3]) / 2, alone[4]])
