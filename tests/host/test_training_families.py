"""Every family that is trained, as ComfyUI's own model, tiny: the loss, its gradients, the file that comes of it."""

import functools
import importlib

import pytest
import torch
from lyco_testing import every_family, tiny_families
from lyco_testing.learned import learned
from lyco_testing.quantized_models import normal
from lyco_testing.tiny_families import Shape

TINY = tiny_families.models()
ALL = [
    "krea2", "ideogram4", "cosmos_predict2", "anima", "ernie_image", "chroma", "ltx_video", "ltx_2", "ltx_2_3",
    "mage_flow", "lumina2", "sd3", "auraflow", "ace_step", "ace_step_1_5", "hidream", "omnigen2", "boogu", "joyimage",
    "lens", "hunyuan_image", "longcat_image", "mochi", "sdxl", "sd15", "hidream_o1",
]  # fmt: skip
"""Those of `test_training.py` are trained by Musubi."""


@pytest.fixture(autouse=True)
def known(request, pack, monkeypatch):
    """A tiny model has not the ratios by which a family is told from its neighbours."""
    module = importlib.import_module(f"{pack.__name__}.lyco_core.model")
    family = importlib.import_module(f"{pack.__name__}.lyco_core.architectures").ARCHITECTURES[
        TINY[request.getfixturevalue("name")].family
    ]
    monkeypatch.setattr(module, "recognise", lambda _: (family, "comfyui"))


@functools.lru_cache(1)
def weights(name: str):
    return every_family.float_weights(TINY[name])[0]


def model_of(name: str):
    return every_family.load(TINY[name], weights(name))


def latents(name: str, count: int = 1) -> torch.Tensor:
    """Of one stream: video without its sound."""
    return normal(3, count, *TINY[name].latents[0])


def caption(name: str) -> list:
    def made(value: object, seed: int) -> object:
        if isinstance(value, Shape):
            return normal(seed, 1, *value)
        return [made(one, seed) for one in value] if isinstance(value, list) else value

    tiny = TINY[name]
    return [made(tiny.text, 9), {key: made(value, n) for n, (key, value) in enumerate(tiny.given.items(), 10)}]


def loss_of(flow, name: str, t: float = 0.6) -> torch.Tensor:
    x_0, process = latents(name), flow.process
    noise, sigma = normal(50, *x_0.shape), process.sigma(torch.tensor([t]))
    found = flow.velocity(process.noised(x_0, noise, sigma), sigma, [caption(name)])
    return (found - process.target(x_0, noise, sigma)).square().mean()


@pytest.mark.parametrize("name", ALL)
def test_the_loss_is_of_what_comfyui_s_sampler_integrates(name, train):
    """Of the x_0 that `apply_model` gives, at which all the weights of an error are its model_sampling's own; of
    HiDream-O1, whose trainer makes the loss of x_0 itself, there are none.
    """
    model = model_of(name)
    with train.model.loaded(model, train.options.RunOptions()) as flow, torch.no_grad():
        sampling, x_0 = flow.model.model_sampling, latents(name)
        for t in (0.05, 0.6, 0.97):
            sigma = flow.process.sigma(torch.tensor([t]))
            noise = normal(50, *x_0.shape)
            x = sampling.noise_scaling(sigma, noise.clone(), x_0)
            assert torch.allclose(flow.process.noised(x_0, noise, sigma), x, atol=1e-5 * float(x.abs().max()))
            arguments = train.conditions.forward_arguments(flow.model, caption(name), x, 1.0)
            denoised = flow.model.apply_model(x, sigma, **arguments)
            gain = sampling.calculate_denoised(sigma, torch.ones_like(x), torch.zeros_like(x))
            if TINY[name].family == "hidream_o1":
                gain = torch.ones_like(x)
            expected = float(((denoised - x_0) / gain).square().mean())
            assert float(loss_of(flow, name, t)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_those_of_finite_differences(name, train):
    """With checkpointing and without: some blocks change their inputs in place, which autograd may not notice."""
    model = model_of(name)
    found: dict[bool, list[torch.Tensor]] = {}
    for checkpointing in (False, True):
        run = train.options.RunOptions(gradient_checkpointing=checkpointing)
        with train.model.loaded(model, run) as flow:
            network = learned(train, flow, "lokr")
            parameters = list(network.parameters())
            with network.attached(flow.model):
                found[checkpointing] = [
                    torch.zeros_like(p) if g is None else g
                    for g, p in zip(
                        torch.autograd.grad(loss_of(flow, name), parameters, allow_unused=True), parameters, strict=True
                    )
                ]
                if checkpointing:
                    continue
                with torch.no_grad():
                    length = torch.sqrt(sum(g.square().sum() for g in found[False]))
                    values, step = [], 1e-3
                    for sign in (1, -2):
                        for parameter, gradient in zip(parameters, found[False], strict=True):
                            parameter.add_(gradient / length, alpha=sign * step)
                        values.append(float(loss_of(flow, name)))
            assert (values[0] - values[1]) / (2 * step) == pytest.approx(float(length), rel=0.03)
    whole = float(torch.cat([g.flatten() for g in found[False]]).norm())
    for one, other in zip(found[False], found[True], strict=True):
        assert float((one - other).norm()) <= 1e-4 * whole


@pytest.mark.parametrize("name", ALL)
def test_trained_it_predicts_as_the_loaded_file_does(name, train, tmp_path):
    """What training computed with, and what *Load LoHa/LoKr*'s patches make of the file."""
    model = model_of(name)
    many = 12 if name == "omnigen2" else 2  # whose loss changes little in a step
    settings = {"network_module": "lokr", "network_dim": 4, "max_train_steps": many, "learning_rate": 3e-2}
    options = train.options.train_options(settings | {"save_precision": "fp32", "timestep_sampling": "auto"})
    last: list[float] = []

    def tell(training, step, saved) -> None:
        if step.step == training.total_steps:
            training.network.eval()
            with torch.no_grad():
                last.append(float(loss_of(training.model, name)))

    with torch.inference_mode():
        raw = latents(name)[0]
        done = train.run.train(
            model, train.run.Data([train.items.Item(raw, caption(name), "item")]), options, str(tmp_path), tell
        )
        patched = train.adapter_files.with_adapter(model, done.path).model
    losses = []
    for one in (patched, model):
        with train.model.loaded(one, train.options.RunOptions()) as flow, torch.no_grad():
            losses.append(float(loss_of(flow, name)))
    assert losses[0] == pytest.approx(last[0], rel=1e-4)
    assert abs(losses[1] - last[0]) > 1e-4 * last[0]


@pytest.mark.parametrize("name", ["ernie_image"])
def test_what_stands_in_for_a_fused_kernel_gives_the_same(name, pack, train):
    import comfy.quant_ops

    kernels = importlib.import_module(f"{pack.__name__}.nodes.host.training.kernels")
    angle = normal(1, 1, 6, 1, 8)
    freqs = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).unflatten(-1, (2, 2))
    q, k, scales = normal(2, 2, 6, 3, 16), normal(3, 2, 6, 3, 16), (1 + normal(4, 16), 1 + normal(5, 16))
    for kernel, more in {
        "apply_rope_split_half": (),
        "rms_rope_split_half": (*scales, 1e-6),
        "rms_rope": (*scales, 1e-6),
    }.items():
        expected = getattr(comfy.quant_ops.ck, kernel)(q, k, freqs, *more)
        with kernels.with_gradients():
            found = getattr(comfy.quant_ops.ck, kernel)(q, k, freqs, *more)
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(one, other, atol=1e-6), kernel
