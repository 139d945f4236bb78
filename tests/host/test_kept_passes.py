"""HiDream-O1 keeps what a caption became, by the caption alone: never for another adapter, or another strength."""

import importlib

import pytest
import torch
from lyco_testing import every_family, tiny_families
from lyco_testing.hooked_sampling import keyframes
from lyco_testing.quantized_models import normal
from safetensors.torch import save_file

TINY = tiny_families.models()["hidream_o1"]
TOKENS = torch.tensor([[151644, 872, 64, 151669, 151673]])


@pytest.fixture(scope="module")
def weights():
    return every_family.float_weights(TINY)


@pytest.fixture(autouse=True)
def known(pack, monkeypatch):
    """A tiny model has not the ratios by which a family is told from its neighbours."""
    pytest.importorskip("comfy.ldm.hidream_o1", reason="this ComfyUI has no HiDream-O1")
    module = importlib.import_module(f"{pack.__name__}.lyco_core.model")
    architectures = importlib.import_module(f"{pack.__name__}.lyco_core.architectures")
    monkeypatch.setattr(module, "recognise", lambda _: (architectures.ARCHITECTURES["hidream_o1"], "comfyui"))


@pytest.fixture
def file(loras, weights):
    save_file(every_family.adapter(TINY, weights[1])[0], loras / "a.safetensors")
    return "a.safetensors"


def sampled(model, hooks=None):
    import comfy.hooks
    import comfy.sample

    prompt = [[torch.zeros(1, 5, 1), {"text_input_ids": TOKENS}]]
    prompts = [comfy.hooks.set_hooks_for_conditioning(prompt, hooks), prompt]
    latent = torch.zeros(1, 3, 64, 64)
    with torch.inference_mode():
        return comfy.sample.sample(
            model, normal(7, *latent.shape), 4, 3.0, "euler", "simple", *prompts, latent, disable_pbar=True, seed=1
        )


def loaded(host, model, file: str, strength: float, mode: str = "auto", schedule: str = ""):
    named = {"partial": False, "mode": mode, "schedule": host.Schedule.of(schedule)}
    return host.load_onto(model, None, file, strength, **named).model


@pytest.mark.parametrize("mode", ["patch the weights", "apply while sampling"])
def test_one_model_after_another_is_as_a_new_one(mode, host, weights, file):
    def alone(strength: float) -> torch.Tensor:
        return sampled(loaded(host, every_family.load(TINY, weights[0]), file, strength, mode))

    expected = {strength: alone(strength) for strength in (0, 1, -0.5)}
    assert not torch.equal(expected[0], expected[1])
    model = every_family.load(TINY, weights[0])
    for strength in (1, -0.5, 0, 1):
        assert torch.equal(sampled(loaded(host, model, file, strength, mode)), expected[strength]), strength


def test_the_strength_of_each_step(host, weights, file):
    """A schedule and hooks with the same keyframes are one, and leave nothing to the next sampling."""
    plain = sampled(every_family.load(TINY, weights[0]))
    over_time = "stepped 0:1, 0.5:0.25"
    expected = sampled(loaded(host, every_family.load(TINY, weights[0]), file, 0.8, schedule=over_time))
    model = every_family.load(TINY, weights[0])
    for mode in ("patch the weights", "apply while sampling"):
        hooks = host.hooked(host.Request(file, 0.8, 0.8, mode=mode), None)
        hooks.set_keyframes_on_hooks(keyframes((0, 1), (0.5, 0.25)))
        assert torch.equal(sampled(model), plain)
        assert not torch.equal(sampled(model, hooks), plain)
    both = loaded(host, model, file, 0.8, schedule=over_time)
    assert torch.equal(sampled(both), expected)
    assert torch.equal(sampled(model), plain)


def test_a_merged_model_begins_with_nothing(host, weights, file):
    expected = sampled(host.merge_onto(every_family.load(TINY, weights[0]), file, 1.0).model)
    model = every_family.load(TINY, weights[0])
    sampled(model)
    assert torch.equal(sampled(host.merge_onto(model, file, 1.0).model), expected)
