"""A model of a flow as the training loop sees one: Z-Image's blocks in its names, as wide as asked, free of ComfyUI."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lyco_testing import toy
from torch import Tensor

from lyco_core.architectures import ARCHITECTURES
from lyco_core.model import Model
from lyco_core.train.items import Item
from lyco_core.train.loop import Training
from lyco_core.train.network import Network
from lyco_core.train.options import train_options
from lyco_core.train.targets import TargetChoice, choose_targets


def shapes_of(width: int, blocks: int) -> dict[str, tuple[int, int]]:
    """Key -> shape of its weights; the width is rounded to a multiple of the toy's."""
    times = width // toy.WIDTH
    return {key: (out * times, into * times) for key, (out, into) in toy.z_image(blocks).items()}


class Flow:
    """It computes in `dtype`; a condition is a number that is added to every token."""

    def __init__(self, device: torch.device, dtype: torch.dtype, width: int, blocks: int = 2) -> None:
        self.device, self.dtype = device, dtype
        self.shapes, self.blocks = shapes_of(width, blocks), blocks
        self.width = width // toy.WIDTH * toy.WIDTH
        self.model = toy.model_of(self.shapes).to(device, dtype)

    def groups(self, conditions: Sequence[float]) -> list[list[int]]:
        """All at once."""
        return [list(range(len(conditions)))]

    def velocity(self, x: Tensor, t: Tensor, conditions: Sequence[float]) -> Tensor:
        """What is predicted for x (n, width, tokens)."""
        added = torch.tensor(conditions).view(-1, 1, 1).to(self.device) / 100 + t.view(-1, 1, 1)
        return self.tokens((x.transpose(1, 2) + added).to(self.dtype)).transpose(1, 2).float()

    def tokens(self, x: Tensor) -> Tensor:
        """All blocks on (n, tokens, width)."""
        for number in range(self.blocks):
            layer = self.model.get_submodule(f"diffusion_model.layers.{number}")
            q, k, v = layer.attention.qkv(x).chunk(3, dim=-1)
            x = x + layer.attention.out(torch.tanh(q) * k + v)
            x = x + layer.feed_forward.w2(torch.tanh(layer.feed_forward.w1(x)) * layer.feed_forward.w3(x))
        return x

    def choice(self, **settings: object) -> TargetChoice:
        """What of it is trained; no Z-Image is as wide as this may be."""
        model = Model(self.shapes, "diffusion_model.", ARCHITECTURES["z_image"], "comfyui")
        return choose_targets(model, train_options(settings).network)

    def network(self, **settings: object) -> Network:
        """A new one for it, there."""
        return Network.initial(self.choice(**settings), train_options(settings).network).to(self.device)

    def training(self, tokens: int, **settings: object) -> Training:
        """A training on three items."""
        options = train_options({"timestep_sampling": "uniform", "learning_rate": 1e-2, **settings})
        draws = torch.Generator().manual_seed(1)
        items = [Item(torch.randn(self.width, tokens, generator=draws), float(n), f"item {n}") for n in range(3)]
        return Training(self, self.network(**settings), items, options)
