"""Samples while it trains: ComfyUI's sampler on the model that trains, which goes on as if nothing had been sampled."""

import copy
import errno
import json
import os

import pytest
import torch
from lyco_testing.quantized_models import normal
from lyco_testing.sampled_trainings import LINES, caption, model_of, same, trained, vae_of
from PIL import Image


@pytest.mark.every_host
@pytest.mark.parametrize("architecture", ["flux1", "z_image", "wan"])
def test_it_goes_on_bit_for_bit(architecture, train, monkeypatch, tmp_path):
    """With dropout, averages and checkpointing, whole and with blocks that are swapped; and samples change."""
    model = model_of(architecture, monkeypatch)
    vae = vae_of(16, video=architecture == "wan")
    plain, _ = trained(train, model, architecture, tmp_path / "plain", False)
    for count in (0, 2):
        torch.manual_seed(5)
        found, told = trained(train, model, architecture, tmp_path / str(count), vae=vae, blocks_to_swap=count)
        drawn = torch.rand(3)
        assert same(found, plain), count
        assert [(s.step, s.number, s.seed) for s in told] == [
            (n, i, d) for n in (0, 2, 4) for i, d in ((0, 42), (1, 7))
        ]
        assert not torch.equal(told[0].frames, told[2].frames)
        names = sorted(path.name for path in (tmp_path / str(count) / "sample").iterdir())
        assert names[:3] == ["adapter_000000_00_42.png", "adapter_000000_01_7.png", "adapter_000002_00_42.png"]
        with Image.open(tmp_path / str(count) / "sample" / names[0]) as image:
            assert image.size == (64, 80)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))
    lines = [json.loads(line) for line in (tmp_path / "0" / "adapter.jsonl").read_text().splitlines()]
    assert [line.get("sample") for line in lines][:3] == ["sample/" + name for name in names[:2]] + [None]
    assert all("forward" not in vars(module) for module in model.model.modules())


@pytest.mark.parametrize("architecture", ["flux1", "z_image"])
def test_a_sample_is_what_comfyui_samples_with_the_file(architecture, train, monkeypatch, tmp_path):
    import comfy.sample
    import comfy.samplers

    model, vae = model_of(architecture, monkeypatch), vae_of(16, video=False)
    more = {"ema_decay": 0, "mixed_precision": "no", "blocks_to_swap": 0}
    _, told = trained(train, model, architecture, tmp_path, vae=vae, **more)
    patched = train.adapter_files.with_adapter(model, str(tmp_path / "adapter.safetensors")).model
    cases = ((model, told[0], 3.5), (patched, told[-2], 3.5), (patched, told[-1], 3.5))
    for one, sample, guidance in cases:
        positive, negative, cfg, size, steps = {
            0: ("a cat", "", 1.0 if architecture == "flux1" else 4.0, (10, 8), 3),
            1: ("a dog", "a bird", 3.0, (8, 8), 2),
        }[sample.number]
        empty = torch.zeros(1, 16, *size)
        with torch.inference_mode():
            conditions = [
                [[text, more | {"guidance": guidance}]] for text, more in (caption(positive), caption(negative))
            ]
            if sample.number:  # as ComfyUI's node of that shift has it
                import math

                sampling = copy.deepcopy(one.get_model_object("model_sampling"))
                flux = architecture == "flux1"
                sampling.set_parameters(**({"shift": math.log(2)} if flux else {"shift": 2, "multiplier": 1}))
                one = one.clone()
                one.add_object_patch("model_sampling", sampling)
            noise = comfy.sample.prepare_noise(empty, sample.seed)
            latent = comfy.sample.sample(
                one, noise, steps, cfg, "euler", "simple", *conditions, empty, seed=sample.seed, disable_pbar=True
            )
            pixels = vae.decode(latent).clamp(0, 1) * 255
        assert (pixels - sample.frames.float()).abs().max() < 1.5, (architecture, sample.number)


@pytest.mark.parametrize("way", [{"offload_inactive_dit": True, "blocks_to_swap": 1}, {"offload_inactive_dit": False}])
def test_two_models_sample_in_turn_as_comfyuis_workflow_has_it(way, train, monkeypatch, tmp_path):
    """*KSampler (Advanced)* twice: with noise left over, and on from there; and the training is the same."""
    import nodes as comfyui

    low, high, vae = model_of("wan", monkeypatch), model_of("wan", monkeypatch), vae_of(16, video=True)
    key = "diffusion_model.blocks.0.self_attn.q.weight"
    high.add_patches({key: ("diff", (normal(5, *high.model.state_dict()[key].shape),))})
    lines = ("a cat --w 64 --h 80 --f 5 --s 4", "a dog --w 64 --h 64 --s 2 --fs 1 --n a bird --l 2")
    more = {"ema_decay": 0, "mixed_precision": "no", "lines": lines, "vae": vae, **way}
    found, told = trained(train, low, "wan", tmp_path / "sampled", high=high, **more)
    plain, _ = trained(train, low, "wan", tmp_path / "plain", False, high=high, **more)
    assert same(found, plain)
    file = str(tmp_path / "sampled" / "adapter.safetensors")
    patched = [train.adapter_files.with_adapter(model, file).model for model in (high, low)]
    node = comfyui.KSamplerAdvanced()
    for models, sample in (((high, low), told[0]), (patched, told[-2]), (patched, told[-1])):
        texts, cfg, steps, turn, shape = (
            (("a cat", ""), 3.5, 4, 3, (2, 10, 8))
            if sample.number == 0
            else (("a dog", "a bird"), 2.0, 2, 1, (1, 8, 8))
        )
        if sample.number:
            models = [model.clone() for model in models]
            for model in models:
                shifted = copy.deepcopy(model.get_model_object("model_sampling"))
                shifted.set_parameters(shift=1.0)
                model.add_object_patch("model_sampling", shifted)
        latent = {"samples": torch.zeros(1, 16, *shape)}
        conditions = [[caption(text)] for text in texts]
        common = "euler", "simple", *conditions
        with torch.inference_mode():
            (latent,) = node.sample(models[0], "enable", sample.seed, steps, cfg, *common, latent, 0, turn, "enable")
            (latent,) = node.sample(models[1], "disable", 0, steps, cfg, *common, latent, turn, 1000, "disable")
            pixels = vae.decode(latent["samples"]).clamp(0, 1) * 255
        assert (pixels.reshape(sample.frames.shape) - sample.frames.float()).abs().max() < 1.5, sample.number
    assert not torch.equal(told[0].frames, told[-2].frames)


def test_two_models_of_two_shifts_are_refused(train, monkeypatch, tmp_path):
    low, high = model_of("wan", monkeypatch), model_of("wan", monkeypatch)
    shifted = copy.deepcopy(high.get_model_object("model_sampling"))
    shifted.set_parameters(shift=3.0)
    high.add_object_patch("model_sampling", shifted)
    with pytest.raises(train.errors.TrainError, match="prompt 1: the two models are sampled with different sigmas"):
        trained(train, low, "wan", tmp_path, high=high, lines=("a cat --s 2",))


def test_videos_are_animations_at_their_rate(train, monkeypatch, tmp_path):
    model = model_of("wan", monkeypatch)
    _, told = trained(train, model, "wan", tmp_path, lines=("a cat --w 64 --h 64 --f 7 --s 1",))
    with Image.open(tmp_path / "sample" / "adapter_000004_00_42.webp") as image:
        assert (image.n_frames, image.size) == (5, (64, 64))  # 4 n + 1, as in Musubi
        image.load()
        assert image.info["duration"] == round(1000 / 16)
    assert told[-1].frames.shape == (5, 64, 64, 3)


def test_what_cannot_be_sampled_costs_no_training(train, monkeypatch, tmp_path, caplog):
    model, vae = model_of("z_image", monkeypatch), vae_of(16, video=False)
    plain, _ = trained(train, model, "z_image", tmp_path / "plain", False)
    vae.decode = lambda _: torch.empty(2**44)
    found, told = trained(train, model, "z_image", tmp_path / "found", vae=vae)
    assert same(found, plain)
    assert [step for step, _ in told] == [0, 2, 4]
    assert all(why.startswith("out of memory: ") for _, why in told)
    assert "step 2: no sample could be made, training goes on: " in caplog.text


def test_a_picture_that_another_program_looks_into_is_not_lost(train, monkeypatch, tmp_path):
    """On Windows a scanner opens every new file for a moment, which then takes no name."""
    replace, refused = os.replace, []

    def held(old: str, new: str) -> None:
        if str(new).endswith(".png") and new not in refused:
            refused.append(new)
            raise PermissionError(errno.EACCES, "Access is denied")
        replace(old, new)

    monkeypatch.setattr(os, "replace", held)
    _, told = trained(train, model_of("z_image", monkeypatch), "z_image", tmp_path, lines=LINES[:1])
    assert [path for sample in told for path in sample.paths] == refused
    assert sorted(path.name for path in (tmp_path / "sample").iterdir()) == [os.path.basename(path) for path in refused]


def test_a_person_can_stop_it_while_it_samples(train, monkeypatch, tmp_path):
    import comfy.model_management

    model, calls = model_of("z_image", monkeypatch), []

    def check() -> None:
        calls.append(1)
        if len(calls) > 8:  # in the second round
            raise comfy.model_management.InterruptProcessingException

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        trained(train, model, "z_image", tmp_path, tell={"check": check})
    assert sorted(path.name for path in tmp_path.glob("adapter*"))[0].startswith("adapter-step00000002")
    assert all("forward" not in vars(module) for module in model.model.modules())


@pytest.mark.parametrize(
    ("architecture", "line", "message"),
    [
        ("z_image", "a cat --f 25", "prompt 1: the model makes no videos, and frame_count is 25; set it to 1"),
        ("z_image", "a cat --of a", "prompt 1: one_frame is not sampled with here; leave it out"),
        ("wan", "a cat --w banana", "prompt 1: width is 'banana', expected a whole number"),
    ],
)
def test_a_prompt_that_cannot_be_is_refused_before_the_training(
    architecture, line, message, train, monkeypatch, tmp_path
):
    model = model_of(architecture, monkeypatch)
    with pytest.raises(train.errors.TrainError, match=message):
        trained(train, model, architecture, tmp_path, lines=(line,))
    assert not list(tmp_path.glob("**/*.png"))
