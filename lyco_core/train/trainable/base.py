"""What every trainable adapter does. The definitions are Musubi Tuner's (networks/lora.py, loha.py, lokr.py)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from ...adapters import LOW_RANK, Adapter
from ...errors import TrainError
from ..frozen import Frozen
from ..network_options import NetworkOptions

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Context", "Trainable", "dropout", "kept", "uniform"]


class Context(FunctionCtx):
    """What torch gives to an autograd function, for the type checker."""

    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]
    scale: float
    kept: tuple[int, ...]
    by_ranks: bool


class Trainable(nn.Module, ABC):
    """An adapter whose factors are float32 parameters, named as the adapter's fields.

    `alpha` is a buffer, so that a state that is loaded brings its own.
    """

    adapter_class: ClassVar[type[Adapter]]
    faster: ClassVar[str]
    """The factor that LoRA+ has learn faster."""

    alpha: Tensor

    def __init__(self, adapter: Adapter, options: NetworkOptions) -> None:
        super().__init__()
        self.options = options
        self.shape: tuple[int, int] = adapter.flat_shape
        with torch.inference_mode(False):  # a node runs in it, and what is made there cannot be trained
            for name, tensor in adapter.tensors.items():
                self.register_parameter(name, nn.Parameter(tensor.detach().to(torch.float32, copy=True)))
            self.register_buffer("alpha", torch.tensor(adapter.alpha))
        self.scale = adapter.scale
        self.register_load_state_dict_post_hook(Trainable._rescale)

    def _rescale(self, _: object) -> None:
        self.scale = self.adapter().scale

    @classmethod
    @abstractmethod
    def initial(cls, shape: tuple[int, int], options: NetworkOptions, generator: torch.Generator) -> Self:
        """A trainable for a weight of (out, in), with ΔW = 0; drawn from `generator` in Musubi's order."""

    @classmethod
    def continued(cls, adapter: Adapter, options: NetworkOptions) -> Self:
        """A trainable that goes on from `adapter`; its rank and alpha stay the adapter's.

        Raises `TrainError` if it is of another algorithm or no linear module's.
        """
        if not isinstance(adapter, cls.adapter_class):
            trained = adapter.algorithm in LOW_RANK
            hint = (
                f"set network_module to networks.{adapter.algorithm}" if trained else "that cannot be trained on here"
            )
            raise TrainError(
                f"its algorithm is {adapter.title}, and {cls.adapter_class.title} is to be trained; {hint}"
            )
        if len(adapter.shape) != 2 or any(tensor.dim() != 2 for tensor in adapter.tensors.values()):
            raise TrainError(f"changes a convolution of {list(adapter.shape)}; only linear modules are trained")
        return cls(cls.normalised(adapter), options)

    @classmethod
    @abstractmethod
    def normalised(cls, adapter: Any) -> Adapter:  # noqa: ANN401 - of `adapter_class`
        """An adapter of the same ΔW in the form in which Musubi keeps it, with an alpha."""

    def adapter(self) -> Adapter:
        """The adapter as trained so far, detached and copied."""
        tensors: dict[str, Tensor] = {name: p.detach().clone() for name, p in self.named_parameters()}
        return self.adapter_class(**tensors, alpha=float(self.alpha))

    @property
    def summary(self) -> str:
        """The algorithm, rank and alpha, in words."""
        adapter = self.adapter()
        rank = "W2 a full matrix" if adapter.rank is None else f"dim {adapter.rank}, alpha {float(self.alpha):g}"
        return f"{adapter.title}, {rank}"

    def forward(self, x: Tensor) -> Tensor | None:
        """`x @ ΔW.T`, (…, in) -> (…, out) in x's dtype; None where this step leaves the module out.

        What is drawn depends on torch's generator of the CPU alone, so that a checkpointed block
        draws the same again.
        """
        return None if self.left_out() else self.contribution(x)

    def left_out(self) -> bool:
        """Module dropout: whether this step goes without the module, drawn anew."""
        p = self.options.module_dropout
        return bool(self.training and p and float(torch.rand(1)) < p)

    def summed(self, x: Tensor, frozen: Frozen) -> Tensor | None:
        """The module's output for x with the contribution in it, from one product with W + ΔW.

        None where that is not the cheapest way.
        """
        return None

    @abstractmethod
    def contribution(self, x: Tensor) -> Tensor:
        """`forward` without module dropout."""

    @abstractmethod
    def norm(self) -> Tensor:
        """ΔW's Frobenius norm, which only `limit_norms` asks for."""

    def kept_rows(self, device: torch.device) -> Tensor | None:
        """LoHa's and LoKr's rank dropout: (out,), 0 for a row of ΔW that is left out, else 1 / (1 - p)."""
        p = self.options.rank_dropout
        if not (self.training and p):
            return None
        return kept((self.shape[0],), p, device)


def kept(shape: tuple[int, ...], p: float, device: torch.device) -> Tensor:
    """A dropout mask: 0 with probability `p`, else 1 / (1 - p).

    Drawn on the CPU: a checkpoint brings back its generator for every device, but the device's own
    for some only (not for MPS), and a block that is run again would then draw another mask.
    """
    return ((torch.rand(shape, device="cpu") > p) / (1 - p)).to(device)


def dropout(x: Tensor, p: float) -> Tensor:
    """Dropout of single numbers, whose mask the device draws from a seed that the CPU draws: see `kept`."""
    own = None if x.device.type == "cpu" else torch.Generator(x.device).manual_seed(int(torch.randint(2**62, ())))
    return x * torch.empty_like(x, requires_grad=False).bernoulli_(1 - p, generator=own).div_(1 - p)


def uniform(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """(rows, columns) of U(±1/√columns): what `kaiming_uniform_` with a = √5, and a new `nn.Linear`, draw."""
    bound = columns**-0.5
    return torch.empty(rows, columns).uniform_(-bound, bound, generator=generator)
