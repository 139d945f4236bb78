"""A network on a model: the model computes with W + ΔW, learns only the factors, and comes out as it went in."""

import logging

import pytest
import torch
from lyco_testing.toy import WIDTH, described, flux1, model_of, z_image
from lyco_testing.toy import learned as network
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lyco_core.adapters import LoKr, LoRA
from lyco_core.errors import TrainError
from lyco_core.placement import place
from lyco_core.train.frozen import frozen_linears, thaw
from lyco_core.train.network import Network
from lyco_core.train.network_options import NetworkOptions
from lyco_core.train.targets import choose_targets

OPTIONS = {
    "lora": NetworkOptions("lora", 3, 2.0),
    "loha": NetworkOptions("loha", 3, 2.0),
    "lokr": NetworkOptions("lokr", 1, 2.0),
    "lokr, full": NetworkOptions("lokr", 64, 2.0),
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))


def block(model: nn.Module, x: Tensor, number: int = 0) -> Tensor:
    """Every Linear of a Z-Image block, one after the other."""
    layer = model.get_submodule(f"diffusion_model.layers.{number}")
    q, k, v = layer.attention.qkv(x).chunk(3, dim=-1)
    x = x + layer.attention.out(torch.tanh(q) * k + v)
    return x + layer.feed_forward.w2(torch.tanh(layer.feed_forward.w1(x)) * layer.feed_forward.w3(x))


def inputs(*leading: int) -> Tensor:
    return torch.randn(*leading or (2, 5), WIDTH, generator=torch.Generator().manual_seed(1), requires_grad=True)


def close(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> bool:
    return float((one - other).detach().norm()) <= tolerance * float(other.detach().norm())


@every_option
@pytest.mark.parametrize("leading", [(4,), (2, 5)], ids=str)
def test_the_model_computes_with_the_change_on_its_rows(options: NetworkOptions, leading: tuple[int, ...]):
    model, made, x = model_of(z_image()), network(options), inputs(*leading)
    before = block(model, x).detach()
    with made.attached(model):
        found = block(model, x)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert torch.equal(block(model, x), before)
    weights = dict(model.named_parameters())
    for key, changes in place(made.adapter_set(), {k: tuple(w.shape) for k, w in weights.items()}).by_weight.items():
        for piece, strength in changes:
            assert strength == 1
            piece.band(weights[key].data).add_(made.trainables[piece.module_path].adapter().delta_weight())
    merged = block(model, x)
    assert not close(before, merged, 0.01)
    assert close(found, merged)
    assert close(gradient, torch.autograd.grad(merged.sum(), x)[0])


def test_some_rows_of_a_weight():
    """q and v of a fused weight are trained, k between them is not."""
    options = NetworkOptions("lora", 3, exclude_patterns=[".*"], include_patterns=[r"layers\.0\..*to_[qv]"])
    model, made, x = model_of(z_image()), network(options), inputs()
    qkv = model.get_submodule("diffusion_model.layers.0.attention.qkv")
    before = qkv(x)
    with made.attached(model):
        change = qkv(x) - before
    for number, name in enumerate(["to_q", "to_k", "to_v"]):
        rows = change[..., number * WIDTH : (number + 1) * WIDTH]
        trainable = made.trainables.get(f"layers.0.attention.{name}")
        assert torch.allclose(rows, torch.zeros(()) if trainable is None else trainable(x), atol=1e-5)


@every_option
def test_only_the_factors_learn(options: NetworkOptions):
    model = model_of(z_image())
    made = Network.initial(choose_targets(described(z_image()), options), options)
    x, goal = inputs(), torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(9))
    optimizer = torch.optim.Adam(made.parameter_groups(0.02))
    weights = {name: w.clone() for name, w in model.named_parameters()}
    losses: list[float] = []
    with made.attached(model):
        for _ in range(40):
            loss = (block(model, x) - goal).square().mean()
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert losses[-1] < losses[0] / 3
    assert all(torch.equal(w, weights[name]) for name, w in model.named_parameters())
    assert all(w.grad is None for w in model.parameters())
    assert all(p.grad is not None for name, p in made.named_parameters() if "layers_0" in name)


DROPPING = {
    "rank": {"rank_dropout": 0.3},
    "module": {"module_dropout": 0.4},
    "both": {"rank_dropout": 0.3, "module_dropout": 0.4},
}


@pytest.mark.parametrize("dropout", DROPPING.values(), ids=list(DROPPING))
@pytest.mark.parametrize("algorithm", ["lora", "loha", "lokr"])
def test_a_checkpointed_block_draws_the_same_dropout_again(algorithm: str, dropout: dict[str, float]):
    model, made = model_of(z_image()), network(NetworkOptions(algorithm, 1, **dropout))
    found: list[list[Tensor]] = []
    with made.attached(model):
        for run in (block, lambda *args: checkpoint(block, *args, use_reentrant=False)):
            x = inputs()
            torch.manual_seed(3)
            y = run(model, x)
            made.zero_grad()
            y.square().sum().backward()
            gradients = [torch.zeros(1) if p.grad is None else p.grad.clone() for p in made.parameters()]
            found.append([y.detach(), x.grad, *gradients])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    made.eval()
    torch.manual_seed(3)
    with made.attached(model):
        assert not torch.equal(block(model, inputs()), found[0][0])


def test_a_model_made_in_inference_mode():
    x, made = inputs(), network(OPTIONS["lokr"])
    expected: list[Tensor] = []
    for prepare in ("normal", "thaw", "frozen"):
        with torch.inference_mode(prepare != "normal"):
            model = model_of(z_image())
        if prepare == "thaw":
            thaw(model)
        linears = [m for m in model.modules() if isinstance(m, nn.Linear)] if prepare == "frozen" else []
        with made.attached(model), frozen_linears(linears):
            y = block(model, x)
            gradients = torch.autograd.grad(y.sum(), [x, *made.parameters()], allow_unused=True)
        found = [y, *(g for g in gradients if g is not None)]
        expected = expected or found
        assert len(found) > 10
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@every_option
def test_half_precision_models(options: NetworkOptions):
    model, made = model_of(z_image()), network(options)
    with made.attached(model):
        expected = block(model, inputs())
        found = block(model.bfloat16(), inputs().detach().bfloat16())
        assert found.dtype == torch.bfloat16
        assert close(found.float(), expected, 0.05)
        found.float().sum().backward()
    assert {p.grad.dtype for p in made.parameters() if p.grad is not None} == {torch.float32}


def test_it_is_taken_off_after_an_error_and_a_missing_module_is_named():
    model, made = model_of(z_image()), network(OPTIONS["lora"])
    with pytest.raises(KeyError), made.attached(model):
        raise KeyError
    assert not any(module._forward_hooks for module in model.modules())
    del model.diffusion_model.layers._modules["1"]
    with pytest.raises(TrainError, match=r"no module diffusion_model\.layers\.1\.attention\.qkv"), made.attached(model):
        pass
    assert not any(module._forward_hooks for module in model.modules())


def test_loraplus_has_a_faster_group_of_ups():
    made = network(NetworkOptions("lora", 3, loraplus_lr_ratio=16.0))
    slow, fast = made.parameter_groups(1e-4)
    assert (slow["lr"], fast["lr"]) == (1e-4, 16e-4)
    assert all(p.shape[1] == 3 for p in fast["params"])
    assert all(p.shape[0] == 3 for p in slow["params"])
    assert len(slow["params"]) + len(fast["params"]) == len(list(made.parameters()))
    (group,) = network(OPTIONS["lora"]).parameter_groups(1e-4)
    assert len(group["params"]) == len(list(made.parameters()))


@pytest.mark.parametrize(("algorithm", "faster"), [("loha", "w2_a"), ("lokr", "w1")])
def test_loraplus_of_the_others_is_sd_scripts(algorithm: str, faster: str):
    """hada_w2_a and lokr_w1."""
    made = network(NetworkOptions(algorithm, 3, loraplus_lr_ratio=16.0))
    slow, fast = made.parameter_groups(1e-4)
    assert (slow["lr"], fast["lr"]) == (1e-4, 16e-4)
    assert {id(p) for p in fast["params"]} == {id(t.get_parameter(faster)) for t in made.trainables.values()}
    assert len(slow["params"]) + len(fast["params"]) == len(list(made.parameters()))


def test_ranks_and_rates_by_pattern():
    options = NetworkOptions(
        "loha", 3, network_reg_dims=[".*attention.*=5", ".*=2"], network_reg_lrs=[".*to_q=1e-3"], loraplus_lr_ratio=2
    )
    made = network(options)
    ranks = {path: trainable.adapter().rank for path, trainable in made.trainables.items()}
    assert ranks == {path: 5 if "attention" in path else 2 for path in ranks}
    rates = {id(p): group["lr"] for group in made.parameter_groups(1e-4) for p in group["params"]}
    for path, trainable in made.trainables.items():
        rate = 1e-3 if path.endswith("to_q") else 1e-4
        expected = {name: rate * 2 if name == "w2_a" else rate for name, _ in trainable.named_parameters()}
        assert {name: rates[id(p)] for name, p in trainable.named_parameters()} == expected
    assert made.parameter_groups(1e-4)[0]["lr"] == 1e-4


@every_option
def test_a_state_restores_it_exactly(options: NetworkOptions):
    made = network(options)
    other = Network.initial(made.choice, options)
    other.load_state_dict(made.state_dict())
    assert all(torch.equal(p, q) for p, q in zip(made.parameters(), other.parameters(), strict=True))
    assert all(key.startswith("lora_unet_layers_") for key in made.state_dict())


def test_a_state_of_another_network_is_refused_before_anything_changes():
    made, other = network(OPTIONS["loha"]), network(NetworkOptions("loha", 4))
    before = {key: tensor.clone() for key, tensor in made.state_dict().items()}
    with pytest.raises(
        TrainError,
        match=r"of another network: 56 tensors differ \(lora_unet_layers_0_.*expected \[24, 3\], found \[24, 4\]",
    ):
        made.load_state_dict(other.state_dict())
    with pytest.raises(TrainError, match="found none"):
        made.load_state_dict({})
    assert all(torch.equal(tensor, before[key]) for key, tensor in made.state_dict().items())


def test_the_seed_decides_how_it_begins():
    def start(seed: int) -> Tensor:
        options = NetworkOptions("loha", 3, seed=seed)
        made = Network.initial(choose_targets(described(z_image()), options), options)
        return torch.cat([p.detach().flatten() for p in made.parameters()])

    torch.manual_seed(0)
    one = start(1)
    torch.manual_seed(5)
    assert torch.equal(start(1), one)
    assert not torch.equal(start(2), one)


def test_one_warning_for_all_full_matrices(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, logger="lyco"):
        network(NetworkOptions("lokr", 1))
        assert not caplog.records
        network(NetworkOptions("lokr", 3))
    (record,) = caplog.records
    assert "network_dim 3 is large for factor -1: W2 is a full matrix" in record.getMessage()
    assert "in 8 of 14 modules (layers.0.attention.to_q," in record.getMessage()


@every_option
def test_going_on_from_an_adapter_set(options: NetworkOptions):
    made = network(options)
    again = Network.continued(made.choice, NetworkOptions(options.algorithm, 9), made.adapter_set().adapters)
    assert (again.options.network_dim, again.options.network_alpha) == (
        (9, 1.0) if options.network_dim == 64 else (options.network_dim, options.network_alpha)
    )
    model, x = model_of(z_image()), inputs()
    with made.attached(model):
        expected = block(model, x)
    with again.attached(model):
        assert torch.equal(block(model, x), expected)


@pytest.mark.parametrize("factor", [-1, 2, 8])
def test_going_on_finds_the_factor(factor: int):
    made = network(NetworkOptions("lokr", 1, factor=factor))
    again = Network.continued(made.choice, NetworkOptions("lokr", 1, factor=4), made.adapter_set().adapters)
    assert again.options.factor == factor


def test_going_on_with_more_modules_begins_those_anew(caplog: pytest.LogCaptureFixture):
    made = network(OPTIONS["lora"])
    half = {path: a for path, a in made.adapter_set().adapters.items() if path.startswith("layers.0.")}
    with caplog.at_level(logging.WARNING, logger="lyco"):
        again = Network.continued(made.choice, OPTIONS["lora"], half)
    assert [r.getMessage() for r in caplog.records] == ["7 of 14 modules are not in the file and begin anew"]
    assert not again.trainables["layers.1.attention.to_q"].adapter().delta_weight().any()
    assert again.trainables["layers.0.attention.to_q"].adapter().delta_weight().any()


def test_going_on_loses_nothing_and_fits():
    made = network(OPTIONS["lora"])
    adapters = dict(made.adapter_set().adapters)
    with pytest.raises(TrainError, match=r"1 of its 15 modules are not trained here and would be lost \(elsewhere\)"):
        Network.continued(made.choice, OPTIONS["lora"], adapters | {"elsewhere": adapters["layers.0.attention.to_q"]})
    wrong = LoRA(torch.ones(30, 2), torch.ones(2, WIDTH))
    with pytest.raises(TrainError, match=r"to_q: is for a weight of \[30, 24\], the model's is \[24, 24\]"):
        Network.continued(made.choice, OPTIONS["lora"], {"layers.0.attention.to_q": wrong})
    lokr = LoKr(w1=torch.ones(4, 4), w2=torch.ones(6, 6))
    with pytest.raises(TrainError, match=r"to_q: its algorithm is LoKr, and LoRA is to be trained"):
        Network.continued(made.choice, OPTIONS["lora"], {"layers.0.attention.to_q": lokr})


def test_on_flux_too():
    model, made = model_of(flux1()), network(OPTIONS["lokr"], flux1())
    with made.attached(model):
        change = model.get_submodule("diffusion_model.double_blocks.0.img_attn.qkv")(inputs())
        untouched = model.get_submodule("diffusion_model.double_blocks.0.img_mod.lin")(inputs())
    assert change.requires_grad
    assert untouched.grad_fn is not None
    assert len(made.trainables) == 10
