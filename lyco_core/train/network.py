"""The trainable adapters of a model, and their place in it while it trains."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from ..adapter_set import AdapterSet
from ..adapters import Adapter
from ..errors import TrainError
from ..formats import FORMATS
from ..text import counted, shorten
from .addition import Addition
from .continuing import options_from_file
from .frozen import Frozen
from .network_options import NetworkOptions
from .targets import TargetChoice, TargetModule
from .trainable import TRAINABLES, Trainable, TrainableLoKr

__all__ = ["Network"]

logger = logging.getLogger("lyco")
_MUSUBI = FORMATS["musubi"]


class Network(nn.Module):
    """One trainable adapter for each target of a choice; all of them are float32 on one device.

    As an `nn.Module` its children go by the names in Musubi's files (`lora_unet_…`), so that its
    `state_dict` is stable; `train` and `eval` switch the dropouts.
    """

    def __init__(self, choice: TargetChoice, options: NetworkOptions, trainables: Iterable[Trainable]) -> None:
        super().__init__()
        self.choice, self.options = choice, options
        self.trainables: dict[str, Trainable] = {}
        """Module path -> its trainable adapter."""
        for target, trainable in zip(choice.targets, trainables, strict=True):
            self.trainables[target.module_path] = trainable
            self.add_module(_MUSUBI.prefix(target.module_path), trainable)

    @classmethod
    def initial(cls, choice: TargetChoice, options: NetworkOptions) -> Network:
        """A new network with ΔW = 0, drawn from the options' seed, module after module."""
        generator = torch.Generator().manual_seed(options.seed)
        make, of = TRAINABLES[options.algorithm].initial, _options_of(choice, options)
        made = (make(target.shape, of[target.module_path], generator) for target in choice.targets)
        network = cls(choice, options, made)
        network._tell_full()
        return network

    @classmethod
    def continued(cls, choice: TargetChoice, options: NetworkOptions, adapters: Mapping[str, Adapter]) -> Network:
        """A network that goes on from a file's adapters; their rank, alpha and factor count, not the options'.

        Args:
            adapters: module path in Musubi's names -> adapter. A target that has none begins anew.

        Raises:
            TrainError: an adapter has no target or another shape, or cannot go on as the algorithm.
        """
        paths = {target.module_path for target in choice.targets}
        if lost := [path for path in adapters if path not in paths]:
            raise TrainError(
                f"{len(lost)} of its {len(adapters)} modules are not trained here and would be lost "
                f"({shorten(lost)}); include them, or leave them out of the file"
            )
        options = options_from_file(options, adapters.values())
        of = _options_of(choice, options)
        kind, generator = TRAINABLES[options.algorithm], torch.Generator().manual_seed(options.seed)
        trainables: list[Trainable] = []
        for target in choice.targets:
            adapter = adapters.get(target.module_path)
            if adapter is None:
                trainables.append(kind.initial(target.shape, of[target.module_path], generator))
                continue
            try:
                trainables.append(kind.continued(adapter, options))
            except TrainError as error:
                raise TrainError(f"{target.module_path}: {error}") from None
            if adapter.shape != target.shape:
                shapes = f"is for a weight of {list(adapter.shape)}, the model's is {list(target.shape)}"
                raise TrainError(f"{target.module_path}: {shapes}")
        if new := [path for path in paths if path not in adapters]:
            logger.warning("%d of %d modules are not in the file and begin anew", len(new), len(paths))
        return cls(choice, options, trainables)

    def _tell_full(self) -> None:
        full = [path for path, t in self.trainables.items() if isinstance(t, TrainableLoKr) and t.full]
        if full:
            logger.warning(
                "network_dim %d is large for factor %d: W2 is a full matrix, its scale 1 whatever network_alpha is, in "
                "%d of %d modules (%s)",
                *(self.options.network_dim, self.options.factor, len(full), len(self.trainables), shorten(full)),
            )

    @contextmanager
    def attached(self, *models: nn.Module) -> Generator[None]:
        """Inside, the models' modules add what is trained to their output; after it, they are as they were.

        Nothing touches their weights. Contributions are computed in the input's dtype; autocast is not for this.

        Args:
            models: in each of which the targets' keys name weights; the modules that own them are called
                with the input (…, in) first and return (…, out).

        Raises:
            TrainError: a model has no such module.
        """
        owners: dict[str, list[TargetModule]] = {}
        for target in self.choice.targets:
            owners.setdefault(target.key.removesuffix(".weight"), []).append(target)
        with ExitStack() as undo:
            for model, (path, targets) in itertools.product(models, owners.items()):
                parts = [(target.rows, self.trainables[target.module_path]) for target in targets]
                addition, module = Addition(parts), _module(model, path)
                if isinstance(frozen := module.__dict__.get("forward"), Frozen):
                    module.forward = functools.partial(addition.forward, frozen)
                    undo.callback(setattr, module, "forward", frozen)
                    continue
                undo.callback(module.register_forward_pre_hook(addition.before).remove)
                undo.callback(module.register_forward_hook(addition.after).remove)
            yield

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """What an optimizer takes: all parameters of one rate in one group, those of `learning_rate` first.

        LoRA+ and patterns give some of them a rate of their own.
        """
        ratio, own = self.options.loraplus_lr_ratio, self.options.rates(self.trainables)
        groups: dict[float, list[nn.Parameter]] = {learning_rate: []}
        for path, trainable in self.trainables.items():
            rate = own.get(path, learning_rate)
            for name, parameter in trainable.named_parameters():
                faster = ratio and name == trainable.faster
                groups.setdefault(rate * ratio if faster else rate, []).append(parameter)
        return [{"params": some, "lr": rate} for rate, some in groups.items() if some]

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401
        """Load a state, as any `nn.Module` does, that has exactly the tensors of this network.

        Raises `TrainError` for any other state, before anything is changed.
        """
        own = {key: list(tensor.shape) for key, tensor in self.state_dict().items()}
        found = {key: list(tensor.shape) for key, tensor in state_dict.items()}
        if wrong := sorted(key for key in own.keys() | found.keys() if own.get(key) != found.get(key)):
            key = wrong[0]
            raise TrainError(
                f"the state is of another network: {len(wrong)} tensors differ ({key}: expected "
                f"{own.get(key, 'none')}, found {found.get(key, 'none')}); resume with the model and the options "
                "that it was saved with"
            )
        return super().load_state_dict(state_dict, strict, assign)

    def adapter_set(self, metadata: Mapping[str, str] | None = None) -> AdapterSet:
        """What is trained so far, detached and copied, as if it were read from Musubi's file."""
        return AdapterSet(
            adapters={path: trainable.adapter() for path, trainable in self.trainables.items()},
            prefixes={path: _MUSUBI.prefix(path) for path in self.trainables},
            format=_MUSUBI,
            metadata=metadata or {},
            architecture=self.choice.architecture,
            layout="musubi",
        )

    def listing(self) -> str:
        """What is trained and how, and what is not and why, a line each: what `verbose` asks for."""
        title, targets, excluded = self.choice.architecture.title, self.choice.targets, self.choice.excluded
        trained = counted(len(targets), "module is", "modules are")
        lines = [f"{title}: {trained} trained, {counted(len(excluded), 'is', 'are')} not"]
        lines += (f"{_described(target)}: {self.trainables[target.module_path].summary}" for target in targets)
        lines += (f"{_described(target)}: not trained, '{pattern}' excludes it" for target, pattern in excluded)
        return "\n".join(lines)


def _options_of(choice: TargetChoice, options: NetworkOptions) -> dict[str, NetworkOptions]:
    """Module path -> the options that it begins with: those of the network, with a rank of its own if it has one."""
    paths = [target.module_path for target in choice.targets]
    ranks = options.ranks(paths)
    of = {rank: dataclasses.replace(options, network_dim=rank) for rank in set(ranks.values())}
    return {path: of[ranks[path]] if path in ranks else options for path in paths}


def _module(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise TrainError(f"the model has no module {path}; the targets are another model's") from None


def _described(target: TargetModule) -> str:
    rows = "" if target.rows is None else f" (rows {target.rows[0]}:{target.rows[1]} of {target.key})"
    return f"{target.module_path} {list(target.shape)}{rows}"
