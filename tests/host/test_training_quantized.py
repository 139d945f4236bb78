"""Training on every form in which a base's weights are stored: the gradients are those of the numbers it computes with."""

import importlib
from types import SimpleNamespace

import pytest
import torch
from lyco_testing import foreign_weights, quantized_models
from lyco_testing.quantized_models import FORMATS, LATENTS, TEXT, TOKENS, normal, predict, relative

FORMS = (*FORMATS, *foreign_weights.FORMS)


@pytest.fixture(scope="module")
def train(pack) -> SimpleNamespace:
    """The pack's modules of training."""
    names = {
        "run": "nodes.host.training.run",
        "model": "nodes.host.training.model",
        "options": "lyco_core.train.options",
        "items": "lyco_core.train.items",
        "network": "lyco_core.train.network",
        "targets": "lyco_core.train.targets",
        "loading": "nodes.host.loading",
        "errors": "lyco_core.errors",
    }
    return SimpleNamespace(**{k: importlib.import_module(f"{pack.__name__}.{v}") for k, v in names.items()})


def base(family: str, form: str, folder):
    """(a MODEL as a loader node gives it, the numbers that it stands for)."""
    if form in foreign_weights.FORMS:
        quantized_models.float_weights(family)  # not made in inference mode, as what follows is
        with torch.inference_mode():
            return foreign_weights.foreign_model(family, form)
    if reason := quantized_models.why_not(form):
        pytest.skip(reason)
    file, numbers = quantized_models.base_file(folder, family, form)
    return quantized_models.load(family, file), numbers


def caption() -> list:
    return [normal(2, 1, TOKENS, TEXT), {"pooled_output": normal(3, 1, 24)}]


def network_of(train, flow, algorithm: str = "lora"):
    """A network for all of the model, whose factors are all different from zero."""
    asked = train.options.train_options({"network_module": algorithm, "network_dim": 4}).network
    choice = train.targets.choose_targets(train.loading.model_weights(SimpleNamespace(model=flow.model)), asked)
    network = train.network.Network.initial(choice, asked)
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter.add_(normal(number, *parameter.shape) / 16)
    return network.eval()


def gradients(train, model, family: str, *, checkpointing: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """(what the model predicts, the gradient of its loss for all of a network's factors)."""
    run = train.options.RunOptions(gradient_checkpointing=checkpointing)
    with train.model.loaded(model, run) as flow:
        network = network_of(train, flow)
        with network.attached(flow.model):
            x = flow.latent(normal(1, *LATENTS[family]))[None]
            velocity = flow.velocity(x, torch.tensor([0.6]), [caption()])
            (velocity - normal(4, *velocity.shape)).square().mean().backward()
        return velocity.detach(), torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_through_a_frozen_weight_is_that_of_its_numbers(form, tmp_path, train):
    model, numbers = base("wan", form, tmp_path)
    with train.model.loaded(model, train.options.RunOptions(mixed_precision="no")) as flow:
        for path, (out, width) in quantized_models.linears("wan").items():
            x = normal(1, TOKENS, width).requires_grad_()
            y = flow.model.diffusion_model.get_submodule(path)(x)
            above = normal(2, TOKENS, out)
            (found,) = torch.autograd.grad(y, x, above.to(y.dtype))
            expected = above @ numbers[f"{path}.weight"]
            assert relative(found, expected) < 4e-3, path
            assert not y.isnan().any()


@pytest.mark.parametrize(
    ("family", "form"),
    [*(("wan", form) for form in FORMS), ("z_image", "int8_convrot"), ("flux2", "nvfp4_pre_quant")],
)
def test_gradients_are_those_of_the_float_model(family, form, tmp_path, train):
    """But for what the base's own arithmetic costs, which its prediction shows."""
    model, numbers = base(family, form, tmp_path)
    with torch.inference_mode():
        plain = quantized_models.reference(family, numbers)
    right, expected = gradients(train, plain, family)
    output, found = gradients(train, model, family)
    noise = relative(output, right)
    assert relative(found, expected) < 4 * noise + 1e-3
