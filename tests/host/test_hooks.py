"""Hooks of adapters, and strengths that change over the steps, through ComfyUI's own sampler."""

import importlib

import pytest
import torch
from lyco_testing import quantized_models
from lyco_testing.hooked_sampling import keyframes, prompt, same, steps
from safetensors.torch import save_file

AUTO, PATCH, BESIDE = "auto", "patch the weights", "apply while sampling"
FORMS = ["float32", "int8_convrot", "fp8_scaled"]


@pytest.fixture
def files(loras):
    """Two LoKrs and a LoHa for the model of `model`."""
    for name, algorithm, seed in (("a", "lokr", 0), ("b", "loha", 1)):
        tensors, _ = quantized_models.adapter("wan", algorithm, seed)
        save_file(tensors, loras / f"{name}.safetensors")
    return loras


@pytest.fixture
def model_of(tmp_path):
    def made(name: str, family: str = "wan"):
        if reason := quantized_models.why_not(name):
            pytest.skip(reason)
        return quantized_models.load(family, quantized_models.base_file(tmp_path, family, name)[0])

    return made


def hook(host, name: str, strength: float = 1.0, mode: str = AUTO, before=None, **more):
    return host.hooked(host.Request(f"{name}.safetensors", strength, strength, mode=mode, **more), before)


def loaded(host, model, name: str, strength: float, mode: str = AUTO, schedule: str = ""):
    return host.load_onto(
        model, None, f"{name}.safetensors", strength, partial=False, mode=mode, schedule=host.Schedule.of(schedule)
    ).model


@pytest.mark.parametrize("mode", [AUTO, BESIDE])
@pytest.mark.parametrize("form", FORMS)
def test_a_hook_samples_as_the_model_with_the_adapter(form, mode, files, model_of, host):
    model = model_of(form)
    plain = steps("wan", model, prompt(4))
    hooks = hook(host, "a", 0.7, mode)
    both = steps("wan", model, prompt(4, hooks), prompt(5, hooks))
    assert same(both, steps("wan", loaded(host, model, "a", 0.7, mode), prompt(4)))
    assert not torch.equal(both[-1], plain[-1])
    assert same(steps("wan", model, prompt(4)), plain)
