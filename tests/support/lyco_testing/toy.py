"""Small models of named Linears, in ComfyUI's names: enough for what hangs adapters onto modules."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from lyco_core.model import Model
from lyco_core.train.network import Network
from lyco_core.train.network_options import NetworkOptions
from lyco_core.train.targets import choose_targets

WIDTH = 24

Z_IMAGE = {
    "attention.qkv": (3 * WIDTH, WIDTH),
    "attention.out": (WIDTH, WIDTH),
    "feed_forward.w1": (64, WIDTH),
    "feed_forward.w2": (WIDTH, 64),
    "feed_forward.w3": (64, WIDTH),
    "adaLN_modulation.0": (4 * WIDTH, WIDTH),
}
"""The Linears of one of Z-Image's blocks -> (out, in)."""


def z_image(blocks: int = 2) -> dict[str, tuple[int, int]]:
    """Key -> shape of a Z-Image of few and narrow blocks, without what is around them."""
    names = [*(f"layers.{n}" for n in range(blocks)), "noise_refiner.0"]
    return {f"diffusion_model.{name}.{part}.weight": shape for name in names for part, shape in Z_IMAGE.items()}


def flux1() -> dict[str, tuple[int, int]]:
    """The same of a FLUX.1 of one double and one single block; its text's inputs tell it from its neighbours."""
    double = {"mod.lin": (6, 1), "attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.0": (4, 1), "mlp.2": (1, 4)}
    single = {"linear1": (7, 1), "linear2": (1, 5), "modulation.lin": (3, 1)}
    parts = {f"double_blocks.0.{s}_{name}": shape for s in ("img", "txt") for name, shape in double.items()}
    parts |= {f"single_blocks.0.{name}": shape for name, shape in single.items()}
    shapes = {name: (a * WIDTH, b * WIDTH) for name, (a, b) in parts.items()}
    shapes |= {"txt_in": (WIDTH, 4096), "vector_in.in_layer": (WIDTH, 768)}
    return {f"diffusion_model.{name}.weight": shape for name, shape in shapes.items()}


def described(shapes: Mapping[str, tuple[int, int]]) -> Model:
    return Model.of(shapes)


def model_of(shapes: Mapping[str, tuple[int, int]]) -> nn.Module:
    """A tree of modules that has these weights, frozen, and a bias beside each."""
    torch.manual_seed(0)
    root = nn.Module()
    for key, (out, into) in shapes.items():
        *above, last = key.removesuffix(".weight").split(".")
        module = root
        for name in above:
            if name not in module._modules:
                module.add_module(name, nn.Module())
            module = module.get_submodule(name)
        module.add_module(last, nn.Linear(into, out))
    return root.requires_grad_(False)


def learned(options: NetworkOptions, shapes: Mapping[str, tuple[int, int]] | None = None) -> Network:
    """A network that has learned something: all of its factors differ from zero."""
    made = Network.initial(choose_targets(described(shapes or z_image()), options), options)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) / 8)
    return made


class ToyModel:
    """A model of a flow, as the training loop sees one: tokens of a latent through one of Z-Image's blocks.

    A condition is a number that is added to every token; those above 100 go one by one.
    """

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self) -> None:
        self.model = model_of(z_image())
        self.seen: list[float] = []

    def groups(self, conditions: Sequence[float]) -> list[list[int]]:
        together = [index for index, condition in enumerate(conditions) if condition <= 100]
        return [*([together] if together else []), *([i] for i, c in enumerate(conditions) if c > 100)]

    def velocity(self, x: torch.Tensor, t: torch.Tensor, conditions: Sequence[float]) -> torch.Tensor:
        self.seen += conditions
        tokens = x.flatten(2).transpose(1, 2)  # (n, tokens, WIDTH)
        tokens = tokens + torch.tensor(conditions, dtype=x.dtype).view(-1, 1, 1) / 100 + t.view(-1, 1, 1)
        for number in range(2):
            layer = self.model.get_submodule(f"diffusion_model.layers.{number}")
            q, k, v = layer.attention.qkv(tokens).chunk(3, dim=-1)
            tokens = tokens + layer.attention.out(torch.tanh(q) * k + v)
            hidden = torch.tanh(layer.feed_forward.w1(tokens)) * layer.feed_forward.w3(tokens)
            tokens = tokens + layer.feed_forward.w2(hidden)
        return tokens.transpose(1, 2).view_as(x)
