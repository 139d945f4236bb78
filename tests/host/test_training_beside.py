"""Training on a base in every form: one module's gradient, adapters that act beside its weights, and what is saved."""

import contextlib

import pytest
import torch
from lyco_testing import foreign_weights, quantized_models
from lyco_testing.foreign_weights import EVERY, base_model
from lyco_testing.learned import learned
from lyco_testing.quantized_models import LATENTS, TEXT, TOKENS, normal, predict
from lyco_testing.relative import relative
from safetensors.torch import save_file

MOVED = 1e-2
"""How far predictions may be apart where weights lie elsewhere in memory: MKL sums in another order, and some of what
is rounded to int8 falls to the other side."""


def base(form: str, folder):
    """(a Wan MODEL, the numbers that it stands for), made in inference mode, where loader nodes run."""
    quantized_models.float_weights("wan")  # which are kept for other tests
    with torch.inference_mode() if form in foreign_weights.FORMS else contextlib.nullcontext():
        return base_model(folder, "wan", form)


def caption() -> list:
    return [normal(2, 1, TOKENS, TEXT), {"pooled_output": normal(3, 1, 24)}]


def gradients(train, model) -> tuple[torch.Tensor, torch.Tensor]:
    """(what the model predicts, the gradient of its loss for all of a network's factors)."""
    with train.model.loaded(model, train.options.RunOptions()) as flow:
        network = learned(train, flow, "lora")
        with network.attached(flow.model):
            x = flow.latent(normal(1, *LATENTS["wan"]))[None]
            velocity = flow.velocity(x, torch.tensor([0.6]), [caption()])
            (velocity - normal(4, *velocity.shape)).square().mean().backward()
        return velocity.detach(), torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


@pytest.mark.parametrize("form", EVERY)
def test_the_gradient_through_a_frozen_weight_is_that_of_its_numbers(form, tmp_path, train):
    model, numbers = base(form, tmp_path)
    with train.model.loaded(model, train.options.RunOptions(mixed_precision="no")) as flow:
        for path, (out, width) in quantized_models.linears("wan").items():
            x = normal(1, TOKENS, width).requires_grad_()
            y = flow.model.diffusion_model.get_submodule(path)(x)
            above = normal(2, TOKENS, out)
            (found,) = torch.autograd.grad(y, x, above.to(y.dtype))
            expected = above @ numbers[f"{path}.weight"]
            assert relative(found, expected) < (1e-2 if y.dtype == torch.bfloat16 else 1e-5), path


def of_kind(kind: str, path: str, out: int, width: int, seed: int) -> dict[str, torch.Tensor]:
    """One module's tensors of an algorithm that is computed from the weight."""
    if kind == "oft":
        return {f"{path}.oft_blocks": normal(seed, out // 16, 16, 16) / 30}
    magnitude = (out, 1) if kind == "dora-out" else (1, width)
    return {
        f"{path}.lora_up.weight": normal(seed, out, 4) / 20,
        f"{path}.lora_down.weight": normal(seed + 1, 4, width) / 4,
        f"{path}.dora_scale": 1 + normal(seed + 2, *magnitude) / 10,
    }


@pytest.mark.parametrize("form", ["fp8_scaled", "int8_convrot", "gguf_q8_0", "bf16"])
@pytest.mark.parametrize("kind", ["lokr", "dora-out", "dora-in", "oft"])
def test_adapters_that_act_beside_the_weights_are_part_of_the_model(kind, form, tmp_path, loras, host, train):
    """Also after the MODEL has sampled: a clone believes to be injected as its original is."""
    shapes = {path: shape for path, shape in quantized_models.linears("wan").items() if ".1.self_attn." in path}
    tensors = quantized_models.adapter("wan", "lokr")[0] if kind == "lokr" else {}
    for number, (path, shape) in enumerate(shapes.items() if kind != "lokr" else ()):
        tensors |= of_kind(kind, f"diffusion_model.{path}", *shape, seed=4 * number)
    save_file(tensors, loras / "a.safetensors")
    model, numbers = base(form, tmp_path)
    with torch.inference_mode():
        plain = quantized_models.reference("wan", numbers)
        beside = host.load_onto(model, None, "a.safetensors", 0.8, partial=False, mode="apply while sampling").model
        patched = host.load_onto(plain, None, "a.safetensors", 0.8, partial=False, mode="patch the weights").model
    sampled = predict("wan", beside)
    noise = relative(gradients(train, model)[0], gradients(train, plain)[0])
    right, expected = gradients(train, patched)
    output, found = gradients(train, beside)
    assert relative(output, right) < 1.5 * noise + 1e-3
    assert relative(found, expected) < 4 * noise + 1e-3
    assert relative(predict("wan", beside), sampled) < MOVED


@pytest.mark.parametrize("form", ["fp8_scaled", "int8_convrot"])
def test_stocks_bypass_is_part_of_the_model(form, tmp_path, train):
    import comfy.sd

    if not hasattr(comfy.sd, "load_bypass_lora_for_models"):
        pytest.skip("this ComfyUI has no bypass")
    tensors, _ = quantized_models.adapter("wan", "lora")
    model, numbers = base(form, tmp_path)
    with torch.inference_mode():
        plain = quantized_models.reference("wan", numbers)
        tensors = {key: tensor.clone() for key, tensor in tensors.items()}
        patched, _ = comfy.sd.load_lora_for_models(plain, None, tensors, 1.0, 0.0)
        beside, _ = comfy.sd.load_bypass_lora_for_models(model, None, tensors, 1.0, 0.0)
    sampled = predict("wan", beside)
    right, expected = gradients(train, patched)
    output, found = gradients(train, beside)
    assert relative(found, expected) < 4 * relative(output, right) + 1e-3
    assert relative(output, right) < 0.05
    assert relative(predict("wan", beside), sampled) < MOVED


def data(train):
    return train.run.Data([train.items.Item(normal(1, *LATENTS["wan"]), caption(), "latent 0")])


@pytest.mark.parametrize("form", ["fp8_scaled", "int8_convrot", "nvfp4_pre_quant", "gguf_q8_0", "int8_fast", "bf16"])
@pytest.mark.parametrize("algorithm", ["lokr", "loha"])
def test_the_saved_file_gives_what_was_trained(algorithm, form, tmp_path, loras, host, train):
    """By *Load LoHa/LoKr* and on *Train Adapter*'s own MODEL, which has it in the same way."""
    model, _ = base(form, tmp_path)
    settings = {"network_module": algorithm, "network_dim": 8, "max_train_steps": 3, "learning_rate": 3e-2}
    options = train.options.train_options(settings | {"save_precision": "fp32", "timestep_sampling": "uniform"})
    trained = []

    def velocity(flow) -> torch.Tensor:
        with torch.no_grad():
            return flow.velocity(normal(5, 1, *LATENTS["wan"]), torch.tensor([0.6]), [caption()])

    def tell(training, step, saved) -> None:
        if step.step == training.total_steps:
            training.network.eval()
            trained.append(velocity(training.model))

    with torch.inference_mode():
        done = train.run.train(model, data(train), options, str(loras), tell)
        placed = train.adapter_files.with_adapter(model, done.path)
        loaded = host.load_onto(model, None, "adapter.safetensors", 1.0, partial=False, mode="auto")
    beside = form != "bf16"
    assert placed.report.startswith("20 modules add it while sampling") == beside
    assert bool(placed.model.patches) != beside
    assert bool(loaded.model.patches) != beside
    with train.model.loaded(model, train.options.RunOptions()) as flow:
        before = velocity(flow)
    for one in (placed.model, loaded.model):
        with train.model.loaded(one, train.options.RunOptions()) as flow:
            found = velocity(flow)
        assert relative(found - before, trained[0] - before) < (0.05 if "int8" in form else 1e-5)
    assert torch.equal(predict("wan", placed.model), predict("wan", loaded.model))
