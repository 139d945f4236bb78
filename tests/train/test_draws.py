"""What is drawn for a batch, by its definition: in this order, from a generator of its own."""

from collections.abc import Sequence

import numpy
import pytest
import torch
from lyco_testing.toy import ToyModel
from lyco_testing.toy_training import ITEMS, training

from lyco_core.train.draws import draw
from lyco_core.train.loop import Training
from lyco_core.train.options import train_options


class Recording(ToyModel):
    """Keeps what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[torch.Tensor, torch.Tensor, list[float]]] = []

    def velocity(self, x: torch.Tensor, t: torch.Tensor, conditions: Sequence[float]) -> torch.Tensor:
        self.asked.append((x, t, list(conditions)))
        return super().velocity(x, t, conditions)


@pytest.mark.parametrize("seed", [0, 42, 2**40])
@pytest.mark.parametrize("settings", [{}, {"min_timestep": 100, "max_timestep": 300}], ids=["all", "some"])
def test_a_batch_is_what_its_number_and_the_seed_say(seed: int, settings: dict):
    """Moments, noise, then which captions are dropped."""
    made = training(seed=seed, batch_size=4, caption_dropout_rate=0.5, max_train_steps=3, **settings)
    low, high = settings.get("min_timestep", 0) / 1000, settings.get("max_timestep", 1000) / 1000
    model = Recording()
    again = Training(model, made.network, ITEMS, made.options, empty=-50.0)
    with made.network.attached(model.model):
        list(again.steps())
    assert len(model.asked) == 3
    for number, (x, t, conditions) in enumerate(model.asked):
        indices = again.batches[number]
        state = numpy.random.SeedSequence([seed, number]).generate_state(1, numpy.uint64)
        generator = torch.Generator().manual_seed(int(state[0]) >> 1)
        moments = torch.rand(4, generator=generator) * (high - low) + low
        latents = torch.stack([ITEMS[index].latent for index in indices])
        noise = torch.randn(latents.shape, generator=generator)
        dropped = torch.rand(4, generator=generator) < 0.5
        at = moments.view(-1, 1, 1, 1)
        assert torch.equal(t, moments)
        assert torch.equal(x, (1 - at) * latents + at * noise)
        assert conditions == [-50.0 if drop else ITEMS[i].condition for drop, i in zip(dropped, indices, strict=True)]


def test_noise_is_clipped_at_its_own_standard_deviations():
    plain, clipped = (
        draw(train_options({"noise_clip_std": bound, "timestep_sampling": "uniform"}), 3, 4, torch.Size((3, 32, 32)))
        for bound in (0, 2.5)
    )
    bound = 2.5 * float(plain.noise.std())
    assert torch.equal(clipped.noise, plain.noise.clamp(-bound, bound))
    assert float(plain.noise.abs().max()) > bound
    assert torch.equal(clipped.t, plain.t)


def test_dealt_timesteps_take_turns():
    """Any ten items in a row from a multiple of ten lie in a tenth each, however they are batched."""
    options = train_options({"timestep_sampling": "uniform", "num_timestep_buckets": 10})
    shape, found, first = torch.Size((1, 4, 4)), [], 0
    for number, count in enumerate([3, 4, 4, 1, 8]):
        found.append(draw(options, number, count, shape, first).t)
        first += count
    rounds = (torch.cat(found) * 10).int().view(2, 10)
    assert rounds.sort().values.tolist() == [list(range(10))] * 2
    assert rounds[0].tolist() != rounds[1].tolist() != list(range(10))
    assert torch.equal(draw(options, 4, 8, shape, 12).t, found[4])
    kept = train_options(
        {"timestep_sampling": "uniform", "num_timestep_buckets": 10, "min_timestep": 500}
        | {"preserve_distribution_shape": True}
    )
    assert float(draw(kept, 0, 64, shape).t.min()) >= 0.5


def test_noise_is_clipped_where_that_is_asked_for_alone():
    """Also the noise of a latent of one number, which has no deviation."""
    shape = torch.Size([4, 8, 8])
    plain = draw(train_options({}), 3, 2, shape).noise
    bound = 1.5 * float(plain.std())
    assert torch.equal(draw(train_options({"noise_clip_std": 1.5}), 3, 2, shape).noise, plain.clamp(-bound, bound))
    assert draw(train_options({}), 3, 1, torch.Size([1, 1, 1])).noise.isfinite().all()
