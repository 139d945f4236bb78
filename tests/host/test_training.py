"""Training on ComfyUI's own models, in process: gradients, what is learned, and the model that is left as it was."""

import importlib
from pathlib import Path

import pytest
import torch
from lyco_testing.comfy_models import MODELS, tiny_model
from lyco_testing.learned import learned
from torch import nn

NATIVE = [name for name in MODELS if name != "framepack"]
"""FramePack's own model is not in ComfyUI."""

CHANNELS = {"flux2": 128, "hunyuan_video_1_5": 32}
VIDEOS = ("wan", "hunyuan_video", "hunyuan_video_1_5", "qwen_image")
RUNNABLE = {
    "z_image": {"dim": 256, "axes_dims": [32, 48, 48]},
    "qwen_image": {"in_channels": 64},
    "flux2": {"in_channels": 128, "out_channels": 128},
    "hunyuan_video_1_5": {"in_channels": 65, "out_channels": 32, "patch_size": [1, 1, 1]},
}
"""The tiny models are made for their keys; these sizes let them compute."""


def model_of(architecture: str, monkeypatch: pytest.MonkeyPatch, **made: object):
    """A tiny model that computes, made in inference mode as loader nodes make it."""
    name, config = MODELS[architecture]
    monkeypatch.setitem(MODELS, architecture, (name, config | RUNNABLE.get(architecture, {})))
    with torch.inference_mode():
        return tiny_model(architecture, **made)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def caption(seed: int, tokens: int = 7) -> list:
    return [normal(seed, 1, tokens, 48), {"pooled_output": normal(seed + 1, 1, 24)}]


def latent(architecture: str, seed: int, size: int = 8) -> torch.Tensor:
    frames = (3,) if architecture in VIDEOS[:3] else ()
    return normal(seed, CHANNELS.get(architecture, 16), *frames, size, size)


def items(train, architecture: str, count: int = 2, **more: object) -> list:
    return [train.items.Item(latent(architecture, i), caption(10 * i), f"item {i}", **more) for i in range(count)]


def loss_of(flow, architecture: str, seeds: tuple[int, ...] = (0,)) -> torch.Tensor:
    latents = torch.stack([flow.latent(latent(architecture, seed)) for seed in seeds])
    noise = torch.stack([normal(50 + seed, *latents.shape[1:]) for seed in seeds])
    velocity = flow.velocity(
        0.4 * latents + 0.6 * noise, torch.full((len(seeds),), 0.6), [caption(10 * s) for s in seeds]
    )
    return (velocity - (noise - latents)).square().mean()


@pytest.mark.every_host
@pytest.mark.parametrize("architecture", NATIVE)
@pytest.mark.parametrize("algorithm", ["lokr", "loha"])
def test_gradients_are_those_of_finite_differences(architecture, algorithm, train, monkeypatch):
    """With checkpointing and without: FLUX's blocks change their inputs in place, which autograd may not notice."""
    model = model_of(architecture, monkeypatch)
    found: dict[bool, list[torch.Tensor]] = {}
    for checkpointing in (False, True):
        run = train.options.RunOptions(gradient_checkpointing=checkpointing)
        with train.model.loaded(model, run) as flow:
            network = learned(train, flow, algorithm)
            parameters = list(network.parameters())
            with network.attached(flow.model):
                grads = torch.autograd.grad(loss_of(flow, architecture), parameters, allow_unused=True)
                found[checkpointing] = [
                    torch.zeros_like(p) if g is None else g for g, p in zip(grads, parameters, strict=True)
                ]
                if checkpointing:
                    continue
                with torch.no_grad():
                    length = torch.sqrt(sum(g.square().sum() for g in found[False]))
                    values = []
                    for sign in (1, -2):
                        for parameter, gradient in zip(parameters, found[False], strict=True):
                            parameter.add_(gradient / length, alpha=sign * 3e-3)
                        values.append(float(loss_of(flow, architecture)))
            assert (values[0] - values[1]) / 6e-3 == pytest.approx(float(length), rel=0.02)
    for one, other in zip(found[False], found[True], strict=True):
        assert float((one - other).norm()) <= 1e-5 * float(torch.cat([g.flatten() for g in found[False]]).norm())


@pytest.mark.parametrize("architecture", NATIVE)
@pytest.mark.parametrize("algorithm", ["lokr", "loha", "lora"])
def test_trained_it_predicts_as_the_loaded_file_does(architecture, algorithm, train, monkeypatch, tmp_path):
    """What training computed with, and what *Load LoHa/LoKr*'s patches make of the file."""
    model = model_of(architecture, monkeypatch)
    before = {key: tensor.clone() for key, tensor in model.model.state_dict().items()}
    settings = {"network_module": algorithm, "network_dim": 4, "max_train_steps": 4, "learning_rate": 3e-2}
    options = train.options.train_options(settings | {"save_precision": "fp32", "timestep_sampling": "auto"})
    last: list[float] = []

    def tell(training, step, saved) -> None:
        if step.step == training.total_steps:
            training.network.eval()
            with torch.no_grad():
                last.append(float(loss_of(training.model, architecture)))

    with torch.inference_mode():
        data = train.run.Data(items(train, architecture))
        done = train.run.train(model, data, options, str(tmp_path), tell)
        patched = train.adapter_files.with_adapter(model, done.path).model
    run = train.options.RunOptions()
    losses = []
    for one in (patched, model):
        with train.model.loaded(one, run) as flow, torch.no_grad():
            losses.append(float(loss_of(flow, architecture)))
    assert losses[0] == pytest.approx(last[0], rel=1e-5)
    assert abs(losses[1] - last[0]) > 1e-3 * last[0]
    for key, tensor in model.model.state_dict().items():
        assert torch.equal(tensor, before[key]), key
    for module in model.model.modules():
        assert "forward" not in module.__dict__
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn], ids=["bf16", "fp8"])
@pytest.mark.parametrize("precision", ["bf16", "no", "auto"])
def test_narrow_base_weights_train_and_stay(dtype, precision, train, monkeypatch, tmp_path):
    import comfy.ops

    model = model_of("flux1", monkeypatch)
    model.model.diffusion_model.to(dtype)
    model.model.manual_cast_dtype = torch.float32
    assert isinstance(model.model.diffusion_model.img_in, comfy.ops.manual_cast.Linear)
    before = {key: tensor.clone() for key, tensor in model.model.state_dict().items()}
    tried: list[float] = []
    options = {"max_train_steps": 40, "learning_rate": 1e-2, "batch_size": 2, "mixed_precision": precision}
    options["validate_every_n_steps"] = 1
    with torch.inference_mode():
        train.run.train(
            model,
            train.run.Data(items(train, "flux1"), validation=items(train, "flux1")),
            train.options.train_options({"network_module": "lokr", "network_dim": 64} | options),
            str(tmp_path),
            lambda training, step, saved: tried.append(step.validation),
        )
    assert tried[-1] < 0.8 * tried[0]
    for key, tensor in model.model.state_dict().items():
        assert tensor.dtype == before[key].dtype
        assert torch.equal(tensor.view(torch.uint8), before[key].view(torch.uint8)), key


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_a_precision_is_told_to_all_that_goes_by_it(precision, dtype, train):
    """The scale of fp16's loss, how weights are read, the estimate and the metadata."""
    with torch.inference_mode():
        model = tiny_model("wan", torch.float32)
    with train.model.loaded(model, train.options.RunOptions(mixed_precision=precision)) as flow:
        assert flow.dtype == flow.model.manual_cast_dtype == dtype


def sane(model, inner: str, outer: str):
    """Weights such that the frozen model can pass on what it is given, as a trained one can."""
    torch.manual_seed(5)
    with torch.inference_mode():
        for name, parameter in model.model.diffusion_model.named_parameters():
            if parameter.dim() >= 2 and "norm" not in name:
                parameter.mul_(0.4)
        for name, gain in ((inner, 1.0), (outer, 1.5)):
            weight = model.model.diffusion_model.get_submodule(name).weight
            nn.init.orthogonal_(weight.view(weight.shape[0], -1), gain)
    return model


@pytest.mark.parametrize(
    ("architecture", "ends", "network"),
    [
        ("wan", ("patch_embedding", "head.head"), {"network_module": "loha", "network_dim": 32, "network_alpha": 32}),
        ("flux1", ("img_in", "final_layer.linear"), {"network_module": "lokr", "network_dim": 512, "factor": 1}),
    ],
)
def test_four_items_are_learned_by_heart(architecture, ends, network, train, monkeypatch, tmp_path):
    """The loss on fixed noise falls to a fifth."""
    model = sane(model_of(architecture, monkeypatch), *ends)
    own = model.model.process_latent_out
    shape = (16, 1, 4, 4) if architecture == "wan" else (16, 4, 4)
    four = [train.items.Item(own(normal(i, 1, *shape))[0], caption(10 * i), f"item {i}", 16) for i in range(4)]
    settings = {"batch_size": 64, "timestep_sampling": "uniform", "lr_scheduler": "cosine"}
    settings["gradient_checkpointing"] = False
    tried: list[float] = []
    for steps, rate in ((1, 0.0), (400, 5e-3)):
        settings |= {"max_train_steps": steps, "learning_rate": rate, "validate_every_n_steps": steps}
        options = train.options.train_options(settings | network | {"output_name": f"after {steps}"})
        with torch.inference_mode():
            done = train.run.train(
                model, train.run.Data(four, validation=four), options, str(tmp_path), lambda *_: None
            )
        tried.append(done.steps[-1].validation)
    assert tried[1] < tried[0] / 5, tried


def test_captions_of_other_lengths_go_one_by_one(train, monkeypatch):
    """Their mean is that of single items; padding would change it."""
    model = model_of("z_image", monkeypatch)
    entries = [caption(0), caption(10), caption(20, tokens=9), [*caption(0)[:1], {"attention_mask": torch.ones(1, 7)}]]
    with train.model.loaded(model, train.options.RunOptions()) as flow, torch.no_grad():
        assert flow.groups(entries) == [[0, 1], [2], [3]]
        together = loss_of(flow, "z_image", (0, 1))
        apart = [loss_of(flow, "z_image", (seed,)) for seed in (0, 1)]
    assert float(together) == pytest.approx(float(sum(apart)) / 2, rel=1e-5)


def test_a_sampler_s_conditioning_is_refused(train, monkeypatch, tmp_path):
    model = model_of("wan", monkeypatch)
    entry = caption(0)
    entry[1]["area"] = (1, 2, 3, 4)
    data = train.run.Data([train.items.Item(latent("wan", 0), entry, "latent 0")])
    with pytest.raises(train.errors.TrainError, match="latent 0: its conditioning holds area, which only a sampler"):
        train.run.train(model, data, train.options.train_options({}), str(tmp_path), lambda *_: None)


def test_sizes_train_in_batches_of_their_own(train, monkeypatch, tmp_path):
    model = model_of("flux1", monkeypatch)
    some = [train.items.Item(latent("flux1", i, size), caption(i), f"{i}") for i, size in enumerate((8, 8, 12))]
    options = train.options.train_options({"max_train_steps": 4, "batch_size": 2, "network_module": "lokr"})
    assert (
        "4 steps, 3 items"
        in train.run.train(model, train.run.Data(some), options, str(tmp_path), lambda *_: None).report
    )


def test_memory_that_runs_out_is_told_and_what_was_trained_is_saved(train, monkeypatch, tmp_path):
    """The limit is real: an allocation that no machine has, in the third step."""
    model = model_of("wan", monkeypatch)

    def tell(training, step, saved) -> None:
        if step.step == 2:
            torch.empty(2**60, dtype=torch.uint8)

    data = train.run.Data(items(train, "wan"))
    with pytest.raises(
        train.errors.TrainError, match=r"out of memory in step 3 .saved adapter-step00000002.*batch_size"
    ):
        train.run.train(model, data, train.options.train_options({"network_module": "lokr"}), str(tmp_path), tell)
    assert sorted(p.name for p in Path(tmp_path).iterdir()) == [
        "adapter-step00000002-state.pt",
        "adapter-step00000002.safetensors",
        "adapter.jsonl",
    ]


def test_going_on_from_a_file_of_another_layout(train, monkeypatch, tmp_path, host):
    """What Musubi saved, renamed for ComfyUI: fused rows are cut again, and the first loss is the trained one."""
    from lyco_core.conversion import ConvertOptions, convert_file

    model = model_of("z_image", monkeypatch)
    settings = {"network_module": "lora", "max_train_steps": 6, "learning_rate": 3e-2, "save_precision": "fp32"}
    data = train.run.Data(items(train, "z_image"))
    with torch.inference_mode():
        first = train.run.train(model, data, train.options.train_options(settings), str(tmp_path), lambda *_: None)
        renamed = tmp_path / "renamed.safetensors"
        convert_file(first.path, renamed, ConvertOptions("comfyui"))
        again = {"network_weights": str(renamed), "output_name": "more", "learning_rate": 0.0, "max_train_steps": 1}
        second = train.run.train(
            model, data, train.options.train_options(settings | again), str(tmp_path), lambda *_: None
        )
    losses = []
    for path in (first.path, second.path):
        with (
            train.model.loaded(train.adapter_files.with_adapter(model, path).model, train.options.RunOptions()) as flow,
            torch.no_grad(),
        ):
            losses.append(float(loss_of(flow, "z_image")))
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_the_picture(pack, train):
    picture = importlib.import_module(f"{pack.__name__}.nodes.host.training.picture")
    loop = importlib.import_module(f"{pack.__name__}.lyco_core.train.loop")
    steps = [loop.Step(i, 1 / i, 1e-4, 1.0, 0.5 / i if i % 5 == 0 else None) for i in range(1, 40)]
    for count in (1, 2, 39):
        image = picture.loss_picture(steps[:count])
        assert image.shape == (1, 480, 960, 3)
        assert 0 <= float(image.min()) < float(image.max()) <= 1


def test_the_mean_is_of_the_last_hundred_steps(pack, train):
    means = importlib.import_module(f"{pack.__name__}.nodes.host.training.means")
    losses = [float(n) for n in range(250)]
    assert means.means(losses)[:3] == [0.0, 0.5, 1.0]
    assert means.means(losses)[-1] == means.recent(losses).value == sum(range(150, 250)) / 100
    assert means.mean_line(means.recent(losses)) == "loss 199.5000 (mean of the last 100 steps)"
    assert means.mean_line(means.recent([2.0])) == "loss 2.0000"
