"""Training in less memory than the model takes: the same numbers, from weights that come and go; and smaller ones."""

import importlib

import pytest
import torch
from lyco_testing.comfy_models import MODELS, tiny_model
from lyco_testing.foreign_weights import base_model
from lyco_testing.learned import learned
from lyco_testing.quantized_models import LATENTS, TEXT, TOKENS, normal
from safetensors.torch import load_file, save_file

FAMILY = "z_image"
"""Of three lists of blocks, four blocks in all: with two buffers, two have to go."""

FORMS = ("bf16", "fp8_raw", "fp8_scaled", "nvfp4", "int8_convrot", "gguf_f16", "gguf_q8_0", "int8_fast_row")
"""Plain weights, ComfyUI's own class of quantized ones with its scales, a pack's class, codes with a buffer."""


def data(train, family: str = FAMILY, latent: tuple[int, ...] = ()):
    shape = latent or LATENTS[family]
    some = [train.items.Item(normal(i, *shape), [normal(9 + i, 1, TOKENS, TEXT), {}], f"item {i}") for i in range(2)]
    return train.run.Data(some)


def trained(train, model, folder, needs=lambda _: None, **settings: object):
    """(losses, the adapter's numbers in float32) after some steps."""
    asked = {"network_module": "lokr", "network_dim": 4, "max_train_steps": 3, "learning_rate": 1e-2}
    options = train.options.train_options({**asked, "save_precision": "fp32", **settings})
    with torch.inference_mode():
        done = train.run.train(model, data(train), options, str(folder), lambda *_: None, needs=needs)
    return [step.loss for step in done.steps], load_file(done.path)


def same(one, other) -> bool:
    (losses, numbers), (losses2, numbers2) = one, other
    return losses == losses2 and all(torch.equal(numbers[key], numbers2[key]) for key in numbers.keys() | numbers2)


def bits(train, model) -> list[torch.Tensor]:
    """Every byte of the model's weights, whatever class they are of."""
    parts = [part for tensor in model.model.parameters() for part in train.swapped_block.stored_parts(tensor)[0]]
    return [part.clone().flatten().view(torch.uint8) for part in parts]


def plan_of(train, model, **memory: object):
    options = train.memory_options.MemoryOptions(**memory)
    family = train.architectures.ARCHITECTURES[FAMILY].training
    return train.placing.Plan(model.model, family, options, train.demand.Demand(tokens=500))


@pytest.mark.parametrize("form", FORMS)
def test_swapped_it_learns_the_same_bit_for_bit(form, train, tmp_path):
    """Whatever the weights are stored as; and the model is as it was."""
    model, _ = base_model(tmp_path, FAMILY, form)
    before = bits(train, model)
    kept, told = {"gradient_checkpointing": False}, []
    whole = trained(train, model, tmp_path / "whole", blocks_to_swap=0)
    whole_kept = trained(train, model, tmp_path / "whole, kept", blocks_to_swap=0, **kept)
    for expected, count, more in (
        (whole, 4, {}),
        (whole, 2, {"gradient_checkpointing_cpu_offload": True}),
        (whole_kept, 4, kept),
    ):
        found = trained(train, model, tmp_path / str(len(told)), told.append, blocks_to_swap=count, **more)
        assert same(found, expected), (count, more)
    assert [(needs.swapped, needs.blocks) for needs in told] == [(4, 4), (2, 4), (4, 4)]
    after = bits(train, model)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert all("forward" not in vars(module) for module in model.model.modules())


def test_an_adapter_of_the_base_counts_as_before(train, pack, tmp_path):
    """What is patched into the weights is there whether they are swapped or not, and gone afterwards."""
    model, _ = base_model(tmp_path, FAMILY, "bf16")
    whole = trained(train, model, tmp_path / "first", blocks_to_swap=0)
    save_file({key: tensor * 30 for key, tensor in whole[1].items()}, tmp_path / "adapter.safetensors")
    patched = model.clone()
    weight = "diffusion_model.layers.0.attention.qkv.weight"
    patched.add_patches({weight: ("diff", (normal(5, *model.model.state_dict()[weight].shape),))})
    before = bits(train, model)
    expected = trained(train, patched, tmp_path / "patched", blocks_to_swap=0)
    assert not same(expected, whole)
    assert same(trained(train, patched, tmp_path / "patched and swapped", blocks_to_swap=4), expected)
    assert all(torch.equal(one, other) for one, other in zip(before, bits(train, model), strict=True))


def test_where_there_is_a_gpu_it_is_unloaded_too(train, tmp_path, monkeypatch):
    """There ComfyUI has it down as loaded into the computer's memory, and takes off only what is on its devices."""
    import comfy.model_management as management

    model, _ = base_model(tmp_path, FAMILY, "bf16")
    weight = "diffusion_model.layers.0.attention.qkv.weight"
    model.add_patches({weight: ("diff", (normal(5, *model.model.state_dict()[weight].shape),))})
    management.unload_all_models()
    before = bits(train, model)
    monkeypatch.setattr(management, "unload_all_models", lambda: None)
    trained(train, model, tmp_path / "swapped", blocks_to_swap=4)
    assert not management.current_loaded_models
    assert all(torch.equal(one, other) for one, other in zip(before, bits(train, model), strict=True))


@pytest.mark.parametrize("scaled", [True, False])
def test_float8_is_the_model_rounded_beforehand(scaled, train, tmp_path):
    """The same as a training on a model whose weights are those numbers; swapped as well."""
    model, _ = base_model(tmp_path, FAMILY, "float32")
    rounded, _ = base_model(tmp_path, FAMILY, "float32")
    plan = plan_of(train, model, fp8_base=True)
    assert len(plan.rounded) == 4 * 5
    with torch.inference_mode(False):
        for name, module in plan.rounded:
            weight = module.weight.detach().float()
            scale = weight.abs().amax(1, keepdim=True) / 448 if scaled else torch.ones(())
            value = (weight / scale).to(torch.float8_e4m3fn).float() * scale
            rounded.model.get_submodule(name).weight.data = value
    option = {"fp8_scaled" if scaled else "fp8_base": True}
    before = bits(train, model)
    expected = trained(train, rounded, tmp_path / "rounded", blocks_to_swap=0)
    plain = trained(train, model, tmp_path / "plain", blocks_to_swap=0)
    told = []
    found = trained(train, model, tmp_path / "float8", told.append, blocks_to_swap=0, **option)
    assert same(found, expected)
    assert not same(found, plain)
    assert same(trained(train, model, tmp_path / "swapped", told.append, blocks_to_swap=4, **option), expected)
    assert told[1].weights < told[0].weights
    assert all(torch.equal(one, other) for one, other in zip(before, bits(train, model), strict=True))


@pytest.mark.parametrize("checkpointed", [True, False])
@pytest.mark.parametrize("memory", [{}, {"fp8_scaled": True}])
def test_a_weight_that_a_loha_is_summed_with_comes_too(memory, checkpointed, train, tmp_path, monkeypatch):
    """The backward pass sums once more, with the same numbers and the same rounding."""
    trainable = train.model.__name__.split(".nodes.")[0] + ".lyco_core.train.trainable"
    part, ways = (importlib.import_module(f"{trainable}.{name}") for name in ("loha", "summed"))
    monkeypatch.setattr(part, "cheapest", lambda *_: ways.Way(True, False))
    own, summed = part.summed_linear, []
    monkeypatch.setattr(part, "summed_linear", lambda *args: summed.append(True) or own(*args))
    model, _ = base_model(tmp_path, FAMILY, "bf16")
    settings = {"network_module": "loha", "gradient_checkpointing": checkpointed, **memory}
    expected = trained(train, model, tmp_path / "whole", blocks_to_swap=0, **settings)
    assert same(trained(train, model, tmp_path / "swapped", blocks_to_swap=4, **settings), expected)
    assert len(summed) >= 2 * 3 * 2 * 4  # trainings, steps, layers, and of each the Linears that are not fused
    monkeypatch.setattr(part, "cheapest", lambda *_: ways.Way(False, False))
    assert not same(trained(train, model, tmp_path / "beside", blocks_to_swap=4, **settings), expected)


def test_what_cannot_be_swapped_or_rounded(train, tmp_path):
    model, _ = base_model(tmp_path, FAMILY, "fp8_raw")
    with pytest.raises(train.errors.TrainError, match=r"the model's blocks are quantized already"):
        trained(train, model, tmp_path, fp8_scaled=True)
    with pytest.raises(
        train.errors.TrainError, match=r"blocks_to_swap is 5, and the model has 4 blocks .*set .*to auto"
    ):
        trained(train, model, tmp_path, blocks_to_swap=5)
    with pytest.raises(train.errors.TrainError, match=r"blocks_to_swap is 'some', expected auto or a whole number"):
        trained(train, model, tmp_path, blocks_to_swap="some")
    model, _ = base_model(tmp_path, FAMILY, "float32")
    with torch.inference_mode():
        model.model.diffusion_model.layers[0].attention.qkv.weight[3, 3] = 500.0
    with pytest.raises(train.errors.TrainError, match=r"layers.0.attention.qkv: has numbers above 448.*set fp8_scaled"):
        trained(train, model, tmp_path, fp8_base=True)
    assert not list(tmp_path.glob("adapter*"))
    trained(train, model, tmp_path, fp8_scaled=True)


@pytest.mark.parametrize(("count", "memory"), [(0, {}), (5, {}), (3, {"fp8_scaled": True}), (6, {"fp8_base": True})])
def test_the_estimate_has_every_byte_of_the_weights(count, memory, train, monkeypatch):
    """What is not swapped, and the buffers, as they are once the model is loaded."""
    name, config = MODELS["wan"]
    monkeypatch.setitem(MODELS, "wan", (name, config | {"num_layers": 6}))
    with torch.inference_mode():
        model = tiny_model("wan", torch.bfloat16)
    told = []
    options = train.memory_options.MemoryOptions(blocks_to_swap=count, **memory)
    with train.model.loaded(model, train.options.RunOptions(), options, tell=told.append) as flow:
        swapped = flow.swap._rank_of if flow.swap else {}
        there = sum(t.nbytes for m in flow.model.modules() if m not in swapped for t in m.parameters(recurse=False))
        there += sum(buffer.nbytes for buffer in flow.model.buffers())
        there += sum(m.bias.nbytes for m in swapped) + (flow.swap.size if flow.swap else 0)
        scales = [f for m in flow.model.modules() for f in getattr(m, "weight_function", ())]
        there += sum(function.scale.nbytes for function in scales)
        assert len(swapped) == 10 * count
        assert len(scales) == (60 if "fp8_scaled" in memory else 0)
    buffers = 256 * 20 * bool(count)  # between the tensors of one
    assert there - buffers <= told[0].weights <= there


@pytest.mark.parametrize("kind", ["adamw", "adafactor", "torch.optim.Adam"])
@pytest.mark.parametrize("algorithm", ["lokr", "loha", "lora"])
def test_the_estimate_has_every_byte_of_the_adapter(kind, algorithm, train, tmp_path):
    model, _ = base_model(tmp_path, FAMILY, "bf16")
    told, seen = [], []

    def tell(training, step, saved) -> None:
        network, state = training.network, training.optimizer.state
        tensors = [t for values in state.values() for t in values.values() if isinstance(t, torch.Tensor) and t.dim()]
        average = training.average.values.values()
        parameters = list(network.parameters())
        seen.append([sum(t.nbytes for t in some) for some in ([*parameters, *average], parameters, tensors)])

    asked = {"network_module": algorithm, "network_dim": 4, "max_train_steps": 1, "ema_decay": 0.9}
    options = train.options.train_options({**asked, "optimizer_type": kind})
    train.run.train(model, data(train), options, str(tmp_path), tell, needs=told.append)
    parts = told[0].parts()
    assert [parts["adapter"], parts["gradients"]] == seen[0][:2]
    assert parts["optimizer"] == pytest.approx(seen[0][2], rel=1e-9)


def test_auto_swaps_as_much_as_it_needs(train, monkeypatch, tmp_path):
    """None where all fits, as many as the estimate says elsewhere, all of them where nothing would do."""
    model, _ = base_model(tmp_path, FAMILY, "float32")
    plan = plan_of(train, model)
    totals = [int(plan.estimate(count, torch.float32).total * 1.05) + 1 for count in range(5)]
    assert totals[0] > totals[3] > totals[4]
    assert [plan.count(torch.float32, free) for free in (totals[0], totals[0] - 2, totals[3])] == [0, 3, 3]
    assert len(plan.swapped(plan.count(torch.float32, 0))) == 4


SHAPES = {
    "flux1": (16, 32, 32),
    "hunyuan_video": (16, 3, 24, 24),
    "qwen_image": (16, 1, 32, 32),
    "wan": (16, 3, 24, 24),
    "z_image": (16, 32, 32),
}


@pytest.mark.parametrize("family", SHAPES)
def test_the_estimate_of_activations_is_near_what_autograd_keeps(family, train, tmp_path):
    """Of one block, whose inputs are real; without a copy of the weights."""
    model, _ = base_model(tmp_path, family, "bf16")
    run = train.options.RunOptions(gradient_checkpointing=False, mixed_precision="bf16")
    caption = [normal(3, 1, TOKENS, TEXT), {"pooled_output": normal(4, 1, 24)}]
    item = train.items.Item(normal(1, *SHAPES[family]), caption, "item")
    with train.model.loaded(model, run) as flow:
        network = learned(train, flow, "lokr")
        block = list(train.linears.blocks_of(flow.model, train.architectures.ARCHITECTURES[family].training))[-1]
        weights = {tensor.data_ptr() for some in (flow.model, network) for tensor in some.parameters()}
        kept: dict[int, int] = {}
        inside: list[bool] = []
        block.register_forward_pre_hook(lambda *_: inside.append(True))
        block.register_forward_hook(lambda *_: inside.clear())

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            if inside and tensor.data_ptr() not in weights:
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with hooks, network.attached(flow.model):
            flow.velocity(flow.latent(item.latent)[None], torch.full((1,), 0.6), [caption])
        tokens = train.demand._tokens(item, train.demand._patch(flow.model))
    assert 20 < sum(kept.values()) / (tokens * 256 * 2) < 37
