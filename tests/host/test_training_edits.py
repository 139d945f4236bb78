"""What edit models learn of control images: a batch is its items, and the control decides the answer."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lyco_testing.comfy_models import MODELS, tiny_model

SMALL = {"depth": 1, "depth_single_blocks": 1}
RUNNABLE = {
    "flux1": SMALL,
    "flux2": SMALL | {"default_ref_method": "index", "ref_index_scale": 10.0},
    "qwen_image": {"in_channels": 64, "num_layers": 1},
}
STEPS = {"flux1": 100, "flux2": 50, "qwen_image": 100}
"""Of FLUX.2 half as many: ComfyUI gives it 512 tokens of text, between which its control has to be found."""

CONTROLS = {"flux1": 4, "flux2": 8, "qwen_image": 4}
"""How high and wide a control's latent is; an image's has a height of 4."""


@pytest.fixture(scope="module")
def made(pack) -> SimpleNamespace:
    names = {name: f"nodes.host.training.{name}" for name in ("references", "run", "flow_model")}
    names |= {name: f"lyco_core.train.{name}" for name in ("items", "options")} | {"how": "lyco_core.train.references"}
    return SimpleNamespace(**{k: importlib.import_module(f"{pack.__name__}.{v}") for k, v in names.items()})


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def model_of(architecture: str, monkeypatch: pytest.MonkeyPatch):
    """A tiny model whose attention can choose, and whose last layer neither hides an answer nor drowns it."""
    name, config = MODELS[architecture]
    monkeypatch.setitem(MODELS, architecture, (name, config | RUNNABLE[architecture]))
    with torch.inference_mode(False):
        model = tiny_model(architecture)
    whole = model.model.diffusion_model
    if architecture == "qwen_image":
        last, modulation = whole.proj_out, whole.norm_out.linear
    else:
        last, modulation = whole.final_layer.linear, whole.final_layer.adaLN_modulation[1]
    with torch.no_grad():
        for key, parameter in whole.named_parameters():
            if any(norm in key for norm in ("query_norm", "key_norm", "norm_q", "norm_k", "norm_added")):
                parameter.fill_(1.5)
        for parameter in modulation.parameters():
            parameter.zero_()
        torch.nn.init.orthogonal_(last.weight, gain=4, generator=torch.Generator().manual_seed(1))
    return model


def item(made, model, architecture: str, number: int, control: int | None):
    """One of one colour, which is another order of its control's: with the wrong one or none, nothing tells it.

    Captions are the same, and so is the noise of a step.
    """
    frames = (1,) if architecture == "qwen_image" else ()

    def picture(colour: torch.Tensor, size: int) -> torch.Tensor:
        return model.model.process_latent_out(colour.expand(1, 16, *frames, size, size))[0].contiguous()

    def colour(seed: int) -> torch.Tensor:
        return normal(200 + seed, 1, 16, *(1 for _ in frames), 1, 1)

    entry = [normal(100, 1, 5, 48), {"pooled_output": normal(101, 1, 24)}]
    references = [] if control is None else [picture(2 * colour(control), CONTROLS[architecture])]
    entry = made.references.with_references(entry, references, made.how.References("x"))
    return made.items.Item(picture(4 * colour(number).roll(1, 1), 4), entry, f"item {number}")


@pytest.mark.parametrize("architecture", RUNNABLE)
def test_a_batch_is_its_items(architecture, made, monkeypatch):
    model = model_of(architecture, monkeypatch)
    some = [item(made, model, architecture, n, n) for n in range(3)]
    with made.flow_model.loaded(model, made.options.RunOptions()) as flow:
        assert flow.groups([one.condition for one in some]) == [[0, 1, 2]]
        latents = torch.stack([flow.latent(one.latent) for one in some])
        times = torch.tensor([0.2, 0.5, 0.9])
        with torch.no_grad():
            together = flow.velocity(latents, times, [one.condition for one in some])
            for n, one in enumerate(some):
                alone = flow.velocity(latents[n : n + 1], times[n : n + 1], [one.condition])
                assert torch.allclose(together[n : n + 1], alone, atol=1e-5)


@pytest.mark.parametrize("architecture", RUNNABLE)
def test_the_control_decides(architecture, made, monkeypatch, tmp_path: Path):
    """Four items in nearly nothing but noise: to a fifth of the loss, and of what it is without a control."""
    model = model_of(architecture, monkeypatch)
    controls = {"own": [0, 1, 2, 3], "another's": [1, 2, 3, 0], "none": [None] * 4}
    sets = {
        name: [item(made, model, architecture, n, control) for n, control in enumerate(some)]
        for name, some in controls.items()
    }
    losses: dict[str, float] = {}

    def tell(training, step, saved) -> None:
        if step.step == training.total_steps:
            training.network.eval()
            with torch.no_grad():
                losses.update({name: loss_of(training.model, some) for name, some in sets.items()})

    settings = {"network_module": "lora", "network_dim": 16, "network_alpha": 16, "learning_rate": 1e-2}
    settings |= {"lr_scheduler": "cosine", "max_train_steps": STEPS[architecture], "batch_size": 4}
    settings |= {"min_timestep": 990, "timestep_sampling": "uniform", "mixed_precision": "no"}
    options = made.options.train_options(settings | {"gradient_checkpointing": False})
    data = made.run.Data(sets["own"], [normal(100, 1, 5, 48), {"pooled_output": normal(101, 1, 24)}])
    done = made.run.train(model, data, options, str(tmp_path), tell)
    assert losses["own"] < done.steps[0].loss / 5
    assert losses["own"] < losses["none"] / 5
    assert losses["own"] < losses["another's"] / 5


def loss_of(flow, some: list) -> float:
    latents = torch.stack([flow.latent(one.latent) for one in some])
    noise, sigma = normal(9, *latents.shape), flow.process.sigma(torch.full((len(some),), 0.995))
    found = flow.velocity(flow.process.noised(latents, noise, sigma), sigma, [one.condition for one in some])
    return float((found - flow.process.target(latents, noise, sigma)).square().mean())
