"""Datasets through ComfyUI's own VAE and text encoder into the cache, and out of it."""

import importlib
import inspect
import json
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lyco_testing.films import film
from lyco_testing.tables import TRAINED
from PIL import Image, features
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def encode(pack) -> SimpleNamespace:
    names = {name: f"nodes.host.training.{name}" for name in ("encoders", "encoding", "cache")}
    names |= {"media": "nodes.host.training.media", "dataset": "lyco_core.train.dataset", "errors": "lyco_core.errors"}
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
    config = json.loads((Path(inspect.getfile(comfy.sd1_clip)).parent / "sd1_clip_config.json").read_text())
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
    encoders = encode.encoders.Encoders(TRAINED["flux1"], str(files / "vae.safetensors"), texts, "stable_diffusion")
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
        ({"vae": ""}, "no vae is named, which encodes the dataset: lyco train does the work of Musubi"),
    ],
    ids=str,
)
def test_encoders_that_are_none(change, message, encode, files, pictures):
    (dataset,) = encode.dataset.parse_datasets({"datasets": [{"image_directory": ".", "resolution": 64}]}, pictures)
    asked = {"vae": "{}/vae.safetensors", "text_encoders": ("{}/clip.safetensors",), "clip_type": "flux"} | change
    asked = {
        k: tuple(x.format(files) for x in v) if isinstance(v, tuple) else v.format(files) for k, v in asked.items()
    }
    with pytest.raises(encode.errors.TrainError, match=message):
        encode.encoding.encode_datasets([dataset], encode.encoders.Encoders(TRAINED["flux1"], **asked))


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


@pytest.fixture(scope="module")
def video_vae(files, pack) -> str:
    """A VAE of videos with random weights: a frame, then four to each of its own."""
    taehv = pytest.importorskip("comfy.taesd.taehv", reason="this ComfyUI has no small VAE of videos: update it")

    torch.manual_seed(1)
    small = taehv.TAEHV(latent_channels=16, latent_format=None).state_dict()
    save_file({key: torch.randn(value.shape) / 30 for key, value in small.items()}, files / "video.safetensors")
    return str(files / "video.safetensors")


def cut_by_copying(path: Path, frames: int) -> Path:
    """The same without its first frames, which the file keeps and marks: no key frame is where it begins."""
    import av

    shorter = path.with_name("cut.mp4")
    with av.open(str(path)) as source, av.open(str(shorter), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                shift = int(frames / 16 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                container.mux(packet)
    shorter.with_suffix(".txt").write_text("a fade")
    return shorter


def run_on_videos(encode, files: Path, folder: Path, vae: str, **settings: object):
    entry = {"video_directory": ".", "resolution": [48, 32], **settings}
    (dataset,) = encode.dataset.parse_datasets({"datasets": [entry]}, folder)
    encoders = encode.encoders.Encoders(TRAINED["wan"], vae, (str(files / "clip.safetensors"),), "stable_diffusion")
    return encode.encoding.encode_datasets([dataset], encoders).items


def test_pieces_of_a_video(encode, files, video_vae, tmp_path, caplog):
    import comfy.sd
    import comfy.utils

    caplog.set_level(logging.INFO, "lyco")
    film(tmp_path / "a.mp4", 20)
    settings = {"target_frames": [5, 9], "frame_extraction": "chunk", "source_fps": 32.0}
    items = run_on_videos(encode, files, tmp_path, video_vae, **settings)
    assert [tuple(item.latent.shape) for item in items] == [(16, 2, 4, 6)] * 2 + [(16, 3, 4, 6)]
    dataset = encode.dataset.Dataset(video_directory="x", resolution=(48, 32))
    pixels = encode.media.read_frames(str(tmp_path / "a.mp4"), dataset, range(0, 18, 2))
    assert torch.allclose(pixels.mean(dim=(1, 2, 3)) * 255, torch.arange(0.0, 18, 2) * 8, atol=4)
    with torch.inference_mode():
        vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(video_vae))
        assert torch.equal(items[-1].latent, vae.encode(pixels)[0])
    run_on_videos(encode, files, tmp_path, video_vae, **settings)
    assert "3 of 3 latents are in the cache" in caplog.text


def test_a_video_that_was_cut_by_copying(encode, files, video_vae, tmp_path):
    film(tmp_path / "a.mp4", 20)
    whole = cut_by_copying(tmp_path / "a.mp4", 6)
    (tmp_path / "a.mp4").unlink()
    assert encode.media.count_frames(str(whole)) == 14
    (item,) = run_on_videos(encode, files, tmp_path, video_vae, frame_extraction="full")
    assert item.latent.shape[1] == 4


def test_an_image_is_one_frame_to_a_vae_of_videos(encode, files, video_vae, pictures):
    (dataset,) = encode.dataset.parse_datasets({"datasets": [{"image_directory": ".", "resolution": 32}]}, pictures)
    encoders = encode.encoders.Encoders(
        TRAINED["wan"], video_vae, (str(files / "clip.safetensors"),), "stable_diffusion"
    )
    items = encode.encoding.encode_datasets([dataset], encoders).items
    assert [tuple(item.latent.shape) for item in items] == [(16, 1, 4, 4)] * 3


def test_a_vae_of_images_is_refused_for_videos(encode, files, tmp_path):
    film(tmp_path / "a.mp4", 6)
    vae = str(files / "vae.safetensors")
    with pytest.raises(encode.errors.TrainError, match=r"a\.mp4: the VAE encodes images one by one, not 5 frames"):
        run_on_videos(encode, files, tmp_path, vae, target_frames=[5])
    (item,) = run_on_videos(encode, files, tmp_path, vae)
    assert item.latent.shape == (16, 4, 6)


@pytest.mark.parametrize("ending", ["png", "jpg", "avif"])
def test_a_damaged_image(ending, encode, files, pictures):
    """Pillow raises an OSError or, for AVIF, a SyntaxError."""
    if ending == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF: pip install -U pillow")
    path = pictures / f"3.{ending}"
    Image.open(pictures / "2.png").save(path)
    path.write_bytes(path.read_bytes()[:-100])
    (pictures / "3.txt").write_text("half a cat")
    with pytest.raises(encode.errors.TrainError, match=rf"3\.{ending}: is no image that can be read"):
        run(encode, files, pictures)


def test_a_damaged_video(encode, files, video_vae, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    (tmp_path / "a.txt").write_text("nothing")
    with pytest.raises(encode.errors.TrainError, match=r"a\.mp4: is no video that can be read"):
        run_on_videos(encode, files, tmp_path, video_vae)


def test_a_cache_that_cannot_be_made(encode, files, pictures):
    (pictures / ".lyco_cache").write_text("a file")
    with pytest.raises(
        encode.errors.FileError, match=r"\.lyco_cache: cannot be made: File exists; set cache_directory"
    ):
        run(encode, files, pictures)


def test_a_file_of_something_else_in_the_cache(encode, tmp_path, caplog):
    entry = encode.cache.Entry(str(tmp_path), "a", "x")
    save_file({"latent": torch.zeros(1)}, entry.path)
    assert not entry.is_there
    assert "is damaged, or no file of the cache; it is encoded again" in caplog.text
