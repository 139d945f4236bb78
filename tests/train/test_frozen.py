"""Frozen Linears and thawed weights against plain autograd."""

from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lyco_core.train.frozen import frozen_linears, thaw


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40), nn.LayerNorm(40), nn.GELU(), nn.Linear(40, 16, bias=False))


def linears(net: nn.Module) -> list[nn.Module]:
    return [module for module in net.modules() if isinstance(module, nn.Linear)]


def inputs() -> Tensor:
    return torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(1), requires_grad=True)


def gradient(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    y = net(x)
    (found,) = torch.autograd.grad(y.square().sum(), x)
    return y.detach(), found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_and_gradients_are_autograds_own(dtype: torch.dtype):
    net = model().requires_grad_(False).to(dtype)
    x = inputs().detach().to(dtype).requires_grad_()
    expected = gradient(net, x)
    with frozen_linears(linears(net)):
        found = gradient(net, x)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def kept_bytes(net: nn.Module) -> int:
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        net(inputs())
    return sum(t.untyped_storage().nbytes() for t in kept)


def test_no_weight_is_kept():
    net = model().requires_grad_(False)
    plain = kept_bytes(net)
    with frozen_linears(linears(net)):
        frozen = kept_bytes(net)
    assert plain - frozen == 4 * (24 * 40 + 40 * 16)


def test_the_weight_is_asked_for_in_the_backward_pass_and_given_back():
    net, events = model().requires_grad_(False), []

    @contextmanager
    def weight_of(module: nn.Module, dtype: torch.dtype):
        events.append(("borrowed", module.out_features, dtype))
        yield 2 * module.weight
        events.append(("returned", module.out_features, dtype))

    x = inputs()
    expected = gradient(net, x)[1]
    with frozen_linears(linears(net), weight_of):
        y = net(x)
        assert not events
        (found,) = torch.autograd.grad(y.square().sum(), x)
    assert torch.allclose(found, 4 * expected)
    assert events == [(what, n, torch.float32) for n in (16, 40) for what in ("borrowed", "returned")]


def test_forward_is_as_it_was_afterwards_also_after_an_error():
    net = model()
    own = net[0].forward = lambda x: torch.zeros(*x.shape[:-1], 40)
    with pytest.raises(KeyError), frozen_linears(linears(net)):
        raise KeyError
    assert net[0].__dict__["forward"] is own
    assert "forward" not in net[3].__dict__


def test_without_gradients_the_module_runs_itself():
    net = model().requires_grad_(False)
    expected = net(inputs())
    with frozen_linears(linears(net)), torch.no_grad():
        assert torch.equal(net(inputs()), expected)
    with frozen_linears(linears(net)):
        assert not net(inputs().detach()).requires_grad


def test_a_model_made_in_inference_mode():
    expected = gradient(model().requires_grad_(False), inputs())
    with torch.inference_mode():
        net = model().requires_grad_(False)
        net.register_buffer("table", torch.ones(3))
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved"):
        gradient(net, inputs())
    with frozen_linears(linears(net)), pytest.raises(RuntimeError, match="Inference tensors cannot be saved"):
        gradient(net, inputs())  # the norm's
    places = [t.data_ptr() for t in (*net.parameters(), *net.buffers())]
    with torch.inference_mode():
        thaw(net)
    assert not any(t.is_inference() for t in (*net.parameters(), *net.buffers()))
    assert [t.data_ptr() for t in (*net.parameters(), *net.buffers())] == places
    assert all(torch.equal(one, other) for one, other in zip(gradient(net, inputs()), expected, strict=True))
    with torch.inference_mode():
        assert torch.equal(net(inputs()), expected[0])


def test_linears_of_inference_tensors_need_no_thaw():
    with torch.inference_mode():
        net = nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 16)).requires_grad_(False)
    x = inputs()
    with frozen_linears(linears(net)):
        found = gradient(net, x)
    thaw(net)
    assert all(torch.equal(one, other) for one, other in zip(found, gradient(net, x), strict=True))


def test_under_a_checkpoint():
    net, x = model().requires_grad_(False), inputs()
    expected = gradient(net, x)
    with frozen_linears(linears(net)):
        y = checkpoint(net, x, use_reentrant=False)
        (found,) = torch.autograd.grad(y.square().sum(), x)
    assert torch.equal(found, expected[1])


def test_what_has_no_memory_of_its_own_is_left():
    with torch.inference_mode():
        net = nn.Linear(3, 4, device="meta")
    thaw(net)
    assert net.weight.is_meta


def test_what_was_moved_since_it_was_made_in_inference_mode_is_thawed_too():
    with torch.inference_mode():
        net = nn.Sequential(nn.Linear(24, 40), nn.LayerNorm(40)).requires_grad_(False)
    net.to(torch.bfloat16)  # as ComfyUI's loading does, outside of that mode
    before = [p.data_ptr() for p in net.parameters()]
    thaw(net)
    assert [p.data_ptr() for p in net.parameters()] == before
    assert gradient(net, inputs().detach().to(torch.bfloat16).requires_grad_())
