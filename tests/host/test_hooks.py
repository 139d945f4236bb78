"""Hooks of adapters, and strengths that change over the steps, through ComfyUI's own sampler."""

import pytest
import torch
from lyco_testing import quantized_models
from lyco_testing.hooked_sampling import OneStep, by_hand, keyframes, prompt, same, steps
from lyco_testing.relative import relative
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


def test_each_prompt_sees_its_own_hook(files, model_of, host):
    for form in ("float32", "int8_convrot"):
        model = model_of(form)
        one, other = hook(host, "a", 0.7), hook(host, "b", -0.4)
        found = steps("wan", model, prompt(4, one), prompt(5, other))
        models = loaded(host, model, "a", 0.7), loaded(host, model, "b", -0.4)
        assert same(found[:-1], by_hand(OneStep("wan", lambda step, models=models: models, prompt(4))))


def test_keyframes_and_a_schedule_are_the_strengths_of_each_step(files, model_of, host):
    """Of four steps by `simple`, the parts begin at 0, 0.25, 0.5 and 0.75."""
    strengths = (0.5, 0.5, 0.25, 0.0)
    for form, mode in (("float32", BESIDE), ("float32", AUTO), ("int8_convrot", AUTO)):
        model = model_of(form)
        hooks = hook(host, "a", 0.5, mode)
        hooks.set_keyframes_on_hooks(keyframes((0, 1), (0.5, 0.5), (0.75, 0)))
        alone = steps("wan", model, prompt(4, hooks), prompt(5, hooks.clone()))  # in two calls, as by hand
        at = [loaded(host, model, "a", strength, mode) for strength in strengths]
        assert same(alone[:-1], by_hand(OneStep("wan", lambda step, at=at: (at[step], at[step]), prompt(4))))
        if (form, mode) != ("float32", AUTO):
            stepped = loaded(host, model, "a", 0.5, mode, "stepped 0:1, 0.5:0.5, 0.75:0")
            assert same(steps("wan", model, prompt(4, hooks), prompt(5, hooks)), steps("wan", stepped, prompt(4)))


def test_a_line_between_numbers(files, model_of, host):
    model = model_of("float32")
    scheduled = loaded(host, model, "a", 0.8, AUTO, "0:0, 0.5:1, 1:0")
    at = [loaded(host, model, "a", 0.8 * number, BESIDE) for number in (0, 0.5, 1, 0.5)]
    expected = by_hand(OneStep("wan", lambda step: (at[step], at[step]), prompt(4)))
    assert max(map(relative, steps("wan", scheduled, prompt(4))[:-1], expected)) < 1e-5


def test_hooks_of_any_algorithm_in_the_order_of_the_prompt(files, model_of, host):
    """What depends on the weight does so on the weight as the hooks before leave it, at their strength of the step."""
    torch.manual_seed(0)
    width = quantized_models.WIDTH
    q, key = "diffusion_model.layers.0.attention.to_", "diffusion_model.layers.0.attention.qkv"
    up, down = torch.randn(width, 4) / 20, torch.randn(4, width) / 4
    lora = {"lora_up.weight": up, "lora_down.weight": down}
    dora = {f"{q}q.{name}": t for name, t in (lora | {"dora_scale": 1 + torch.randn(width, 1) / 10}).items()}
    oft = {f"{q}k.oft_blocks": torch.randn(width // 16, 16, 16) / 30}
    save_file(dora | oft, files / "on_base.safetensors")
    whole, _ = quantized_models.adapter("z_image", "lokr")
    save_file({k: t for k, t in whole.items() if k.startswith(key)}, files / "whole.safetensors")
    for form in ("float32", "fp8_scaled"):
        model = model_of(form, "z_image")
        first = hook(host, "whole", -0.4, BESIDE)
        hooks = hook(host, "on_base", 0.7, BESIDE, before=first)
        hooks.set_keyframes_on_hooks(keyframes((0, 1), (0.5, 0.5)))
        turned = hook(host, "whole", -0.4, BESIDE, before=hook(host, "on_base", 0.7, BESIDE))

        def both(one, factor, order=("whole", "on_base"), model=model):
            for name in order:
                strength = {"whole": -0.4, "on_base": 0.7}[name] * factor
                model = loaded(host, model, name, strength, one)
            return model

        at = [both(BESIDE, factor) for factor in (1, 1, 0.5, 0.5)]
        other = both(BESIDE, 1, ("on_base", "whole"))
        found = steps("z_image", model, prompt(4, hooks), prompt(5, turned))
        assert same(
            found[:-1], by_hand(OneStep("z_image", lambda step, at=at, other=other: (at[step], other), prompt(4)))
        )
        if form == "float32":
            patched = [both(PATCH, factor) for factor in (1, 1, 0.5, 0.5)]
            expected = by_hand(OneStep("z_image", lambda step, at=patched, other=other: (at[step], other), prompt(4)))
            assert max(map(relative, found[:-1], expected)) < 1e-4


def test_hooks_over_adapters_that_always_act(files, model_of, host):
    """On a model whose own adapters are beside its weights too; and the MODEL is the same afterwards."""
    model = model_of("int8_convrot")
    base = loaded(host, model, "b", 0.6)
    plain = steps("wan", base, prompt(4))
    hooks = hook(host, "a", 0.7)
    found = steps("wan", base, prompt(4, hooks), prompt(5, hooks))
    assert same(found, steps("wan", loaded(host, base, "a", 0.7), prompt(4)))
    assert same(steps("wan", base, prompt(4)), plain)
    assert same(steps("wan", base, prompt(4, hooks), prompt(5, hooks)), found)


def test_stock_hooks_fail_where_these_do_not(files, model_of, host):
    """Why a quantized model's hooks act beside its weights alone: ComfyUI asks every module for its `weight_scale`."""
    import comfy.hooks
    from safetensors.torch import load_file

    model = model_of("fp8_scaled")
    stock = comfy.hooks.create_hook_lora(load_file(files / "a.safetensors"), 0.7, 0.7)
    with pytest.raises(AttributeError, match="has no attribute 'weight_scale'"):
        steps("wan", model, prompt(4, stock))
    steps("wan", model, prompt(4, hook(host, "a")))


def test_what_a_prompt_may_not_hook(files, model_of, host):
    model = model_of("fp8_scaled")
    tensors, _ = quantized_models.adapter("wan", "lokr")
    bias = {"diffusion_model.blocks.0.ffn.2.diff_b": torch.ones(quantized_models.WIDTH)}
    save_file(tensors | bias, files / "bias.safetensors")
    with pytest.raises(Exception, match="can only be patched, which ComfyUI's hooks cannot do to a quantized model"):
        steps("wan", model, prompt(4, hook(host, "bias")))
    other, _ = quantized_models.adapter("z_image", "lokr")
    save_file(other, files / "other.safetensors")
    with pytest.raises(Exception, match=r"other\.safetensors: is an adapter for Z-Image, the model is Wan"):
        steps("wan", model, prompt(4, hook(host, "other")))
    plain = model_of("float32")
    dora = {"lora_up.weight": (256, 4), "lora_down.weight": (4, 512), "dora_scale": (256, 1)}
    named = {f"diffusion_model.blocks.0.ffn.2.{name}": torch.ones(shape) for name, shape in dora.items()}
    save_file(named, files / "dora.safetensors")
    mixed = hook(host, "a", 1.0, PATCH, before=hook(host, "dora", 1.0, BESIDE))
    with pytest.raises(Exception, match="are patched by a hook, and an adapter beside them depends on them"):
        steps("wan", plain, prompt(4, mixed))
    steps("wan", plain, prompt(4, hook(host, "a")))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("soon", "'soon' is no PART:NUMBER"),
        ("0:1,,1:0", "'' is no PART:NUMBER"),
        ("0:1, 1.5:0", "'1.5:0': expected a part from 0"),
        ("0.5:1, 0.3:0", "expected each greater than the one before"),
        ("0:1e999", "a number from -100 to 100"),
        ("0:-1e39", "a number from -100 to 100"),
        ("stepped", "'' is no PART:NUMBER"),
    ],
)
def test_a_schedule_that_is_none(text, why, host):
    with pytest.raises(Exception, match=why) as caught:
        host.Schedule.of(text)
    assert "strength_schedule" in str(caught.value) and "\n" not in str(caught.value)


def test_what_a_schedule_cannot_change(files, model_of, host):
    with pytest.raises(Exception, match="set mode to auto"):
        loaded(host, model_of("float32"), "a", 1.0, PATCH, "0:1, 1:0")
    bias = {"diffusion_model.blocks.0.ffn.2.diff_b": torch.ones(quantized_models.WIDTH)}
    save_file(bias, files / "bias.safetensors")
    with pytest.raises(Exception, match="are no linear module's, and can only be patched"):
        loaded(host, model_of("float32"), "bias", 1.0, AUTO, "0:1, 1:0")


def test_a_training_has_no_steps_of_a_sampler(files, model_of, host, train):
    model = loaded(host, model_of("float32"), "a", 1.0, AUTO, "0:1, 1:0")
    with pytest.raises(Exception, match=r"has a strength_schedule \(0:1, 1:0\), which only a sampler can honour"):
        train.run.require_constant(model)


def test_while_weights_are_offloaded(files, model_of, host, monkeypatch):
    """Low VRAM: most weights wait in memory, and come to the device one by one."""
    import comfy.model_patcher

    model = model_of("int8_convrot")
    hooks, other = hook(host, "a", 0.7), hook(host, "b", -0.4)
    expected = steps("wan", model, prompt(4, hooks), prompt(5, other))
    load = comfy.model_patcher.ModelPatcher.load
    monkeypatch.setattr(
        comfy.model_patcher.ModelPatcher,
        "load",
        lambda self, device, lowvram_model_memory=0, **_: load(self, device, lowvram_model_memory=1),
    )
    fresh = model_of("int8_convrot")
    found = steps("wan", fresh, prompt(4, hooks), prompt(5, other))
    assert fresh.model.model_lowvram
    assert same(found, expected)
