"""LyCORIS's own modules, from PyPI, compute and learn the same from the same factors."""

import pytest
import torch
from torch import nn

from lyco_core.train.network_options import NetworkOptions
from lyco_core.train.trainable import TRAINABLES

modules = pytest.importorskip("lycoris.modules", reason="lycoris-lora is not installed: pip install lycoris-lora")

FORMS = {
    "loha": ("LohaModule", "hada_", NetworkOptions("loha", 4, 2.0)),
    "lokr": ("LokrModule", "lokr_", NetworkOptions("lokr", 2, 1.0)),
    "lokr of factor 4": ("LokrModule", "lokr_", NetworkOptions("lokr", 2, 1.0, factor=4)),
    "lokr, full": ("LokrModule", "lokr_", NetworkOptions("lokr", 64, 1.0)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(48, 64), (90, 60)], ids=str)
def test_outputs_and_gradients(form: str, shape: tuple[int, int]):
    name, prefix, options = FORMS[form]
    torch.manual_seed(0)
    linear = nn.Linear(shape[1], shape[0]).requires_grad_(False)
    own = TRAINABLES[options.algorithm].initial(shape, options, torch.Generator().manual_seed(1))
    more = {"factor": options.factor} if options.algorithm == "lokr" else {}
    theirs = getattr(modules, name)("a", linear, 1.0, options.network_dim, options.network_alpha, **more)
    pairs = [(p, theirs.get_parameter(prefix + n)) for n, p in own.named_parameters()]
    assert len(pairs) == len(list(theirs.parameters()))
    with torch.no_grad():
        for one, other in pairs:
            assert one.shape == other.shape
            one.normal_(std=0.5)
            other.copy_(one)
    x = torch.randn(2, 5, shape[1], requires_grad=True)
    found, expected = linear(x) + own(x), theirs(x)
    weights = torch.randn(found.shape)
    gradients = torch.autograd.grad(found, [x, *(p for p, _ in pairs)], weights)
    wanted = torch.autograd.grad(expected, [x, *(p for _, p in pairs)], weights)
    for one, other in zip([found, *gradients], [expected, *wanted], strict=True):
        assert float((one - other).detach().norm() / other.detach().norm()) < 1e-5
