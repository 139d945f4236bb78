"""Outputs and gradients of trainable adapters against dense definitions of ΔW, differentiated by autograd."""

import pytest
import torch
from torch import Tensor

from lyco_core.train.trainable import TRAINABLES, Dropouts, Trainable
from lyco_core.train.trainable.lokr import factorization

SHAPES = [(48, 64), (320, 128), (60, 90)]
FORMS = [("lora", 4, {}), ("loha", 4, {}), ("lokr", 1, {}), ("lokr", 2, {"factor": 4}), ("lokr", 64, {})]
every_form = pytest.mark.parametrize(("kind", "rank", "more"), FORMS)
every_shape = pytest.mark.parametrize(("out", "into"), SHAPES)


def make(kind: str, out: int, into: int, rank: int, dropouts: Dropouts | None = None, **more: int) -> Trainable:
    generator = torch.Generator().manual_seed(3)
    made = TRAINABLES[kind](out, into, rank, 2.0, generator, dropouts or Dropouts(), **more)
    torch.manual_seed(4)
    for parameter in made.parameters():  # the one that starts at 0 too
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def dense(made: Trainable) -> Tensor:
    """ΔW by definition, scale applied."""
    p = dict(made.named_parameters())
    if "up" in p:
        return p["up"] @ p["down"] * (2.0 / p["down"].shape[0])
    if "w1_a" in p:
        return (p["w1_a"] @ p["w1_b"]) * (p["w2_a"] @ p["w2_b"]) * (2.0 / p["w1_b"].shape[0])
    if "w2" in p:
        return torch.kron(p["w1"], p["w2"])
    return torch.kron(p["w1"], p["w2_a"] @ p["w2_b"]) * (2.0 / p["w2_b"].shape[0])


def gradients(made: Trainable, x: Tensor, y: Tensor) -> list[Tensor]:
    torch.manual_seed(5)
    return list(torch.autograd.grad(y, [x, *made.parameters()], torch.randn(y.shape)))


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert float((found - expected).detach().norm()) <= 1e-5 * float(expected.detach().norm())


@every_form
@every_shape
@pytest.mark.parametrize("leading", [(5,), (2, 3)])
def test_outputs_and_gradients(kind: str, rank: int, more: dict, out: int, into: int, leading: tuple[int, ...]):
    made = make(kind, out, into, rank, **more)
    x = torch.randn(*leading, into, requires_grad=True)
    expected = x @ dense(made).t()
    found = made(x)
    assert_close(found, expected)
    for one, other in zip(gradients(made, x, found), gradients(made, x, expected), strict=True):
        assert_close(one, other)


@every_form
@every_shape
def test_the_adapter_is_what_was_trained(kind: str, rank: int, more: dict, out: int, into: int):
    made = make(kind, out, into, rank, **more)
    assert_close(made.adapter().delta_weight(), dense(made).detach())
    assert not any(tensor.requires_grad for tensor in made.adapter().tensors.values())


@every_form
def test_nothing_is_changed_at_the_start_and_the_seed_decides(kind: str, rank: int, more: dict):
    def start(seed: int) -> Trainable:
        return TRAINABLES[kind](48, 64, rank, 2.0, torch.Generator().manual_seed(seed), Dropouts(), **more)

    assert not start(1)(torch.randn(3, 64)).any()
    first, again, other = (torch.cat([p.detach().flatten() for p in start(s).parameters()]) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("kind", "rank"), [("loha", 4), ("lokr", 1), ("lokr", 64)])
def test_rank_dropout_masks_rows_of_the_change(kind: str, rank: int):
    made = make(kind, 48, 64, rank, Dropouts(rank=0.3))
    x = torch.randn(2, 5, 64, requires_grad=True)
    torch.manual_seed(7)
    found = made(x)
    torch.manual_seed(7)
    kept = (torch.rand(48) > 0.3).float()
    expected = x @ (dense(made) * kept.unsqueeze(1)).t() / 0.7
    assert_close(found, expected)
    for one, other in zip(gradients(made, x, found), gradients(made, x, expected), strict=True):
        assert_close(one, other)
    assert_close(made.eval()(x), x @ dense(made).t())


def test_rank_dropout_of_a_lora_masks_ranks_of_each_sample():
    made = make("lora", 48, 64, 4, Dropouts(rank=0.5))
    x = torch.randn(3, 5, 64)
    torch.manual_seed(7)
    found = made(x)
    torch.manual_seed(7)
    kept = (torch.rand(3, 4) > 0.5).float().unsqueeze(1)
    assert_close(found, (x @ made.down.t() * kept) @ made.up.t() * (2.0 / 4 / 0.5))


def test_module_dropout_drops_as_often_as_asked():
    made = make("lokr", 48, 64, 1, Dropouts(module=0.25))
    torch.manual_seed(0)
    x = torch.randn(1, 64)
    assert 0.2 < sum(made(x) is None for _ in range(1000)) / 1000 < 0.3
    assert made.eval()(x) is not None


@pytest.mark.parametrize(
    ("dimension", "factor", "expected"),
    [
        (64, 16, (4, 16)), (64, -1, (8, 8)), (512, -1, (16, 32)), (5120, -1, (64, 80)), (13824, -1, (108, 128)),
        (3072, 4, (4, 768)), (3072, 5, (4, 768)), (9216, 16, (16, 576)), (250, 16, (10, 25)), (360, 12, (12, 30)),
        (7, 4, (1, 7)), (16, 4, (4, 4)), (4, 8, (2, 2)), (1, -1, (1, 1)), (3072, -1, (48, 64)),
    ],
)  # fmt: skip
def test_factors_are_lycoris_and_musubis(dimension: int, factor: int, expected: tuple[int, int]):
    assert factorization(dimension, factor) == expected
