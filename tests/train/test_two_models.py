"""Two models under one network: on which side a batch lies, and which of the two is asked."""

from collections.abc import Sequence

import pytest
import torch
from lyco_testing.toy import ToyModel, described
from lyco_testing.toy_training import FIVE, ITEMS, numbers, training

from lyco_core.errors import TrainError
from lyco_core.train.draws import draw, generator_of
from lyco_core.train.loop import Training
from lyco_core.train.network_options import NetworkOptions
from lyco_core.train.noise import NoiseOptions
from lyco_core.train.options import train_options
from lyco_core.train.two_models import at_high_noise, one_side, require_pair, resolve_boundary

SHAPE = torch.Size((4, 8, 8))
SHIFTED = {"timestep_sampling": "shift", "discrete_flow_shift": 3.0}


def wan(width: int = 1536, blocks: int = 2, reads: int = 16, **more: tuple[int, int]):
    """A Wan as its shapes tell it."""
    parts = [f"{a}.{x}" for a in ("self_attn", "cross_attn") for x in "qkvo"]
    linears = {f"blocks.{n}.{part}": (width, width) for n in range(blocks) for part in parts}
    linears |= {"head.head": (64, width), "text_embedding.0": (width, 4096), "time_embedding.0": (width, 256)}
    shapes = {f"diffusion_model.{name}.weight": shape for name, shape in (linears | more).items()}
    shapes["diffusion_model.patch_embedding.weight"] = (width, reads, 1, 2, 2)
    return described(shapes)


def test_all_of_a_batch_lies_on_the_side_of_its_first_item():
    """As often as that one lies there, and over each side as a single model's would."""
    one, both = (train_options({**SHIFTED, "timestep_boundary": boundary}) for boundary in (0, 875))
    found = [draw(both, number, 4, SHAPE) for number in range(2000)]
    first = torch.stack([drawn.t[0] for drawn in found])
    alone = torch.stack([draw(one, number, 4, SHAPE).t for number in range(2000)])
    assert torch.equal(first, alone[:, 0])
    sides = [set((drawn.t >= 0.875).tolist()) for drawn in found]
    assert all(len(side) == 1 for side in sides)
    assert {True} in sides
    high, expected = torch.cat([d.t for d in found if d.t[0] >= 0.875]), alone[alone >= 0.875]
    quantiles = torch.linspace(0, 1, 11)[1:-1]
    assert torch.allclose(high.quantile(quantiles), expected.quantile(quantiles), atol=5e-3)


def test_a_batch_of_one_is_drawn_as_for_one_model():
    one, both = (train_options({**SHIFTED, "timestep_boundary": boundary}) for boundary in (0, 875))
    for number in range(50):
        mine, theirs = draw(both, number, 1, SHAPE), draw(one, number, 1, SHAPE)
        assert torch.equal(mine.t, theirs.t)
        assert torch.equal(mine.noise, theirs.noise)


def test_what_hardly_ever_lies_on_a_side_is_found_or_told():
    generator = generator_of(1)
    rare = iter([torch.tensor([0.99999, 0.5, 0.2])])
    found = one_side(lambda many: next(rare, torch.rand(many, generator=generator)), 3, 999.9)
    assert float(found[0]) == pytest.approx(0.99999)
    assert bool((found >= 0.9999).all())
    never = iter([torch.tensor([0.95, 0.1])])
    with pytest.raises(TrainError, match=r"1 lie above timestep_boundary, 900, and a batch needs 2; set batch_size"):
        one_side(lambda _: next(never, torch.zeros(1)), 2, 900)


class TwoToys(ToyModel):
    """Two models, of which `turn` says which is asked, by the timestep."""

    def __init__(self, boundary: float) -> None:
        super().__init__()
        self.models = [self, ToyModel()]
        with torch.no_grad():
            for parameter in self.models[1].model.parameters():
                parameter.mul_(-1)
        self.boundary, self.asked = boundary, list[tuple[int, float]]()
        self.now = -1

    def turn(self, t: torch.Tensor) -> None:
        self.now = int(at_high_noise(t[0], self.boundary))

    def velocity(self, x: torch.Tensor, t: torch.Tensor, conditions: Sequence[float]) -> torch.Tensor:
        self.asked += [(self.now, float(one)) for one in t]
        return ToyModel.velocity(self.models[self.now], x, t, conditions)


def test_each_timestep_is_asked_of_its_own_model():
    """In training and validation, whatever the size of a batch and the conditions that go one by one."""
    made = training(
        FIVE, batch_size=3, max_train_steps=12, timestep_boundary=600, validate_every_n_steps=6, validation=ITEMS
    )
    model = TwoToys(600)
    again = Training(model, made.network, FIVE, made.options, empty=-50.0, validation=ITEMS, turn=model.turn)
    before = numbers(again).clone()
    with made.network.attached(*(one.model for one in model.models)):
        steps = list(again.steps())
    assert {now for now, _ in model.asked} == {0, 1}
    assert all(now == (t >= 0.6) for now, t in model.asked)
    assert {t for _, t in model.asked[-4 * len(ITEMS) :]} == {0.125, 0.375, 0.625, 0.875}
    assert not torch.equal(numbers(again), before)
    assert [step.validation is None for step in steps] == [number % 6 != 0 for number in range(1, 13)]
    assert not any(module._forward_hooks for one in model.models for module in one.model.modules())


def test_the_high_side_is_validated_wherever_it_begins():
    made = training(validation=ITEMS, timestep_boundary=900)
    model = TwoToys(900)
    again = Training(model, made.network, ITEMS, made.options, validation=ITEMS, turn=model.turn)
    with made.network.attached(*(one.model for one in model.models)):
        again.validate()
    assert sorted({(now, round(t, 4)) for now, t in model.asked}) == [
        (0, 0.125), (0, 0.375), (0, 0.625), (0, 0.875), (1, 0.95)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "reads", "boundary"), [(0, 16, 875), (0, 36, 900), (875, 36, 875), (0.5, 16, 500), (1, 16, None)]
)
def test_boundaries(asked: float, reads: int, boundary: float | None):
    options = NoiseOptions(timestep_boundary=asked)
    if boundary is None:
        with pytest.raises(TrainError, match="the model for high noise would never be trained"):
            resolve_boundary(options, wan(reads=reads), two=True)
    else:
        assert resolve_boundary(options, wan(reads=reads), two=True).timestep_boundary == boundary


def test_one_model_has_no_boundary(caplog: pytest.LogCaptureFixture):
    assert resolve_boundary(NoiseOptions(timestep_boundary=500), wan(), two=False).timestep_boundary == 0
    assert "timestep_boundary has no use without a second model" in caplog.text
    with pytest.raises(TrainError, match=r"from 880 to 1000 are all on one side .* for low noise would never"):
        resolve_boundary(NoiseOptions(min_timestep=880), wan(), two=True)


def test_what_is_no_pair():
    options = NetworkOptions()
    require_pair(wan(), wan(), options)
    with pytest.raises(
        TrainError, match=r"differ between the two .*cross_attn.k: low noise \[1536, 1536\], high noise \["
    ):
        require_pair(wan(), wan(width=5120), options)
    with pytest.raises(TrainError, match=r"blocks.2.*low noise none, high noise \[1536, 1536\]\); take the two of one"):
        require_pair(wan(), wan(blocks=3), options)
    with pytest.raises(TrainError, match=r"read no image and concat_latent_image beside the noise \(low, high noise\)"):
        require_pair(wan(), wan(reads=36), options)
    with pytest.raises(TrainError, match="read 36 and 52 channels"):  # image to video, and Fun-Control
        require_pair(wan(reads=36), wan(reads=52), options)
