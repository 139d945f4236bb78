"""Datasets through ComfyUI's own VAE and text encoder into the cache, and out of it."""

import importlib
import json
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def encode(pack) -> SimpleNamespace:
    names = {"encoding": "nodes.host.training.encoding", "cache": "nodes.host.training.cache"}
    names |= {"dataset": "lyco_core.train.dataset", "errors": "lyco_core.errors"}
    return SimpleNamespace(**{k: importlib.import_module(f"{pack.__name__}.{v}") for k, v in names.items()})


@pytest.fixture(scope="module")
def files(tmp_path_factory, pack) -> Path:
    """A VAE of images and CLIP-L, with random weights."""
    import comfy.clip_model
    import comfy.ops
    import comfy.sd1_clip
    import comfy.taesd.taesd

    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    small = comfy.taesd.taesd.TAESD(latent_channels=16).state_dict()
    save_file({key: torch.randn(value.shape) / 30 for key, value in small.items()}, folder / "vae.safetensors")
    config = json.loads((Path(comfy.sd1_clip.__file__).parent / "sd1_clip_config.json").read_text())
    clip = comfy.clip_model.CLIPTextModel(config, torch.float16, "meta", comfy.ops.manual_cast).state_dict()
    save_file({key: torch.randn(value.shape).half() / 30 for key, value in clip.items()}, folder / "clip.safetensors")
    return folder


@pytest.fixture
def pictures(tmp_path) -> Path:
    generator = np.random.default_rng(0)
    for number, caption in enumerate(("a cat", "a dog", "a cat")):
        pixels = generator.integers(0, 255, (64 + 32 * number, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(caption)
    return tmp_path


def run(encode, files: Path, pictures: Path):
    (dataset,) = encode.dataset.parse_datasets(
        {"datasets": [{"image_directory": ".", "resolution": 64, "enable_bucket": True, "num_repeats": 3}]}, pictures
    )
    texts = (str(files / "clip.safetensors"),)
    encoders = encode.encoding.Encoders("flux1", str(files / "vae.safetensors"), texts, "stable_diffusion")
    return encode.encoding.encode_datasets([dataset], encoders)


def test_what_is_encoded_and_what_is_encoded_again(encode, files, pictures, caplog):
    caplog.set_level(logging.INFO, "lyco")
    first = run(encode, files, pictures)
    assert "0 of 3 latents are in the cache" in caplog.text
    assert "0 of 3 captions are in the cache" in caplog.text  # two, and the empty one
    assert [item.name for item in first.items] == ["0.png", "1.png", "2.png"]
    assert all(item.repeats == 3 for item in first.items)
    assert len({tuple(item.latent.shape) for item in first.items}) > 1
    cats, dogs = first.items[0].condition, first.items[1].condition
    assert tuple(cats[0].shape) == (1, 77, 768)
    assert torch.equal(cats[0], first.items[2].condition[0])
    assert not torch.equal(cats[0], dogs[0])
    assert not torch.equal(cats[0], first.empty[0])
    assert cats[1]["pooled_output"].shape == (1, 768)
    caplog.clear()
    (pictures / "1.txt").write_text("a bird")
    (damaged,) = (pictures / ".lyco_cache").glob("2_*")
    damaged.write_bytes(damaged.read_bytes()[:-50])
    second = run(encode, files, pictures)
    assert "2 of 3 latents are in the cache" in caplog.text
    assert "2 of 3 captions are in the cache" in caplog.text
    assert "it is encoded again" in caplog.text
    for one, other in zip(first.items, second.items, strict=True):
        assert torch.equal(one.latent, other.latent)
    assert torch.equal(second.items[0].condition[0], cats[0])
    assert not torch.equal(second.items[1].condition[0], dogs[0])
    caplog.clear()
    run(encode, files, pictures)
    assert "3 of 3 latents are in the cache" in caplog.text
    assert "Requested to load" not in caplog.text


def test_the_caption_is_what_the_text_encoder_says(encode, files, pictures):
    import comfy.sd

    found = run(encode, files, pictures).items[1].condition
    with torch.inference_mode():
        clip = comfy.sd.load_clip([str(files / "clip.safetensors")], clip_type=comfy.sd.CLIPType.STABLE_DIFFUSION)
        ((tensor, options),) = clip.encode_from_tokens_scheduled(clip.tokenize("a dog"))
    assert torch.equal(found[0], tensor)
    assert torch.equal(found[1]["pooled_output"], options["pooled_output"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip_type": "t5000"}, "clip_type is 't5000'; this ComfyUI has stable_diffusion"),
        ({"text_encoders": ("{}/vae.safetensors",)}, "vae.safetensors: is no text encoder that ComfyUI knows"),
        ({"vae": "{}/none.safetensors"}, "none.safetensors: cannot be read: No such file"),
        ({"vae": "{}/clip.safetensors"}, "clip.safetensors: ComfyUI knows no such VAE"),
        ({"vae": ""}, "names no vae or no text_encoder"),
    ],
    ids=str,
)
def test_encoders_that_are_none(change, message, encode, files, pictures):
    (dataset,) = encode.dataset.parse_datasets({"datasets": [{"image_directory": "."}]}, pictures)
    asked = {"vae": "{}/vae.safetensors", "text_encoders": ("{}/clip.safetensors",), "clip_type": "flux"} | change
    asked = {
        k: tuple(x.format(files) for x in v) if isinstance(v, tuple) else v.format(files) for k, v in asked.items()
    }
    with pytest.raises(encode.errors.TrainError, match=message):
        encode.encoding.encode_datasets([dataset], encode.encoding.Encoders("flux1", **asked))


def test_conditioning_that_no_file_holds(encode, tmp_path):
    entry = encode.cache.Entry(str(tmp_path), "a/b: c", "x")
    assert Path(entry.path).parent == tmp_path
    assert not entry.is_there
    with pytest.raises(encode.errors.TrainError, match="the text encoder gives hooks as list, which cannot be cached"):
        encode.cache.store_conditioning(entry, [torch.zeros(1), {"hooks": []}])
    stored = [torch.ones(1, 2), {"a": None, "b": True, "c": 0.5, "d": "x", "mask": torch.ones(3, dtype=torch.int64)}]
    encode.cache.store_conditioning(entry, stored)
    tensor, options = encode.cache.read_conditioning(entry)
    assert torch.equal(tensor, stored[0])
    assert torch.equal(options.pop("mask"), stored[1].pop("mask"))
    assert options == stored[1]
