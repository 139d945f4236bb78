"""Training on a base in every form: gradients are those of the numbers that it stands for."""

import importlib

import pytest
import torch
from lyco_testing.foreign_weights import EVERY, base_model
from lyco_testing.learned import learned
from lyco_testing.quantized_models import LATENTS, TEXT, THREE, TOKENS, normal, reference, why_not
from lyco_testing.relative import relative
from torch import Tensor

NOISY = {"convrot_w4a4": 0.6}
"""What the rounding of activations costs the gradients, where it is more than a hundredth or two."""


def gradients(train, model, family: str, algorithm: str = "lokr") -> tuple[Tensor, Tensor]:
    """(the loss, its gradients by factors that are all different from zero), at one step."""
    run = train.options.RunOptions()
    with train.model.loaded(model, run) as flow:
        network = learned(train, flow, algorithm, part=1 / 32).train()
        latent = flow.latent(normal(1, *LATENTS[family]))[None]
        noise, caption = normal(2, *latent.shape), [normal(3, 1, TOKENS, TEXT), {}]
        parameters = list(network.parameters())
        with network.attached(flow.model):
            velocity = flow.velocity(0.4 * latent + 0.6 * noise, torch.full((1,), 0.6), [caption])
            loss = (velocity - (noise - latent)).square().mean()
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
    zeros = [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]
    return loss.detach(), torch.cat([g.flatten() for g in zeros])


OTHERS = [(family, form) for family in THREE[1:] for form in ("fp8_scaled", "int8_convrot", "gguf_q8_0")]
"""How a weight is read is the form's matter; of the other families one form of each kind is enough."""


@pytest.mark.parametrize(("family", "form"), [*((THREE[0], form) for form in EVERY), *OTHERS])
def test_gradients_are_those_of_the_float_model(family, form, train, tmp_path):
    model, numbers = base_model(tmp_path, family, form)
    loss, found = gradients(train, model, family)
    wanted, expected = gradients(train, reference(family, numbers), family)
    bound = NOISY.get(form, 0.03 if form.startswith(("int8", "asym")) else 1e-3)
    if form == "fp8_old" and why_not("fp8_scaled"):  # 0.3.64 makes float8 of the Linears that the file has not rounded
        bound = 0.1
    assert float(loss) == pytest.approx(float(wanted), rel=bound)
    assert relative(found, expected) < bound


ROUNDS_INPUTS = {"int8_convrot", "convrot_w4a4"}
"""Forms whose products are not those of numbers, also on a CPU."""


@pytest.mark.parametrize("form", ["fp8_scaled", "gguf_q8_0", "int8_convrot", "convrot_w4a4"])
def test_a_loha_is_summed_with_what_is_dequantized_anyway(form, train, tmp_path, monkeypatch):
    trainable = train.model.__name__.split(".nodes.")[0] + ".lyco_core.train.trainable"
    part, ways = (importlib.import_module(f"{trainable}.{name}") for name in ("loha", "summed"))
    model, _ = base_model(tmp_path, "wan", form)
    summed: list[bool] = []
    monkeypatch.setattr(part, "cheapest", lambda *_: ways.Way(False, False))
    expected = gradients(train, model, "wan", "loha")
    monkeypatch.setattr(part, "cheapest", lambda *_: ways.Way(True, False))
    own = part.summed_linear
    monkeypatch.setattr(part, "summed_linear", lambda *args: summed.append(True) or own(*args))
    found = gradients(train, model, "wan", "loha")
    assert bool(summed) == (form not in ROUNDS_INPUTS)
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-4)
    assert relative(found[1], expected[1]) < 1e-3


@pytest.mark.parametrize("form", ["fp8_raw", "fp8_mixed", "nvfp4", "int8_convrot"])
def test_it_learns_and_the_base_stays(form, train, tmp_path):
    model, _ = base_model(tmp_path, "wan", form)
    before = {key: tensor.clone() for key, tensor in model.model.state_dict().items()}
    some = [train.items.Item(normal(i, *LATENTS["wan"]), [normal(i, 1, TOKENS, TEXT), {}], f"{i}") for i in range(2)]
    options = {"network_module": "lokr", "network_dim": 64, "max_train_steps": 25, "learning_rate": 1e-2}
    tried: list[float] = []
    with torch.inference_mode():
        done = train.run.train(
            model,
            train.run.Data(some, validation=some),
            train.options.train_options(options | {"batch_size": 2, "validate_every_n_steps": 1}),
            str(tmp_path),
            lambda training, step, saved: tried.append(step.validation),
        )
    assert tried[-1] < 0.8 * tried[0]
    for key, tensor in model.model.state_dict().items():
        assert tensor.dtype == before[key].dtype
        assert torch.equal(tensor.flatten().view(torch.uint8), before[key].flatten().view(torch.uint8)), key
    assert train.adapter_files.with_adapter(model, done.path) is not model
