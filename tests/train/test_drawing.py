"""What dropout draws does not depend on a device's own generator, which a checkpoint does not always bring back."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lyco_core.train.network_options import NetworkOptions
from lyco_core.train.trainable import TRAINABLES
from lyco_core.train.trainable.base import dropout

DRAWS = ("rand", "bernoulli", "dropout", "uniform", "normal", "randint", "randn")


class Draws(TorchDispatchMode):
    """Notes on which device every random number is drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if any(name in func.__name__ for name in DRAWS) and isinstance(made, torch.Tensor):
            self.found.append(made.device.type)
        return made


@pytest.mark.parametrize("algorithm", TRAINABLES)
def test_the_mask_of_another_device_is_drawn_on_the_cpu(algorithm: str):
    options = NetworkOptions(algorithm, 4, 2.0, rank_dropout=0.5)
    made = TRAINABLES[algorithm].initial((48, 64), options, torch.Generator().manual_seed(4))
    made.to("meta")
    with Draws() as draws:
        made(torch.empty(2, 5, 64, device="meta"))
    assert set(draws.found) == {"cpu"}


def test_a_large_mask_is_drawn_by_the_device_from_the_cpu_s_seed(monkeypatch: pytest.MonkeyPatch):
    """A device that no checkpoint brings back: its own generator goes on, and is not asked."""
    asked: list[int] = []

    class Own:
        def __init__(self, device: torch.device) -> None:
            assert device.type == "meta"

        def manual_seed(self, seed: int) -> None:
            asked.append(seed)

    monkeypatch.setattr(torch, "Generator", Own)
    x = torch.empty(2, 5, 8, device="meta")
    for _ in range(2):
        torch.manual_seed(7)
        assert dropout(x, 0.3).shape == x.shape
    assert len(asked) == 2
    assert asked[0] == asked[1] != 7


def test_on_the_cpu_it_is_torch_s():
    x = torch.randn(3, 4, 8)
    torch.manual_seed(7)
    found = dropout(x, 0.3)
    torch.manual_seed(7)
    assert torch.equal(found, torch.nn.functional.dropout(x, 0.3))
