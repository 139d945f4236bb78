"""The pictures of samples' prompts: through ComfyUI's own nodes, from the cache or not, into what is sampled."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lyco_testing.comfy_models import MODELS
from lyco_testing.quantized_models import normal
from lyco_testing.sample_encoders import Reads, alike, encoded_twice, files_that_load, vision_of
from lyco_testing.sampled_trainings import caption, model_of, same, trained, vae_of
from PIL import Image

WAN = {"model_type": "t2v", "in_dim": 36}
"""Wan 2.2 image to video."""


@pytest.fixture(scope="module")
def made(pack) -> SimpleNamespace:
    rooms = ("sample_inputs", "encoders", "folders", "media")
    names = {name: f"nodes.host.training.{name}" for name in rooms}
    names |= {"kinds": "lyco_core.train.first_frames", "how": "lyco_core.train.references"}
    names |= {"prompts": "lyco_core.train.prompts", "dataset": "lyco_core.train.dataset"}
    names |= {"distributed": "lyco_core.train.distributed", "errors": "lyco_core.errors"}
    return SimpleNamespace(**{k: importlib.import_module(f"{pack.__name__}.{v}") for k, v in names.items()})


@pytest.fixture
def pictures(tmp_path):
    generator = np.random.default_rng(0)
    for name, size in (("a", (90, 120, 3)), ("b", (64, 64, 4))):
        Image.fromarray(generator.integers(0, 255, size, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


CASES = {
    "first": ("a cat --i {0}/a.png --w 72 --h 64 --f 6 --n a dog", ("wan", 2), None),
    "both": ("a cat --i {0}/a.png --ei {0}/b.png --w 64 --h 64 --f 5", ("wan", 0), None),
    "flux2": ("a cat --ci {0}/a.png --ci {0}/b.png --w 64 --h 80 --n a bird", None, "flux2"),
    "edit-2511": ("a cat --ci {0}/a.png --w 64 --h 64", None, "edit-2511"),
    "text": ("a cat --w 64 --h 64", ("wan", 0), "flux2"),
}


def by_hand(name: str, made, pictures, vae) -> tuple[list, list]:
    """What ComfyUI's nodes give."""
    from comfy_extras import nodes_edit_model, nodes_flux, nodes_qwen, nodes_wan

    def picture(file: str, size: tuple[int, int]) -> torch.Tensor:
        image = Image.open(pictures / file).convert("RGB")
        scale = max(a / b for a, b in zip(size, image.size, strict=True))
        image = image.resize([max(a, int(b * scale + 0.5)) for a, b in zip(size, image.size, strict=True)], 1)
        left, upper = ((a - b) // 2 for a, b in zip(image.size, size, strict=True))
        return (
            torch.from_numpy(np.array(image.crop((left, upper, left + size[0], upper + size[1])))).float()[None] / 255
        )

    texts = {"first": ("a cat", "a dog"), "flux2": ("a cat", "a bird")}.get(name, ("a cat", ""))
    both = [Reads().encode_from_tokens_scheduled((text, [])) for text in texts]
    if name == "first":
        return nodes_wan.WanImageToVideo.execute(*both, vae, 72, 64, 5, 1, picture("a.png", (72, 64))).args[:2]
    if name == "both":
        ends = picture("a.png", (64, 64)), picture("b.png", (64, 64))
        seen = [vision_of().encode_image(end, crop=False) for end in ends]
        return nodes_wan.WanFirstLastFrameToVideo.execute(*both, vae, 64, 64, 5, 1, *ends, *seen).args[:2]
    if name == "flux2":
        for file in ("a.png", "b.png"):
            latent = {"samples": vae.encode(picture(file, (64, 80)))}
            both = [nodes_edit_model.ReferenceLatent.execute(one, latent).args[0] for one in both]
    if name == "edit-2511":
        shown = picture("a.png", (64, 64))
        latent = {"samples": vae.encode(shown)}
        node = nodes_qwen.TextEncodeQwenImageEditPlus
        both = [node.execute(Reads(), text, None, shown).args[0] for text in texts]
        both = [nodes_edit_model.ReferenceLatent.execute(one, latent).args[0] for one in both]
        method = nodes_flux.FluxKontextMultiReferenceLatentMethod
        both = [method.execute(one, "index_timestep_zero").args[0] for one in both]
    return both


@pytest.mark.parametrize("name", CASES)
def test_pictures_are_what_comfyuis_nodes_make_of_them(name, made, pictures, monkeypatch):
    line, frames, edition = CASES[name]
    prompts = made.prompts.read_prompts([line.format(pictures)])
    kind = made.kinds._KINDS[frames[0]][frames[1]] if frames else None
    how = made.how.EDITIONS.get(edition, made.how.References(edition)) if edition else None
    vae, eye = vae_of(16, video=bool(frames)), vision_of()
    with torch.inference_mode():
        (found,) = made.sample_inputs.loaded_inputs(prompts, kind, how, Reads(), vae, eye)
        assert alike(list(found), list(by_hand(name, made, pictures, vae)))
    files = files_that_load(made, monkeypatch, pictures, vae, eye, kind, how)
    for kept in encoded_twice(made, monkeypatch, prompts, pictures, files):
        assert alike(list(kept), list(found))
    if name == "flux2":
        dataset = made.dataset.Dataset(image_directory=str(pictures), no_resize_control=True)
        with pytest.raises(TypeError):  # another size is another picture
            made.sample_inputs.encoded_inputs(prompts, dataset, files, made.distributed.World())


def test_a_first_frame_is_sampled_from_and_disturbs_nothing(train, made, pictures, monkeypatch, tmp_path):
    """Bit for bit; two pictures make two samples, each that of ComfyUI's sampler on its node's conditioning."""
    import comfy.sample
    from comfy_extras.nodes_wan import WanImageToVideo

    name, config = MODELS["wan"]
    monkeypatch.setitem(MODELS, "wan", (name, config | WAN))
    model, vae = model_of("wan", monkeypatch), vae_of(16, video=True)
    lines = [f"a cat --i {pictures}/{file}.png --w 64 --h 64 --f 5 --s 2 --d 3" for file in "ab"]
    kind = made.kinds._KINDS["wan"][2]
    with torch.inference_mode():
        inputs = made.sample_inputs.loaded_inputs(made.prompts.read_prompts(lines), kind, None, Reads(), vae)
    seen = {"concat_latent_image": normal(7, 1, 16, 3, 8, 8), "concat_mask": torch.zeros(1, 1, 3, 8, 8)}
    more = {"ema_decay": 0, "mixed_precision": "no", "lines": lines, "vae": vae, "seen": seen, "inputs": inputs}
    found, told = trained(train, model, "wan", tmp_path / "sampled", **more)
    plain, _ = trained(train, model, "wan", tmp_path / "plain", False, **more)
    assert same(found, plain)
    patched = train.adapter_files.with_adapter(model, str(tmp_path / "sampled" / "adapter.safetensors")).model
    assert not torch.equal(told[-1].frames, told[-2].frames)
    with torch.inference_mode():
        picture = made.media.read_covering(str(pictures / "b.png"), (64, 64))
        empty = torch.zeros(1, 16, 2, 8, 8)
        conditions = WanImageToVideo.execute([caption("a cat")], [caption("")], vae, 64, 64, 5, 1, picture).args[:2]
        noise = comfy.sample.prepare_noise(empty, 3)
        latent = comfy.sample.sample(
            patched, noise, 2, 5.0, "euler", "simple", *conditions, empty, seed=3, disable_pbar=True
        )
        pixels = vae.decode(latent).clamp(0, 1) * 255
    assert (pixels.reshape(told[-1].frames.shape) - told[-1].frames.float()).abs().max() < 1.5


def test_a_workflow_names_files_of_the_input_folder_alone(made, monkeypatch, tmp_path):
    import folder_paths

    inside = tmp_path / "input"
    (inside / "sub").mkdir(parents=True)
    for path in (inside / "a b.png", inside / "sub" / "c.png", tmp_path / "secret.png"):
        path.write_bytes(b"x")
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(inside))
    file = made.folders.input_file
    assert file("image_path", "a b.png") == str(inside / "a b.png")
    assert file("image_path", "sub\\c.png") == file("image_path", "sub/c.png") == str(inside / "sub" / "c.png")
    looked = []
    monkeypatch.setattr(made.folders.os.path, "realpath", lambda path: looked.append(path) or path)
    for path in (
        "../secret.png",
        str(tmp_path / "secret.png"),
        "\\\\server\\share\\a.png",
        "//server/a.png",
        "C:\\a",
        "",
    ):
        with pytest.raises(made.errors.TrainError, match="expected a file in ComfyUI's input folder; a part of it"):
            file("image_path", path)
    assert not looked  # a share's name alone has Windows log on there
    monkeypatch.undo()
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(inside))
    for path in ("link.png", "gone.png", "sub"):
        with pytest.raises(made.errors.TrainError, match="there is no such file in ComfyUI's input folder; put it"):
            file("image_path", path)


def test_what_a_graph_has_loaded_is_what_its_prompts_need(train, made, pictures, monkeypatch):
    """*Train Adapter*'s own way: pictures of the input folder, and what the model reads of them."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(pictures))
    name, config = MODELS["wan"]
    monkeypatch.setitem(MODELS, "wan", (name, config | WAN))
    frames, plain = model_of("wan", monkeypatch), model_of("z_image", monkeypatch)
    monkeypatch.setitem(MODELS, "wan", (name, config | WAN | {"in_dim": 52}))
    controlled = model_of("wan", monkeypatch)

    def asked(model, *lines: str):
        options = train.options.train_options({"sample_prompts": lines, "sample_at_first": True, "seed": 7})
        with torch.inference_mode():
            return train.samples.from_graph(options, model, Reads(), vae_of(16, video=True))

    (found,) = asked(frames, "a cat --i a.png --w 64 --h 64 --n a dog").prompts
    assert (found.seed, found.prompt.image_path) == (7, str(pictures / "a.png"))
    for text, ((given, more),) in (("a cat", found.positive), ("a dog", found.negative)):
        assert torch.equal(given, caption(text)[0])
        assert more["concat_latent_image"].shape == (1, 16, 1, 8, 8)
    for model, line, message in (
        (frames, "a cat", "prompt 1: the model reads a first frame, and no image_path is given"),
        (frames, "a cat --i ../a.png", "prompt 1: image_path is '../a.png', expected a file in ComfyUI's input folder"),
        (plain, "a cat --i a.png", "prompt 1: image_path: the model reads no first frame"),
        (plain, "a cat --ci a.png", "there are control images and Z-Image reads none"),
        (
            controlled,
            "a cat",
            "prompt 1: the model reads a control video, and no control_video_path is given; add --cn",
        ),
    ):
        with pytest.raises(train.errors.TrainError) as error:
            asked(model, line)
        assert str(error.value).startswith(message)
