"""First frames through ComfyUI's own nodes, VAE and image encoder into the cache, and into its models."""

import importlib
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lyco_testing.comfy_models import MODELS, tiny_model
from lyco_testing.films import film
from lyco_testing.tables import TRAINED
from PIL import Image
from safetensors.torch import save_file

WAN = MODELS["wan"][1]
MODELS_OF = {
    "Wan 2.1": ("wan", "WAN21_I2V", WAN | {"model_type": "i2v", "in_dim": 36}, 1),
    "Wan 2.1, first and last": (
        "wan",
        "WAN21_I2V",
        WAN | {"model_type": "i2v", "in_dim": 36, "flf_pos_embed_token_number": 10},
        0,
    ),
    "Wan 2.2": ("wan", "WAN21_T2V", WAN | {"in_dim": 36}, 2),
    "SkyReels": (
        "hunyuan_video",
        "HunyuanVideoSkyreelsI2V",
        MODELS["hunyuan_video"][1] | {"in_channels": 32},
        0,
    ),
    "Wan 2.1, Fun-Control": ("wan", "WAN21_FunControl2V", WAN | {"model_type": "i2v", "in_dim": 48}, 4),
    "Wan 2.1, Fun-Control of image to video": (
        "wan",
        "WAN21_FunControl2V",
        WAN | {"model_type": "i2v", "in_dim": 48, "in_dim_ref_conv": 16},
        3,
    ),
    "Wan 2.2, Fun-Control": ("wan", "WAN21_T2V", WAN | {"in_dim": 52, "in_dim_ref_conv": 16}, 5),
    "HunyuanVideo of image to video": (
        "hunyuan_video",
        "HunyuanVideoI2V",
        MODELS["hunyuan_video"][1] | {"in_channels": 33},
        1,
    ),
    "HunyuanVideo 1.5": (
        "hunyuan_video_1_5",
        "HunyuanVideo15",
        MODELS["hunyuan_video_1_5"][1] | {"in_channels": 65, "out_channels": 32, "patch_size": [1, 1, 1]},
        0,
    ),
}
"""ComfyUI's class and config, and which of the family's kinds it is."""


@pytest.fixture(scope="module")
def train(pack) -> SimpleNamespace:
    rooms = ("encoders", "encoding", "pieces", "cache", "first_frames", "conditions", "run")
    names = {name: f"nodes.host.training.{name}" for name in rooms}
    names |= {"dataset": "lyco_core.train.dataset", "errors": "lyco_core.errors", "items": "lyco_core.train.items"}
    names |= {"kinds": "lyco_core.train.first_frames", "options": "lyco_core.train.options"}
    return SimpleNamespace(**{k: importlib.import_module(f"{pack.__name__}.{v}") for k, v in names.items()})


@pytest.fixture(scope="module")
def place(tmp_path_factory, pack) -> Path:
    """Small VAEs of videos with random weights, and three videos of which the cache has the captions."""
    taehv = pytest.importorskip("comfy.taesd.taehv", reason="this ComfyUI has no small VAE of videos: update it")
    formats = pytest.importorskip("comfy.latent_formats")
    folder = tmp_path_factory.mktemp("frames")
    torch.manual_seed(1)
    for channels, latents in ((16, None), (32, getattr(formats, "HunyuanVideo15", None))):
        small = taehv.TAEHV(latent_channels=channels, latent_format=latents).state_dict()
        save_file({k: torch.randn(v.shape) / 30 for k, v in small.items()}, folder / f"vae{channels}.safetensors")
    save_file({"nothing": torch.zeros(1)}, folder / "text.safetensors")
    (folder / "clips").mkdir()
    for number in range(3):
        film(folder / "clips" / f"{number}.mp4", 9, first=20 + 60 * number)
    return folder


def tiny(name: str, monkeypatch: pytest.MonkeyPatch):
    family, kind, config, _ = MODELS_OF[name]
    monkeypatch.setitem(MODELS, family, (kind, config))
    with torch.inference_mode(False):
        return tiny_model(family)


def vision(width: int, **more: object):
    """An image encoder of ComfyUI's, of two layers, as the widths of the model's tokens ask for."""
    import comfy.clip_vision

    config = {"hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 8, "intermediate_size": 32}
    config |= {
        "hidden_act": "gelu",
        "image_size": 28,
        "patch_size": 14,
        "num_channels": 3,
        "model_type": "clip_vision_model",
    }
    torch.manual_seed(2)
    made = comfy.clip_vision.ClipVisionModel(config | more)
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.normal_(0, 0.1)
    return made


def encoded(train, place: Path, name: str, monkeypatch, eye=None, *, drops_captions=False, **dataset: object):
    """The items of the videos for a model; what is read from files that are gigabytes is small here, not pretended."""
    import comfy.sd

    family, _, config, number = MODELS_OF[name]
    kind = train.kinds._KINDS[family][number]
    vae = place / f"vae{32 if family == 'hunyuan_video_1_5' else 16}.safetensors"
    width = config.get("vision_in_dim") or 1280
    monkeypatch.setattr(train.encoders, "load_image_encoder", lambda _: eye or vision(width))
    settings = {"video_directory": "clips", "resolution": [64, 64], "target_frames": [5], **dataset}
    settings["cache_directory"] = str(place / name)
    (found,) = train.dataset.parse_datasets({"datasets": [settings]}, place)
    encoders = train.encoders.Encoders(
        TRAINED[family],
        str(vae),
        (str(place / "text.safetensors"),),
        "",
        kind,
        str(place / "text.safetensors"),
        drops_captions=drops_captions,
    )
    for caption in ("a fade", "") if eye is None else ():
        tensor = torch.randn((1, 7, config.get("text_dim", 48)), generator=torch.Generator().manual_seed(len(caption)))
        more = {"pooled_output": torch.ones(1, 24)} if family == "hunyuan_video" else {"pooled_output": None}
        train.cache.store_conditioning(train.pieces.caption_entry(found.cache, caption, encoders), [tensor, more])
    with torch.inference_mode():
        loaded = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(vae)))
    return train.encoding.encode_datasets([found], encoders), loaded, found


@pytest.mark.parametrize("name", [name for name in MODELS_OF if "Control" not in name and "Video of" not in name])
def test_the_model_is_told_what_it_samples_with(name, train, place, monkeypatch, caplog):
    """The channels beside the noise: the first frame, encoded as the rest of a clip is that nobody has seen yet."""
    from comfy.clip_vision import Output

    caplog.set_level(logging.INFO, "lyco")
    data, vae, dataset = encoded(train, place, name, monkeypatch)
    assert "0 of 3 first frames are in the cache" in caplog.text
    model = tiny(name, monkeypatch).model
    path = str(place / "clips" / "1.mp4")
    media = importlib.import_module(train.pieces.read_frames.__module__)
    pixels = media.read_frames(path, dataset, range(5))
    latent = model.process_latent_in(data.items[1].latent[None])
    said = train.conditions.forward_arguments(model, data.items[1].condition, latent, 6.0)
    grey = torch.full_like(pixels, 0.5)
    last = "last" in name
    with torch.inference_mode():
        if name.startswith("Wan"):
            seen = torch.cat([pixels[:1], grey[1:4], pixels[4:] if last else grey[4:]])
            picture = model.process_latent_in(vae.encode(seen))
        else:
            picture = torch.zeros_like(latent)
            picture[:, :, :1] = model.process_latent_in(vae.encode(pixels[:1]))
    mask = torch.zeros((1, 4, *latent.shape[2:]))
    mask[:, :, 0] = 1
    if last:
        mask[:, 3, 1] = 1
    parts = {"Wan": [mask, picture], "Sky": [picture], "Hun": [picture, mask[:, :1]]}[name[:3]]
    torch.testing.assert_close(said["c_concat"], torch.cat(parts, dim=1))
    if name in ("Wan 2.2", "SkyReels"):
        assert "clip_fea" not in said
    else:
        eye = vision(1280 if name.startswith("Wan") else 32)
        with torch.inference_mode():
            looks = [
                eye.encode_image(pixels[i : i + 1], crop=name.startswith("Hun")) for i in ([0, 4] if last else [0])
            ]
        read = "penultimate_hidden_states" if name.startswith("Wan") else "last_hidden_state"
        torch.testing.assert_close(said["clip_fea"], torch.cat([getattr(one, read) for one in looks], dim=1))
        assert isinstance(data.items[1].condition[1]["clip_vision_output"], Output)
    caplog.clear()
    again, *_ = encoded(train, place, name, monkeypatch)
    assert "3 of 3 first frames are in the cache" in caplog.text
    for one, other in zip(data.items, again.items, strict=True):
        assert torch.equal(one.condition[1]["concat_latent_image"], other.condition[1]["concat_latent_image"])
    assert train.conditions.groups([item.condition for item in again.items]) == [[0, 1, 2]]


@pytest.fixture(scope="module")
def controls(place) -> Path:
    """Of the three videos: a film of 9 frames, one of 3, and a folder of 9 frames of another shape."""
    folder = place / "controls"
    (folder / "2").mkdir(parents=True)
    film(folder / "0.mp4", 9, first=180)
    film(folder / "1.mkv", 3, first=120)
    generator = np.random.default_rng(5)
    for number in range(9):
        pixels = generator.integers(0, 255, (90, 160, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "2" / f"{number}.png")
    return folder


@pytest.mark.parametrize("name", [name for name in MODELS_OF if "Control" in name])
def test_a_control_video_lies_over_its_clip(name, train, place, controls, monkeypatch, caplog):
    """Cut out in time and in the picture as the clip is; where it ends earlier its last frame stays."""
    caplog.set_level(logging.INFO, "lyco")
    settings = {"control_directory": "controls", "frame_extraction": "slide", "frame_stride": 4}
    settings |= {"source_fps": 16.0, "resolution": [96, 64]}
    data, vae, _ = encoded(train, place, name, monkeypatch, **settings)
    model = tiny(name, monkeypatch).model
    assert len(data.items) == 6
    for number, shown in ((1, range(4, 9)), (3, [2, 2, 2, 2, 2]), (5, range(4, 9))):
        item = data.items[number]
        pixels = [frame_of(controls, number // 2, frame) for frame in shown]
        latent = model.process_latent_in(item.latent[None])
        said = train.conditions.forward_arguments(model, item.condition, latent, 6.0)
        with torch.inference_mode():
            over = model.process_latent_in(vae.encode(torch.stack(pixels)))
            first = torch.zeros_like(over)
            if "image to video" in name:
                clip = [frame_of(place / "clips", number // 2, 4)]
                first[:, :, :1] = model.process_latent_in(vae.encode(torch.stack(clip)))
        mask = [torch.zeros((1, 4, *latent.shape[2:]))] if "2.2" in name else []
        torch.testing.assert_close(said["c_concat"], torch.cat([over, *mask, first], dim=1))
        assert ("clip_fea" in said) == ("image to video" in name)
        assert "reference_latent" not in said
        x = torch.randn(latent.shape)
        assert torch.isfinite(model.apply_model(x, torch.tensor([0.5]), **said)).all()
    caplog.clear()
    again, *_ = encoded(train, place, name, monkeypatch, **settings)
    assert "6 of 6 first frames are in the cache" in caplog.text
    kept = (run.items[5].condition[1]["concat_latent_image"] for run in (data, again))
    assert torch.equal(*kept)


def frame_of(folder: Path, number: int, frame: int) -> torch.Tensor:
    """A frame of a film or of a folder of frames, at 96 x 64, (height, width, 3)."""
    import av

    if (found := folder / str(number) / f"{frame}.png").exists():
        pixels = Image.open(found).resize((114, 64), Image.Resampling.LANCZOS).crop((9, 0, 105, 64))
        return torch.from_numpy(np.array(pixels)).float() / 255
    (film,) = folder.glob(f"{number}.m*")
    with av.open(str(film)) as container:
        pixels = [one.to_ndarray(format="rgb24") for one in container.decode(video=0)][frame]
    return torch.from_numpy(pixels).float() / 255


class Sees:
    """A text encoder that tells what it was asked for: a token is a number of the image."""

    def __init__(self, asked: list) -> None:
        self.asked = asked

    def tokenize(self, text: str, **more: object) -> torch.Tensor:
        self.asked.append((text, sorted(more)))
        seen = more.get("image_embeds", torch.zeros(1, 1, 8))
        return torch.cat([torch.full((1, 1, 8), float(len(text))), seen[:, :2, :8]], dim=1)

    def encode_from_tokens_scheduled(self, tokens: torch.Tensor) -> list:
        return [[tokens.clone(), {"pooled_output": torch.ones(1, 24)}]]


def test_the_text_encoder_of_hunyuanvideo_sees_the_frame(train, place, monkeypatch, caplog):
    """Against ComfyUI's nodes themselves, given the same pixels and no cache."""
    nodes = pytest.importorskip("comfy_extras.nodes_hunyuan")
    caplog.set_level(logging.INFO, "lyco")
    name, asked, eye = "HunyuanVideo of image to video", [], vision(64, projector_type="llava3")
    monkeypatch.setattr(train.encoders, "_load_clip", lambda encoders: Sees(asked))
    monkeypatch.setattr(train.encoders, "_require_text_encoders", lambda encoders: None)
    data, vae, dataset = encoded(train, place, name, monkeypatch, eye, drops_captions=True)
    texts = [text for text, seen in asked if "image_embeds" in seen]
    assert sorted(texts) == ["", "", "", "a fade", "a fade", "a fade"]  # and one empty caption that no frame is in
    media = importlib.import_module(train.pieces.read_frames.__module__)
    pixels = media.read_frames(str(place / "clips" / "1.mp4"), dataset, range(5))
    with torch.inference_mode():
        output = eye.encode_image(pixels[:1], crop=False)
        node = nodes.TextEncodeHunyuanVideo_ImageToVideo
        (wanted,) = node.execute(Sees([]), output, "a fade", 2).args[0]
        picture = vae.encode(pixels[:1])
    item = data.items[1]
    torch.testing.assert_close(item.condition[0], wanted[0])
    torch.testing.assert_close(item.dropped[0][:, 1:], wanted[0][:, 1:])  # a caption is dropped, what is seen is not
    assert float(item.dropped[0][0, 0, 0]) == 0
    assert "clip_vision_output" not in item.condition[1]
    model = tiny(name, monkeypatch).model
    latent = model.process_latent_in(item.latent[None])
    entry = [torch.zeros(1, 3, 48), item.condition[1]]
    said = train.conditions.forward_arguments(model, entry, latent, 6.0)
    picture = torch.nn.functional.pad(model.process_latent_in(picture), (0, 0, 0, 0, 0, 1))
    mask = torch.zeros_like(latent)[:, :1]
    mask[:, :, 0] = 1
    torch.testing.assert_close(said["c_concat"], torch.cat([picture, mask], dim=1))
    assert torch.isfinite(model.apply_model(torch.randn(latent.shape), torch.tensor([0.5]), **said)).all()
    asked.clear()
    caplog.clear()
    encoded(train, place, name, monkeypatch, eye, drops_captions=True)
    assert "7 of 7 captions are in the cache" in caplog.text
    assert not asked


def test_an_image_lies_over_an_image(train, place, monkeypatch):
    generator = np.random.default_rng(6)
    for folder in ("pictures", "over"):
        (place / folder).mkdir()
        Image.fromarray(generator.integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(place / folder / "0.png")
    (place / "pictures" / "0.txt").write_text("a fade")
    settings = {"video_directory": "", "image_directory": "pictures", "control_directory": "over"}
    data, vae, _ = encoded(train, place, "Wan 2.1, Fun-Control", monkeypatch, **settings, resolution=[96, 64])
    pixels = torch.from_numpy(np.array(Image.open(place / "over" / "0.png"))).float() / 255
    with torch.inference_mode():
        wanted = vae.encode(pixels[None])
    torch.testing.assert_close(data.items[0].condition[1]["concat_latent_image"][:, :16], wanted)


def test_an_image_is_its_own_first_frame(train, place, monkeypatch):
    data, *_ = encoded(train, place, "Wan 2.2", monkeypatch, target_frames=[1])
    for item in data.items:
        torch.testing.assert_close(item.condition[1]["concat_latent_image"][0], item.latent)
        assert not item.condition[1]["concat_mask"].any()


def test_a_dropped_caption_leaves_the_frame(train, place, monkeypatch):
    data, *_ = encoded(train, place, "Wan 2.1", monkeypatch)
    made = train.conditions.without_caption(data.items[2].condition, data.empty)
    assert torch.equal(made[0], data.empty[0])
    assert not torch.equal(made[0], data.items[2].condition[0])
    for key in ("concat_latent_image", "concat_mask", "clip_vision_output"):
        assert made[1][key] is data.items[2].condition[1][key]


def test_files_that_are_no_image_encoder(train, place):
    with pytest.raises(train.errors.TrainError, match=r"text.safetensors: is no image encoder that ComfyUI knows"):
        train.first_frames.load_image_encoder(str(place / "text.safetensors"))


@pytest.mark.parametrize(
    ("name", "rate"), [("Wan 2.1", 1e-2), ("Wan 2.2, Fun-Control", 1e-2), ("HunyuanVideo 1.5", 2e-2)]
)
def test_the_first_frame_decides(name, rate, train, monkeypatch, tmp_path):
    """Four items of one caption: nearly all is noise, so that nothing but the first frame, or the control video, tells
    which it is.
    """
    from comfy.clip_vision import Output

    model, generator = tiny(name, monkeypatch), torch.Generator().manual_seed(4)
    with torch.no_grad():  # which is not trained, and has to be loud enough for the latents
        whole = model.model.diffusion_model
        (whole.final_layer.linear if name.startswith("Hun") else whole.head.head).weight.mul_(4)
    channels, width = (32, 32) if name.startswith("Hun") else (16, 1280)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    text, items = normal(1, 7, 48), []
    for number in range(4):
        seen = Output()
        seen.penultimate_hidden_states = seen.last_hidden_state = normal(1, 5, width)
        beside = 32 if "Control" in name else channels
        more = {"concat_latent_image": 3 * normal(1, beside, 2, 4, 4), "concat_mask": torch.zeros(1, 1, 2, 4, 4)}
        more |= {"concat_mask_index": 16} if "Control" in name else {}
        more |= {"clip_vision_output": seen}
        latent = 4 * normal(channels, 1, 1, 1).expand(channels, 2, 4, 4)
        items.append(train.items.Item(latent, [text, {"pooled_output": None, **more}], str(number)))
    swapped = [
        train.items.Item(one.latent, other.condition, one.name)
        for one, other in zip(items, [*items[1:], items[0]], strict=True)
    ]
    settings = {"network_module": "lokr", "network_dim": 16, "network_alpha": 16, "factor": 4}
    settings |= {"learning_rate": rate, "lr_scheduler": "cosine", "max_train_steps": 150, "batch_size": 4}
    settings |= {"min_timestep": 990, "timestep_sampling": "uniform", "mixed_precision": "no"}
    settings |= {"validate_every_n_steps": 150, "caption_dropout_rate": 0.3, "gradient_checkpointing": False}
    data = train.run.Data(items, [0 * text, {"pooled_output": None}], swapped)
    options = train.options.train_options(settings)
    done = train.run.train(model, data, options, str(tmp_path), lambda *_: None)
    last = sum(step.loss for step in done.steps[-5:]) / 5
    assert last < done.steps[0].loss / 5
    assert done.steps[-1].validation > 2 * last
