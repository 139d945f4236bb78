"""Wan 2.2's two models: one adapter over both, each trained at its own timesteps, wherever the idle one is."""

import json

import pytest
import torch
from lyco_testing.comfy_models import MODELS, tiny_model
from lyco_testing.foreign_weights import base_model
from lyco_testing.quantized_models import LATENTS, TEXT, TOKENS, normal
from safetensors import safe_open
from safetensors.torch import load_file

FORMS = ("bf16", "fp8_scaled", "nvfp4", "int8_convrot", "gguf_q8_0", "int8_fast_row")
WEIGHT = "diffusion_model.blocks.0.self_attn.q.weight"
UNIFORM = {"timestep_sampling": "uniform", "timestep_boundary": 500}
"""So that half of the steps are on each side."""


def data(train, count: int = 2):
    shape = LATENTS["wan"]
    some = [
        train.items.Item(normal(i, *shape), [normal(9 + i, 1, TOKENS, TEXT), {}], f"item {i}") for i in range(count)
    ]
    return train.run.Data(some)


def trained(train, model, folder, high=None, tell=lambda *_: None, needs=lambda _: None, **settings: object):
    """(losses, the adapter's numbers in float32) after some steps."""
    asked = {"network_module": "lokr", "network_dim": 4, "max_train_steps": 4, "learning_rate": 1e-2, **UNIFORM}
    options = train.options.train_options({**asked, "save_precision": "fp32", **settings})
    with torch.inference_mode():
        done = train.run.train(model, data(train), options, str(folder), tell, needs=needs, high=high)
    return [step.loss for step in done.steps], load_file(done.path)


def same(one, other) -> bool:
    (losses, numbers), (losses2, numbers2) = one, other
    return losses == losses2 and all(torch.equal(numbers[key], numbers2[key]) for key in numbers.keys() | numbers2)


def other_model(folder, form: str = "bf16", scale: float = 1.0):
    """A model like that of `base_model`, but for a patch."""
    model, _ = base_model(folder, "wan", form)
    if scale:
        model.add_patches({WEIGHT: ("diff", (scale * normal(5, *model.model.state_dict()[WEIGHT].shape),))})
    return model


def bits(train, model) -> list[torch.Tensor]:
    """Every byte of the model's weights, whatever class they are of."""
    parts = [part for tensor in model.model.parameters() for part in train.swapped_block.stored_parts(tensor)[0]]
    return [part.clone().flatten().view(torch.uint8) for part in parts]


WAYS = (
    {"blocks_to_swap": 0},
    {"offload_inactive_dit": True},
    {"offload_inactive_dit": True, "blocks_to_swap": 2},
    {"blocks_to_swap": 2, "gradient_checkpointing_cpu_offload": True},
)


@pytest.mark.parametrize("form", FORMS)
def test_one_model_twice_is_one_model_bit_for_bit(form, train, tmp_path):
    """Whatever the weights are stored as and wherever they are; and both are as they were."""
    low, _ = base_model(tmp_path, "wan", form)
    high, _ = base_model(tmp_path, "wan", form)
    before = [bits(train, model) for model in (low, high)]
    expected = trained(train, low, tmp_path / "one", blocks_to_swap=0)
    told = []
    for number, way in enumerate(WAYS):
        found = trained(train, low, tmp_path / f"two {number}", high, needs=told.append, **way)
        assert same(found, expected), way
    assert [(estimate.models, estimate.waiting) for estimate in told[:3]] == [(2, False), (2, True), (2, True)]
    for model, parts in zip((low, high), before, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(parts, bits(train, model), strict=True))
        assert all("forward" not in vars(module) for module in model.model.modules())


@pytest.mark.parametrize("memory", [*WAYS, {"fp8_scaled": True, "offload_inactive_dit": True}])
def test_each_side_has_its_own_model(memory, train, tmp_path):
    """A step is that of the one model that has its timestep, and in turn both learn the same adapter."""
    low, high = other_model(tmp_path, scale=0), other_model(tmp_path)
    fp8 = {"fp8_scaled": memory.get("fp8_scaled", False)}
    sides = set()
    for seed in range(6):
        alone = [
            trained(train, model, tmp_path / f"{seed} {i}", seed=seed, max_train_steps=1, **fp8)
            for i, model in enumerate((low, high))
        ]
        both = trained(train, low, tmp_path / f"{seed} both", high, seed=seed, max_train_steps=1, **memory)
        assert not same(*alone)
        noise = train.options.train_options({**UNIFORM, "seed": seed})
        sides.add(side := bool(train.draws.draw(noise, 0, 1, torch.Size(LATENTS["wan"])).t[0] >= 0.5))
        assert same(both, alone[side])
    assert sides == {False, True}


@pytest.mark.parametrize("offload", [True, False])
def test_with_more_blocks_than_there_are_buffers(offload, train, tmp_path, monkeypatch):
    """A block that is half way to the device when the other model's turn comes."""
    name, config = MODELS["wan"]
    monkeypatch.setitem(MODELS, "wan", (name, config | {"num_layers": 5}))
    with torch.inference_mode():
        low, high = tiny_model("wan", torch.bfloat16), tiny_model("wan", torch.bfloat16)
    high.add_patches({WEIGHT: ("diff", (normal(5, *high.model.state_dict()[WEIGHT].shape),))})
    settings = {"max_train_steps": 8, "network_args": ["module_dropout=0.5"]}
    expected = trained(train, low, tmp_path / "whole", high, blocks_to_swap=0, **settings)
    found = trained(train, low, tmp_path / "parts", high, blocks_to_swap=4, offload_inactive_dit=offload, **settings)
    assert same(found, expected)
    assert not same(trained(train, low, tmp_path / "low", blocks_to_swap=0, **settings), expected)


def test_the_one_that_waits_has_nothing_on_the_device(train, tmp_path):
    """Its weights are those of the computer's memory; the other's are copies."""
    low, high = other_model(tmp_path, scale=0), other_model(tmp_path)
    turns = []

    def tell(training, step, saved) -> None:
        pair = training.model
        turns.append(pair._now)
        for index, (idle, flow) in enumerate(zip(pair._idle, pair._flows, strict=True)):
            copies = {getattr(m, name).data_ptr() != own.data_ptr() for m, name, own in idle._held if own.numel()}
            assert copies == {index == pair._now}
            assert (flow.swap.size > 0) == (index == pair._now)
            every = [*flow.model.parameters(), *flow.model.buffers()]
            assert len(idle._held) + len(flow.swap._rank_of) == len(every)

    settings = {"offload_inactive_dit": True, "blocks_to_swap": 1, "max_train_steps": 8}
    trained(train, low, tmp_path / "waiting", high, tell, **settings)
    assert {0, 1} == set(turns)


def test_two_precisions_are_refused(train, tmp_path):
    with torch.inference_mode():
        low, high = tiny_model("wan", torch.float32), tiny_model("wan", torch.bfloat16)
    with pytest.raises(train.errors.TrainError, match=r"low noise computes in float32, .* high noise in bfloat16; set"):
        trained(train, low, tmp_path, high)
    trained(train, low, tmp_path, high, mixed_precision="bf16")


def test_resumed_it_is_the_same(train, tmp_path):
    low, high = other_model(tmp_path, scale=0), other_model(tmp_path)
    whole = trained(train, low, tmp_path / "whole", high, max_train_steps=6, gradient_accumulation_steps=2)
    settings = {"gradient_accumulation_steps": 2, "max_train_steps": 6}
    trained(train, low, tmp_path / "parts", high, save_state=True, save_every_n_steps=3, **settings)
    state = str(tmp_path / "parts" / "adapter-step00000003-state.pt")
    found = trained(train, low, tmp_path / "parts", high, resume=state, offload_inactive_dit=True, **settings)
    assert found[0] == whole[0][3:]
    assert same((whole[0], found[1]), whole)
    with pytest.raises(train.errors.TrainError, match="timestep_boundary changed since it was saved"):
        trained(train, low, tmp_path / "parts", resume=state, **settings)


def test_the_file_and_the_estimate_tell_it(train, tmp_path):
    low, high = other_model(tmp_path, scale=0), other_model(tmp_path)
    told = []
    trained(train, low, tmp_path / "one", needs=told.append)
    trained(train, low, tmp_path / "two", high, needs=told.append, timestep_boundary=0)
    trained(train, low, tmp_path / "waiting", high, needs=told.append, offload_inactive_dit=True)
    assert told[1].weights == 2 * told[0].weights
    assert told[1].line().endswith("; both models are there")
    assert told[2].weights == told[0].weights
    assert told[2].line().endswith("; the model that does not compute waits in the computer's memory")
    with safe_open(tmp_path / "two" / "adapter.safetensors", "pt") as file:
        assert file.metadata()["ss_timestep_boundary"] == "875.0"
    with safe_open(tmp_path / "one" / "adapter.safetensors", "pt") as file:
        assert "ss_timestep_boundary" not in file.metadata()
        assert json.loads(file.metadata()["ss_datasets"]) == []


def test_what_is_no_pair(train, tmp_path):
    low, high = other_model(tmp_path, scale=0), other_model(tmp_path)
    TrainError = train.errors.TrainError
    with pytest.raises(TrainError, match="the model for high noise is the same as the other one"):
        trained(train, low, tmp_path, low.clone())
    z_image, _ = base_model(tmp_path, "z_image", "bf16")
    with pytest.raises(TrainError, match="the model for high noise is Z-Image, the other is Wan"):
        trained(train, low, tmp_path, z_image)
    with pytest.raises(TrainError, match=r"two models are what Wan 2\.2 has, and this is Z-Image"):
        trained(train, z_image, tmp_path, z_image.clone())
    with pytest.raises(TrainError, match="so that the model for high noise would never be trained"):
        trained(train, low, tmp_path, high, max_timestep=400)
    with pytest.raises(TrainError, match="shard_blocks leaves each process only its part of both models"):
        trained(train, low, tmp_path, high, shard_blocks=True, offload_inactive_dit=True)
    assert not list(tmp_path.glob("adapter*"))
