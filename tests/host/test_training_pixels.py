"""HiDream-O1, which reads pixels and words itself: no VAE, no text encoder, Musubi's loss of the picture."""

import importlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from lyco_testing import every_family, tiny_families
from lyco_testing.learned import learned
from lyco_testing.musubi_hidream import Musubi, patches
from lyco_testing.quantized_models import normal
from PIL import Image
from safetensors.torch import load_file, save_file

TINY = tiny_families.models()["hidream_o1"]
CAPTIONS = ("a cat", "two dogs on the grass", "a bird", "a red house")
IDS = {"a cat": (64, 8251)}
"""Caption -> its tokens in Qwen's vocabulary."""

needs_musubi = pytest.mark.skipif(
    "MUSUBI_PATH" not in os.environ, reason="MUSUBI_PATH names no checkout of Musubi Tuner"
)


@pytest.fixture(scope="module")
def weights():
    return every_family.float_weights(TINY)[0]


@pytest.fixture(autouse=True)
def known(pack, monkeypatch):
    """A tiny model has not the ratios by which a family is told from its neighbours."""
    module = importlib.import_module(f"{pack.__name__}.lyco_core.model")
    architectures = importlib.import_module(f"{pack.__name__}.lyco_core.architectures")
    monkeypatch.setattr(module, "recognise", lambda _: (architectures.ARCHITECTURES["hidream_o1"], "comfyui"))


@pytest.fixture(scope="module")
def parts(pack):
    names = {"encoders": "nodes.host.training.encoders", "encoding": "nodes.host.training.encoding"}
    names |= {"dataset": "lyco_core.train.dataset", "references": "lyco_core.train.references"}
    found = {key: importlib.import_module(f"{pack.__name__}.{name}") for key, name in names.items()}
    return type("Parts", (), found)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four pictures with captions, and a control image for each."""
    for kind in ("pictures", "controls"):
        (tmp_path / kind).mkdir()
        for number, caption in enumerate(CAPTIONS):
            color = np.random.default_rng(number).integers(0, 255, 3, dtype=np.uint8)
            Image.fromarray(np.full((70, 100, 3), color)).save(tmp_path / kind / f"{number}.png")
            (tmp_path / "pictures" / f"{number}.txt").write_text(caption)
    return tmp_path


def encoded(train, parts, folder: Path, how=None, **more: object):
    settings = {"image_directory": "pictures", "resolution": [64, 64], **more}
    (dataset,) = parts.dataset.parse_datasets({"datasets": [settings]}, folder)
    trained = train.architectures.ARCHITECTURES["hidream_o1"].training
    return parts.encoding.encode_datasets([dataset], parts.encoders.Encoders(trained, "", (), references=how))


def test_a_folder_needs_no_files_beside_the_model(train, parts, pictures):
    found = encoded(train, parts, pictures, enable_bucket=True)
    for number, item in enumerate(found.items):
        pixels = np.asarray(Image.open(pictures / "pictures" / f"{number}.png"))[0, 0]
        expected = torch.tensor(pixels / 127.5 - 1, dtype=torch.float32).view(3, 1, 1).expand(3, 64, 64)
        assert item.latent.shape[1] % 32 == item.latent.shape[2] % 32 == 0
        assert torch.allclose(item.latent, expected[:, :1, :1].expand_as(item.latent), atol=1e-6)
    start, end = (151644, 872, 198), (151645, 198, 151644, 77091, 198, 151669, 151673)
    assert found.items[0].condition[1]["text_input_ids"].tolist() == [[*start, *IDS["a cat"], *end]]
    assert found.empty[1]["text_input_ids"].tolist() == [[*start, *end]]


def test_what_it_reads_itself_has_no_file(train, parts):
    trained = train.architectures.ARCHITECTURES["hidream_o1"].training
    for files in (("vae.safetensors", ()), ("", ("text.safetensors",))):
        with pytest.raises(train.errors.TrainError, match="reads pixels and words itself; leave out vae and text_enc"):
            parts.encoders.Encoders(trained, *files)


def test_four_pictures_are_learned(train, parts, pictures, weights, tmp_path):
    """In nothing but noise, where the caption alone tells which it is: to a fifth of what a model can do that does not
    read it. The noise is weak, for a tiny model hears hardly anything else beside the real one.
    """
    model, items = every_family.load(TINY, weights), encoded(train, parts, pictures).items
    settings = {"network_module": "lora", "network_dim": 32, "network_alpha": 32, "learning_rate": 3e-3}
    settings |= {
        "max_train_steps": 120,
        "batch_size": 4,
        "lr_scheduler": "cosine",
        "min_timestep": 999,
        "noise_scale_start": 0.05,
    }
    settings |= {"gradient_checkpointing": False}
    settings |= {"timestep_sampling": "auto", "save_precision": "fp32", "mixed_precision": "no", "seed": 1}
    options = train.options.train_options(settings)
    with torch.inference_mode():
        done = train.run.train(model, train.run.Data(items), options, str(tmp_path), lambda *_: None)
    losses = [step.loss for step in done.steps]
    blind = float(torch.stack([item.latent for item in items]).var(0, correction=0).mean())
    assert losses[-1] < blind / 5 < losses[0] / 5
    names = {key.split(".")[0] for key in load_file(done.path)}
    assert "lora_unet_model_language_model_layers_0_self_attn_q_proj" in names
    assert {"lora_unet_model_x_embedder_proj1", "lora_unet_model_final_layer2_linear"} < names
    assert len(names) == 2 * 7 + 3
    assert len(train.adapter_files.with_adapter(model, done.path).model.patches) == len(names)


def test_nothing_is_kept_of_a_caption(train, weights):
    """ComfyUI's model keeps the keys and values of a caption for the next step, whatever its weights are by then."""
    model = every_family.load(TINY, weights)
    entry = [torch.zeros(1, 5, 1), {"text_input_ids": torch.tensor([[151644, 872, 64, 151669, 151673]])}]
    asked = normal(1, 1, 3, 64, 64), torch.tensor([0.5]), [entry]
    with train.model.loaded(model, train.options.RunOptions()) as flow, torch.no_grad():
        network = learned(train, flow, "lokr")
        with network.attached(flow.model):
            before = flow.velocity(*asked)
            for parameter in network.parameters():
                parameter.mul_(0.5)
            found = flow.velocity(*asked)
            flow.model.diffusion_model.clear_kv_cache()
            assert torch.equal(found, flow.velocity(*asked))
            assert not torch.allclose(found, before, atol=1e-3)
    assert not model.model.diffusion_model._kv_cache_entries


def test_items_of_one_batch_see_each_its_own_control(train, parts, pictures, weights):
    model, how = every_family.load(TINY, weights), parts.references.References("HiDream-O1", 10, pixels=True)
    items = encoded(train, parts, pictures, how, control_directory="controls").items[::2]  # captions of one length
    assert all(item.condition[1]["reference_latents"][0].shape == (1, 64, 64, 3) for item in items)
    with train.model.loaded(model, train.options.RunOptions()) as flow, torch.no_grad():
        conditions = [item.condition for item in items]
        assert flow.groups(conditions) == [[0], [1]]
        x, sigma = items[0].latent[None], torch.tensor([0.5])
        one, other = (flow.velocity(x, sigma, [[items[0].condition[0], c[1]]]) for c in conditions)
        assert not torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weighting_scheme": "cosmap"}, "weighting_scheme is cosmap, and Musubi Tuner trains this model with none"),
        ({"timestep_sampling": "flux_shift"}, "timestep_sampling is flux_shift, which goes by the size of a latent"),
        ({"timestep_sampling": "qinglong_qwen"}, "which goes by the size of a latent"),
    ],
)
def test_options_that_it_has_no_use_for_are_refused(settings, message, train, weights, tmp_path):
    data = train.run.Data([train.items.Item(normal(1, 3, 64, 64), [torch.zeros(1, 1, 1), {}], "x")])
    options = train.options.train_options({"timestep_sampling": "uniform"} | settings)
    with pytest.raises(train.errors.TrainError, match=message):
        train.run.train(every_family.load(TINY, weights), data, options, str(tmp_path), lambda *_: None)


def test_a_picture_that_is_no_whole_tokens_is_named(train, weights, tmp_path):
    data = train.run.Data([train.items.Item(normal(1, 3, 64, 80), [torch.zeros(1, 1, 1), {}], "latent 7")])
    options = train.options.train_options({"timestep_sampling": "uniform"})
    with pytest.raises(
        train.errors.TrainError, match="latent 7: is 80 x 64 pixels, and the model takes multiples of 3"
    ):
        train.run.train(every_family.load(TINY, weights), data, options, str(tmp_path), lambda *_: None)


COMMAND = """hidream_o1_train_network.py --dit model.safetensors --dataset_config data.toml --model_type full
 --task {task} --mixed_precision no --timestep_sampling uniform --weighting_scheme none --noise_clip_std 0.0
 --learning_rate 1e-2 --gradient_checkpointing --network_module networks.lora_hidream_o1 --network_dim 4
 --max_train_steps 2 --seed 42 --sample_prompts prompts.txt --sample_every_n_steps 1 --save_precision fp32
 --output_dir out --output_name o1"""
"""Musubi's page's, with samples."""


def test_musubis_command_trains_and_samples(train, parts, pictures, weights, monkeypatch):
    """With control images: what sees them learns too, samples see them, and differ as the adapter does."""
    command = importlib.import_module(parts.dataset.__name__.replace("train.dataset", "commands.musubi_command"))
    monkeypatch.chdir(pictures)
    save_file(dict(weights), "model.safetensors")
    lines = 'image_directory = "pictures"\ncontrol_directory = "controls"'
    Path("data.toml").write_text(f"[general]\nresolution = [64, 64]\n\n[[datasets]]\n{lines}\n")
    Path("prompts.txt").write_text("a cat --w 64 --h 96 --s 2 --d 1 --l 1 --ci controls/0.png\n")
    asked = command.read_command(COMMAND.format(task="i2i").split())
    read, world = train.configuration.read_configuration, train.headless.World()
    configuration = read(asked.given, pictures, script=asked.script, beside=False)
    with every_family.known_as(TINY):
        data, sampling = train.headless._encoded(configuration, world)
        train.headless._train(configuration, data, train.headless.Terminal(world, []), world, sampling)
    tensors = load_file("out/o1.safetensors")
    for name in ("language_model_layers_1_mlp_down_proj", "visual_blocks_0_attn_qkv", "visual_merger_linear_fc2"):
        assert tensors[f"lora_unet_model_{name}.lora_up.weight"].any(), name
    first, second = (Image.open(f"out/sample/o1_00000{n}_00_1.png") for n in (1, 2))
    assert first.size == (64, 96)
    assert np.asarray(first).tolist() != np.asarray(second).tolist()
    for task, folder in (("t2i", "controls"), ("i2i", "")):
        lines = 'image_directory = "pictures"' + (f'\ncontrol_directory = "{folder}"' if folder else "")
        Path("data.toml").write_text(f"[general]\nresolution = [64, 64]\n\n[[datasets]]\n{lines}\n")
        given = command.read_command(COMMAND.format(task=task).split()).given
        given |= {"output_name": "o2", "sample_prompts": None, "sample_every_n_steps": None}
        with pytest.raises(train.errors.TrainError, match=f"task is {task}, and"):
            train.headless._encoded(read(given, pictures, script=asked.script, beside=False), world)


@needs_musubi
@pytest.mark.parametrize(("task", "kind"), [("t2i", "full"), ("t2i", "dev"), ("i2i", "full")])
def test_noise_and_prediction_are_musubi_s(task, kind, train, parts, pictures, weights):
    """Of two captions, which Musubi pads to one length; with control images one by one, which it sees by itself."""
    import comfy.ldm.hidream_o1.conditioning as comfyui

    musubi = Musubi(TINY.config, weights, task, kind)
    how = parts.references.References("HiDream-O1", 10, pixels=True) if task == "i2i" else None
    items = encoded(train, parts, pictures, how, **({"control_directory": "controls"} if how else {})).items[:2]
    pixels = normal(7, 2, 3, 64, 96).clamp(-1, 1)
    noise, sigma = normal(8, *pixels.shape), torch.tensor([0.3, 0.97])
    ids, more = [item.condition[1]["text_input_ids"][0] for item in items], {}
    if how:
        images = [
            comfyui.prepare_ref_images(i.condition[1]["reference_latents"], 64, 96, "cpu", torch.float32) for i in items
        ]
        ids = [
            comfyui.build_ref_input_ids(i[None], image["per_ref_vit_tokens"], 151655, 151652, 151653)[0]
            for i, image in zip(ids, images, strict=True)
        ]
        grids = [image["per_ref_patch_grids"][0] for image in images]
        more = {
            "latents_control_0": [
                image["ref_patches"].view(*grid, -1) for image, grid in zip(images, grids, strict=True)
            ],
            "pixel_values": [image["ref_pixel_values"] for image in images],
            "image_grid_thw": [image["ref_image_grid_thw"] for image in images],
        }
    with torch.no_grad():
        x, expected = musubi.step(pixels, noise, sigma, ids, more)
    command = {"task": task, "model_type": kind, "timestep_sampling": "uniform"}
    answers = importlib.import_module(parts.dataset.__name__.replace("dataset", "musubi.answers"))
    settings, _ = answers.answered(command, "hidream_o1_train_network")
    options = train.options.train_options(answers.own_options(settings)).noise
    if options.noise_clip_std:  # by `draw`, as Musubi does
        bound = options.noise_clip_std * float(noise.std())
        noise = noise.clamp(-bound, bound)
    with train.model.loaded(every_family.load(TINY, weights), train.options.RunOptions()) as flow, torch.no_grad():
        process = flow.process.under(options)
        given = process.noised(pixels, noise, sigma)
        found = torch.cat([flow.velocity(given[n : n + 1], sigma[n : n + 1], [items[n].condition]) for n in (0, 1)])
    assert torch.allclose(patches(given), x, atol=1e-5)
    difference = float((patches(found).flatten(1, 2) - expected).norm() / expected.norm())
    assert difference < 1e-5
    assert torch.equal(process.target(pixels, noise, sigma), pixels)


@needs_musubi
@pytest.mark.parametrize("task", ["t2i", "i2i"])
def test_the_modules_are_musubi_s(task, train, weights):
    theirs = Musubi(TINY.config, weights, task, "full").modules()
    model, patterns = every_family.load(TINY, weights), [train.configuration.SEEING] if task == "i2i" else []
    options = train.options.train_options({"include_patterns": patterns}).network
    targets = train.targets.choose_targets(train.loading.model_weights(model), options).targets
    assert {f"lora_unet_{target.module_path.replace('.', '_')}" for target in targets} == theirs
