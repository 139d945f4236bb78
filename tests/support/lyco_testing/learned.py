"""A network on a model that ComfyUI has loaded, as if it had learned something."""

from types import SimpleNamespace

import torch

__all__ = ["learned"]


def learned(train: SimpleNamespace, flow, algorithm: str, *, part: float = 1 / 16, **options: object):
    """A network for all of a `FlowModel`, whose factors are all different from zero.

    Args:
        train: the pack's modules of training.
        part: how large what is added to the factors' first values is.
    """
    asked = train.options.train_options({"network_module": algorithm, "network_dim": 4, **options}).network
    choice = train.targets.choose_targets(train.loading.model_weights(SimpleNamespace(model=flow.model)), asked)
    network = train.network.Network.initial(choice, asked)
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            generator = torch.Generator().manual_seed(number)
            parameter.add_(torch.randn(parameter.shape, generator=generator) * part)
    return network.eval()
