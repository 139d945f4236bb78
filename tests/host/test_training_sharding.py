"""ComfyUI's models with their blocks divided over processes: of one process here, which exchanges with itself.

`test_headless_training.py` has two.
"""

import importlib

import pytest
import torch
import torch.distributed as dist
from lyco_testing.comfy_models import MODELS, tiny_model
from lyco_testing.foreign_weights import base_model
from lyco_testing.learned import learned
from lyco_testing.quantized_models import LATENTS, TEXT, TOKENS, normal

pytestmark = pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo")

SHAPES = {
    "flux1": (16, 32, 32),
    "hunyuan_video": (16, 3, 24, 24),
    "qwen_image": (16, 1, 32, 32),
    "wan": (16, 3, 24, 24),
    "z_image": LATENTS["z_image"],
}
FORMS = ("float32", "fp8_raw", "fp8_scaled", "nvfp4", "int8_convrot", "gguf_q8_0", "int8_fast_row")


@pytest.fixture
def world(pack):
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield importlib.import_module(f"{pack.__name__}.lyco_core.train.distributed").World()
    dist.destroy_process_group()


def gradients(train, model, family: str, world=None, *, checkpointing: bool = True, **memory: object):
    """Of two passes and one that only tries; whether the blocks are divided; what a step is said to need."""
    told, found = [], []
    options = train.memory_options.MemoryOptions(shard_blocks=world is not None, **{"blocks_to_swap": 0, **memory})
    run = train.options.RunOptions(gradient_checkpointing=checkpointing)
    caption = [normal(3, 1, TOKENS, TEXT), {"pooled_output": normal(4, 1, 24)}]
    with train.model.loaded(model, run, options, tell=told.append, world=world) as flow:
        network = learned(train, flow, "lokr")
        x, t = flow.latent(normal(1, *SHAPES[family]))[None], torch.full((1,), 0.6)

        def one_pass(*, backward: bool = True) -> None:
            with flow.shard.one_pass(backward=backward) if flow.shard else torch.set_grad_enabled(True):
                loss = flow.velocity(x, t, [caption]).square().mean()
                found.append(loss.detach())
                if backward:
                    found.extend(torch.autograd.grad(loss, list(network.parameters()), allow_unused=True))

        with network.attached(flow.model):
            one_pass()
            one_pass(backward=False)
            one_pass()
        kept = flow.shard.kept + flow.shard.size if flow.shard else 0
    return [tensor for tensor in found if tensor is not None], kept, told[0]


def same(one, other) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def bits(train, model) -> list[torch.Tensor]:
    """Every byte of the model's weights, whatever class they are of."""
    parts = [part for tensor in model.model.parameters() for part in train.swapped_block.stored_parts(tensor)[0]]
    return [part.clone().flatten().view(torch.uint8) for part in parts]


@pytest.mark.parametrize("family", SHAPES)
def test_each_familys_blocks_compute_in_the_order_that_is_exchanged(family, train, world, tmp_path):
    """Or it is refused; with checkpointing and without."""
    model, _ = base_model(tmp_path, family, "bf16")
    for checkpointing in (True, False):
        expected, *_ = gradients(train, model, family, checkpointing=checkpointing)
        found, kept, _ = gradients(train, model, family, world, checkpointing=checkpointing)
        assert kept
        assert same(found, expected)


@pytest.mark.parametrize("form", FORMS)
def test_whatever_the_weights_are_stored_as(form, train, world, tmp_path):
    """Their bytes are divided, whoever's class they are of; and the model is as it was."""
    model, _ = base_model(tmp_path, "z_image", form)
    before = bits(train, model)
    expected, *_ = gradients(train, model, "z_image")
    found, kept, _ = gradients(train, model, "z_image", world)
    assert kept
    assert same(found, expected)
    assert all(torch.equal(one, other) for one, other in zip(before, bits(train, model), strict=True))
    assert all("forward" not in vars(module) for module in model.model.modules())


@pytest.mark.parametrize("memory", [{}, {"fp8_scaled": True}])
def test_the_estimate_has_what_a_process_keeps(memory, train, world, monkeypatch):
    name, config = MODELS["wan"]
    monkeypatch.setitem(MODELS, "wan", (name, config | {"num_layers": 6}))
    with torch.inference_mode():
        model = tiny_model("wan", torch.bfloat16)
    options = train.memory_options.MemoryOptions(shard_blocks=True, **memory)
    told = []
    with train.model.loaded(model, train.options.RunOptions(), options, tell=told.append, world=world) as flow:
        divided = flow.shard._rank_of
        there = sum(t.nbytes for m in flow.model.modules() if m not in divided for t in m.parameters(recurse=False))
        there += sum(m.bias.nbytes for m in divided) + sum(buffer.nbytes for buffer in flow.model.buffers())
        functions = [f for m in flow.model.modules() for f in getattr(m, "weight_function", ())]
        scales = sum(function.scale.nbytes for function in functions)
        there += scales + flow.shard.kept + flow.shard.size
    assert len(divided) == 60
    between = 256 * 10 * (6 + 2)  # the tensors of a block, which are kept, and come to two buffers
    assert there - between <= told[0].weights <= there + scales * 2 / 6  # which need no room in the buffers
    family = train.architectures.ARCHITECTURES["wan"].training
    whole, half = (
        train.placing.Plan(model.model, family, options, train.demand.Demand(), shared).estimate(0, torch.bfloat16)
        for shared in (world, type(world)(0, 2))
    )
    assert whole.weights == told[0].weights
    stored = {"fp8_scaled": 1}.get(next(iter(memory), ""), 2) * sum(m.weight.numel() for m in divided)
    assert whole.weights - half.weights == pytest.approx(stored / 2, rel=0.06)  # a scale a row is 4 bytes
    assert half.line().endswith("; the blocks are divided over 2 processes")
    assert (half.swapped, half.blocks) == (0, 6)


class Stateful(torch.Tensor):
    """A class of weights that keeps a tensor beside its numbers where nobody looks."""


def test_a_class_that_nobody_knows_stays_whole(train, world, tmp_path):
    """Its estimate counts what it tells of itself; it is refused where it would have to move in pieces."""
    model, _ = base_model(tmp_path, "z_image", "float32")
    family = train.architectures.ARCHITECTURES["z_image"].training
    options = train.memory_options.MemoryOptions(blocks_to_swap=0)

    def weights() -> int:
        return (
            train.placing.Plan(model.model, family, options, train.demand.Demand()).estimate(0, torch.float32).weights
        )

    expected = weights()
    module = model.model.diffusion_model.layers[0].attention.qkv
    with torch.inference_mode(False):
        module.weight = torch.nn.Parameter(module.weight.detach().clone().as_subclass(Stateful), requires_grad=False)
    module.weight.state = torch.ones(2)
    assert weights() == expected
    for memory, group in (({"blocks_to_swap": 4}, None), ({}, world)):
        with pytest.raises(
            train.errors.TrainError, match=r"class Stateful hold more .*swap to 0, without shard_blocks"
        ):
            gradients(train, model, "z_image", group, **memory)
