"""Samples that are more than a picture of a caption: a control video, a frame that the text encoder sees, the layers of
a picture, sound.
"""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lyco_testing import every_family, tiny_families
from lyco_testing.comfy_models import MODELS
from lyco_testing.films import film
from lyco_testing.quantized_models import normal
from lyco_testing.sample_encoders import Reads, alike, encoded_twice, files_that_load, vision_of
from lyco_testing.sampled_trainings import model_of, same, trained, vae_of
from PIL import Image

FAMILIES = {
    "control": ("wan", "WAN21_FunControl2V", {"model_type": "i2v", "in_dim": 48}),
    "frame read": ("hunyuan_video", "HunyuanVideoI2V", {"in_channels": 33}),
    "layers": (
        "qwen_image",
        "QwenImage",
        {"in_channels": 64, "use_additional_t_cond": True, "default_ref_method": "negative_index"},
    ),
}
LINES = {
    "control": "a cat --cn {0}/over.mp4 --w 64 --h 64 --f 5 --s 2 --d 3 --n a dog",
    "control, shorter": "a cat --cn {0}/over.mp4 --w 72 --h 64 --f 9",
    "control of a picture": "a cat --cn {0}/a.png --w 64 --h 64",
    "control and frame": "a cat --cn {0}/frames --i {0}/a.png --w 64 --h 64 --f 5",
    "frame read": "a cat --i {0}/a.png --w 64 --h 64 --f 5 --s 2 --d 3 --n a dog",
    "layers": "a cat --ci {0}/b.png --w 64 --h 64 --f 2 --s 2 --d 3 --n a dog",
}
KINDS = {"control": ("wan", 4), "control and frame": ("wan", 3), "frame read": ("hunyuan_video", 1)}
FILM = 7


@pytest.fixture(scope="module")
def made(pack) -> SimpleNamespace:
    rooms = ("sample_inputs", "encoders", "folders", "media", "outputs", "sound")
    names = {name: f"nodes.host.training.{name}" for name in rooms}
    names |= {"kinds": "lyco_core.train.first_frames", "how": "lyco_core.train.layers"}
    names |= {"prompts": "lyco_core.train.prompts", "dataset": "lyco_core.train.dataset"}
    names |= {"distributed": "lyco_core.train.distributed", "errors": "lyco_core.errors"}
    return SimpleNamespace(**{k: importlib.import_module(f"{pack.__name__}.{v}") for k, v in names.items()})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder, generator = tmp_path_factory.mktemp("forms"), np.random.default_rng(0)
    for name, size in (("a", (90, 120, 3)), ("b", (64, 64, 4))):
        Image.fromarray(generator.integers(0, 255, size, dtype=np.uint8)).save(folder / f"{name}.png")
    film(folder / "over.mp4", FILM, first=20)
    (folder / "frames").mkdir()
    for number in range(5):
        pixels = generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "frames" / f"{number}.png")
    return folder


def vae_for(name: str):
    if name != "layers":
        return vae_of(16, video=True)
    import comfy.sd
    from comfy.ldm.wan.vae import WanVAE

    torch.manual_seed(3)
    config = {"dim": 8, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": []}
    config |= {"temperal_downsample": [False, True, True], "image_channels": 4, "conv_out_channels": 4}
    with torch.inference_mode():
        return comfy.sd.VAE(sd={k: torch.randn(v.shape) / 10 for k, v in WanVAE(**config).state_dict().items()})


def kind_and_how(made, name: str) -> tuple:
    key = next((key for key in (name, name.split(",")[0].split(" of")[0]) if key in KINDS), None)
    kind = made.kinds._KINDS[KINDS[key][0]][KINDS[key][1]] if key else None
    return kind, made.how.LAYERED if name == "layers" else None


def pixels_of(path, size: tuple[int, int], mode: str = "RGB") -> torch.Tensor:
    """An image that covers a size, cut at its middle, (1, height, width, …)."""
    image = Image.open(path).convert(mode)
    scale = max(a / b for a, b in zip(size, image.size, strict=True))
    image = image.resize([max(a, int(b * scale + 0.5)) for a, b in zip(size, image.size, strict=True)], 1)
    left, upper = ((a - b) // 2 for a, b in zip(image.size, size, strict=True))
    image = image.crop((left, upper, left + size[0], upper + size[1]))
    return torch.from_numpy(np.array(image)).float()[None] / 255


def filmed(path, numbers, size: tuple[int, int], folder) -> torch.Tensor:
    import av

    with av.open(str(path)) as container:
        images = [frame.to_image() for frame in container.decode(video=0)]
    found = []
    for number in numbers:
        images[number].save(folder / "one.png")
        found.append(pixels_of(folder / "one.png", size))
    return torch.cat(found)


def by_hand(name: str, place, vae, folder) -> tuple:
    """What ComfyUI's nodes give: both conditionings, and the latent."""
    from comfy_extras import nodes_edit_model, nodes_hunyuan, nodes_qwen, nodes_wan

    both = [
        Reads().encode_from_tokens_scheduled((text, [])) for text in ("a cat", "a dog" if "--n" in LINES[name] else "")
    ]
    size = (72, 64) if name == "control, shorter" else (64, 64)
    first = pixels_of(place / "a.png", size)
    if name == "layers":
        picture = pixels_of(place / "b.png", size, "RGBA")
        latent = {"samples": vae.encode(picture)}
        both = [nodes_edit_model.ReferenceLatent.execute(one, latent).args[0] for one in both]
        return (*both, nodes_qwen.EmptyQwenImageLayeredLatentImage.execute(64, 64, 2).args[0])
    if name == "frame read":
        seen = vision_of(projects=True).encode_image(first, crop=False)
        node = nodes_hunyuan.TextEncodeHunyuanVideo_ImageToVideo
        both = [node.execute(Reads(), seen, text, 2).args[0] for text in ("a cat", "a dog")]
        node = nodes_hunyuan.HunyuanImageToVideo
        found = [node.execute(one, vae, 64, 64, 5, 1, "v1 (concat)", first).args for one in both]
        return found[0][0], found[1][0], found[0][1]
    more, length = {}, 5
    if name == "control and frame":
        over = torch.cat([pixels_of(place / "frames" / f"{number}.png", size) for number in range(5)])
        more = {"start_image": first, "clip_vision_output": vision_of().encode_image(first, crop=False)}
    elif name == "control of a picture":
        over, length = first, 1
    else:
        length = 9 if "shorter" in name else 5
        over = filmed(place / "over.mp4", [min(n, FILM - 1) for n in range(length)], size, folder)
    return nodes_wan.WanFunControlToVideo.execute(*both, vae, *size, length, 1, control_video=over, **more).args


@pytest.mark.parametrize("name", LINES)
def test_what_a_prompt_names_is_what_comfyuis_nodes_make_of_it(name, made, place, monkeypatch, tmp_path):
    """Of what a graph has loaded, and through the cache of a command."""
    prompts = made.prompts.read_prompts([LINES[name].format(place)])
    (kind, how), vae, eye = kind_and_how(made, name), vae_for(name), vision_of(projects=name == "frame read")
    with torch.inference_mode():
        (found,) = made.sample_inputs.loaded_inputs(prompts, kind, how, Reads(), vae, eye)
        assert alike(list(found), list(by_hand(name, place, vae, tmp_path))[:2])
    files = files_that_load(made, monkeypatch, tmp_path, vae, eye, kind, how)
    for kept in encoded_twice(made, monkeypatch, prompts, tmp_path, files):
        assert alike(list(kept), list(found))


def test_a_text_encoder_is_not_shown_what_it_cannot_read(made, place):
    prompts = made.prompts.read_prompts([LINES["frame read"].format(place)])
    kind, _ = kind_and_how(made, "frame read")
    with torch.inference_mode(), pytest.raises(made.errors.TrainError, match="clip_vision sees nothing that the text"):
        made.sample_inputs.loaded_inputs(prompts, kind, None, Reads(), vae_of(16, video=True), vision_of())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_sample_is_comfyuis_and_disturbs_nothing(name, train, made, place, monkeypatch, tmp_path):
    """Bit for bit; and by ComfyUI's sampler, on its nodes' conditioning and latent, from the file that was saved."""
    import comfy.sample

    family, model_class, config = FAMILIES[name]
    monkeypatch.setitem(MODELS, family, (model_class, MODELS[family][1] | config))
    model, vae, (kind, how) = model_of(family, monkeypatch), vae_for(name), kind_and_how(made, name)
    lines = [LINES[name].format(place)]
    with torch.inference_mode():
        prompts = made.prompts.read_prompts(lines)
        inputs = made.sample_inputs.loaded_inputs(prompts, kind, how, Reads(), vae, vision_of(projects=True))
        positive, negative, latent = by_hand(name, place, vae, tmp_path)
    empty = torch.zeros(latent["samples"].shape)
    more = {"ema_decay": 0, "mixed_precision": "no", "lines": lines, "vae": vae, "inputs": inputs}
    more |= {"shape": empty.shape[1:], "condition": inputs[0][0][0], "max_train_steps": 2}
    more |= {"form": made.outputs.Apart()} if how else {}
    found, told = trained(train, model, family, tmp_path / "sampled", **more)
    plain, _ = trained(train, model, family, tmp_path / "plain", False, **more)
    assert same(found, plain)
    assert [sample.step for sample in told] == [0, 2]
    patched = train.adapter_files.with_adapter(model, str(tmp_path / "sampled" / "adapter.safetensors")).model
    for one, sample in ((model, told[0]), (patched, told[1])):
        with torch.inference_mode():
            conditions = [[[text, extra | {"guidance": 6.0}] for text, extra in some] for some in (positive, negative)]
            noise = comfy.sample.prepare_noise(empty, 3)
            cfg = 1.0 if train.sampling.is_guided(model) else {"wan": 5.0}.get(family, 4.0)
            made_of = comfy.sample.sample(
                one, noise, 2, cfg, "euler", "simple", *conditions, empty, seed=3, disable_pbar=True
            )
            parts = made_of.split(1, dim=2) if how else [made_of]
            pixels = torch.cat([vae.decode(part).reshape(-1, 64, 64, sample.frames.shape[-1]) for part in parts])
        assert (pixels.clamp(0, 1) * 255 - sample.frames.float()).abs().max() < 1.5, sample.step
    assert not torch.equal(told[0].frames, told[1].frames)
    endings = ["_0.png", "_1.png", "_2.png"] if how else [".webp"]
    assert [path.rpartition("_3")[2] for path in told[1].paths] == endings
    if how:
        with Image.open(told[1].paths[2]) as image:
            assert image.mode == "RGBA"
            assert np.array_equal(np.array(image), told[1].frames[2].numpy())
        assert told[1].picture.shape == (64, 192, 4)


def test_layers_alone_are_numbered_from_the_first_layer(made, tmp_path):
    """Trained without the whole picture, it is sampled without it."""
    prompt = made.prompts.read_prompts(["a --w 64 --h 64 --f 2"])[0]
    vae, form = vae_for("layers"), made.outputs.Apart(whole=False)
    patcher = SimpleNamespace(model=SimpleNamespace(latent_format=SimpleNamespace(latent_channels=16)))
    shape = form.shape(patcher, prompt, vae)
    assert shape == (1, 16, 2, 8, 8)
    with torch.inference_mode():
        paths = form.decoded(vae, normal(1, *shape)).write(str(tmp_path / "x"))
    assert [path.rpartition("x")[2] for path in paths] == ["_1.png", "_2.png"]


class Sings(Reads):
    """A text encoder whose lyrics, and whose numbers, depend on all that it is told."""

    def tokenize(self, text: str, lyrics: str = "", **more: object) -> tuple:
        return text, lyrics, sorted(more.items())

    def encode_from_tokens_scheduled(self, tokens: tuple) -> list:
        seed = sum(map(ord, str(tokens)))
        return [
            [
                normal(seed, 1, 7, tiny_families.WIDTH),
                {"conditioning_lyrics": normal(seed + 1, 1, 12, tiny_families.WIDTH)},
            ]
        ]


SONG = r"pop --lyrics la\nla --seconds 1.2 --bpm 90 --keyscale E minor --timesignature 3 --language ja --d 3 --s 2"


def test_a_song_is_comfyuis_and_disturbs_nothing(pack, train, made, monkeypatch, tmp_path):
    import av
    import comfy.sample
    from comfy_extras import nodes_audio

    import nodes as comfyui

    ace = pytest.importorskip("comfy_extras.nodes_ace")
    if not hasattr(ace, "TextEncodeAceStepAudio15"):
        pytest.skip("this ComfyUI has no ACE-Step 1.5: update it")
    architecture = importlib.import_module(f"{pack.__name__}.lyco_core.architectures").ARCHITECTURES["ace_step_1_5"]
    monkeypatch.setattr(
        importlib.import_module(f"{pack.__name__}.lyco_core.model"), "recognise", lambda _: (architecture, "comfyui")
    )
    tiny = tiny_families.models()["ace_step_1_5"]
    model, vae = every_family.load(tiny, every_family.float_weights(tiny)[0]), vae_of(16, video=False)
    # ComfyUI's own for sound has no small sizes: each number of two channels is a moment.
    vae.decode = lambda latent: latent[:, :2].sin().movedim(1, -1).repeat_interleave(1920, 1)
    vae.memory_used_decode = lambda shape, dtype: 0
    options = train.options.train_options({"sample_prompts": [SONG], "sample_at_first": True})
    with torch.inference_mode():
        sampling = train.samples.from_graph(options, model, Sings(), vae)
        node = ace.TextEncodeAceStepAudio15
        told_to = {"tags": "pop", "lyrics": "la\nla", "seed": 3, "bpm": 90, "duration": 1.2}
        told_to |= {"timesignature": "3", "language": "ja"}
        rest = {
            one.id: one.default for one in node.define_schema().inputs if one.id not in {*told_to, "clip", "keyscale"}
        }
        positive = node.execute(Sings(), **told_to, keyscale="E minor", **rest).args[0]
        (negative,) = comfyui.ConditioningZeroOut().zero_out(positive)
        latent = ace.EmptyAceStep15LatentAudio.execute(1.2, 1).args[0]
    (asked,) = sampling.prompts
    assert alike([asked.positive, asked.negative], [positive, negative])
    empty = torch.zeros(latent["samples"].shape)
    more = {"ema_decay": 0, "mixed_precision": "no", "lines": [SONG], "vae": vae, "form": sampling.form}
    more |= {"inputs": [(asked.positive, asked.negative)], "shape": empty.shape[1:], "condition": positive[0]}
    found, told = trained(train, model, "ace_step_1_5", tmp_path / "sampled", max_train_steps=2, **more)
    plain, _ = trained(train, model, "ace_step_1_5", tmp_path / "plain", False, max_train_steps=2, **more)
    assert same(found, plain)
    patched = train.adapter_files.with_adapter(model, str(tmp_path / "sampled" / "adapter.safetensors")).model
    heard = []
    for one, sample in ((model, told[0]), (patched, told[1])):
        with torch.inference_mode():
            noise = comfy.sample.prepare_noise(empty, 3)
            made_of = comfy.sample.sample(
                one, noise, 2, 6.0, "euler", "simple", positive, negative, empty, seed=3, disable_pbar=True
            )
            node = nodes_audio.VAEDecodeAudio
            audio = (node.execute if hasattr(node, "execute") else node().decode)(
                vae=vae, samples={"samples": made_of}
            )[0]
        with av.open(sample.paths[0]) as container:
            assert container.format.name == "flac"
            assert container.streams.audio[0].rate == audio["sample_rate"]
            parts = [frame.to_ndarray() for frame in container.decode(audio=0)]
            scale = 2.0 ** (8 * parts[0].dtype.itemsize - 1)
            wave = torch.from_numpy(np.concatenate([part.reshape(-1, 2) for part in parts])).float().T / scale
        assert (wave - audio["waveform"][0]).abs().max() < 1e-4
        assert (sample.frames, sample.picture) == (None, None)
        heard.append(wave)
    assert not torch.equal(*heard)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pop --language klingon", "prompt 1: language is 'klingon', expected one of ar, az"),
        ("pop --keyscale H minor", "prompt 1: keyscale is 'H minor', expected one of C major"),
        ("pop --timesignature 5", "prompt 1: timesignature is '5', expected one of 2, 3, 4, 6"),
    ],
)
def test_a_song_that_the_node_does_not_take_is_refused(line, message, made):
    pytest.importorskip("comfy_extras.nodes_ace")
    with pytest.raises(made.errors.TrainError) as error:
        made.sound.sound_inputs(made.prompts.read_prompts([line]), [0], "ace_step_1_5", Sings())
    assert str(error.value).startswith(message)
    with pytest.raises(made.errors.TrainError, match="prompt 1: bpm: the model does not read it; leave it out"):
        made.sound.sound_inputs(made.prompts.read_prompts(["pop --bpm 90"]), [0], "ace_step", Sings())
