"""Control images: through ComfyUI's own nodes into the cache, and out of it."""

import importlib
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lyco_testing.tables import TRAINED
from PIL import Image
from safetensors.torch import save_file

KEY = "reference_latents"


@pytest.fixture(scope="module")
def made(pack) -> SimpleNamespace:
    rooms = ("encoders", "encoding", "references", "media")
    names = {name: f"nodes.host.training.{name}" for name in rooms}
    names |= {"dataset": "lyco_core.train.dataset", "how": "lyco_core.train.references"}
    return SimpleNamespace(**{k: importlib.import_module(f"{pack.__name__}.{v}") for k, v in names.items()})


@pytest.fixture(scope="module")
def vae(tmp_path_factory, pack) -> str:
    """A VAE of images with random weights."""
    import comfy.taesd.taesd

    path = tmp_path_factory.mktemp("vae") / "vae.safetensors"
    torch.manual_seed(0)
    small = comfy.taesd.taesd.TAESD(latent_channels=16).state_dict()
    save_file({key: torch.randn(value.shape) / 30 for key, value in small.items()}, path)
    return str(path)


class Sees:
    """A text encoder that tells what it was asked for: tokens are the text, and what it saw."""

    def __init__(self, asked: list) -> None:
        self.asked = asked

    def tokenize(self, text: str, images=(), **more: object) -> tuple:
        self.asked.append((text, [tuple(image.shape) for image in images], more))
        return text, [float(image.mean()) for image in images]

    def encode_from_tokens_scheduled(self, tokens: tuple) -> list:
        text, means = tokens
        values = torch.tensor([[float(len(text)), *means]])
        return [[values[:, :, None].expand(-1, -1, 8).contiguous(), {"pooled_output": torch.ones(1, 4)}]]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two images of 96 x 64, and two controls for each: one of their size and one wider, with transparency."""
    generator = np.random.default_rng(0)
    for name, size in (("", (64, 96, 3)), ("_0", (64, 96, 3)), ("_1", (60, 200, 4))):
        folder = tmp_path / ("controls" if name else "images")
        folder.mkdir(exist_ok=True)
        for number in range(2):
            pixels = generator.integers(0, 255, size, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}{name}.png")
            (folder / f"{number}.txt").write_text("make it blue" if number else "make it red")
    return tmp_path


def encoded(made, vae: str, pictures: Path, how, monkeypatch, *, drops: bool = False, **settings: object):
    asked: list = []
    monkeypatch.setattr(made.encoders, "_load_clip", lambda encoders: Sees(asked))
    monkeypatch.setattr(made.encoders, "_require_text_encoders", lambda encoders: None)
    entry = {"image_directory": "images", "control_directory": "controls", "resolution": [96, 64], **settings}
    (dataset,) = made.dataset.parse_datasets({"datasets": [entry]}, pictures)
    encoders = made.encoders.Encoders(TRAINED["flux1"], vae, (vae,), "flux", references=how, drops_captions=drops)
    return made.encoding.encode_datasets([dataset], encoders), asked


def test_reference_latents_are_what_the_vae_makes_of_each_control(made, vae, pictures, monkeypatch):
    import comfy.sd
    import comfy.utils

    how = made.how.References("FLUX.2")
    found, asked = encoded(made, vae, pictures, how, monkeypatch, control_resolution=[96, 96])
    assert sorted(text for text, _, _ in asked) == ["", "make it blue", "make it red"]
    assert not any(images for _, images, _ in asked)
    with torch.inference_mode():
        loaded = comfy.sd.VAE(sd=comfy.utils.load_torch_file(vae))
        for number, item in enumerate(found.items):
            references = item.condition[1][KEY]
            assert "reference_latents_method" not in item.condition[1]
            assert [tuple(latent.shape) for latent in references] == [(1, 16, 10, 14), (1, 16, 6, 20)]
            pixels = Image.open(pictures / "controls" / f"{number}_1.png").convert("RGB")
            pixels = pixels.resize((160, 48), Image.Resampling.LANCZOS)  # of at most 96 x 96 pixels
            wanted = loaded.encode(torch.from_numpy(np.array(pixels)).float().div(255)[None])
            assert torch.equal(references[1], wanted)
    assert "reference_latents" not in found.empty[1]


def test_a_changed_control_image_is_encoded_again(made, vae, pictures, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "lyco")
    how = made.how.EDITIONS["edit-2509"]
    first, asked = encoded(made, vae, pictures, how, monkeypatch)
    assert "0 of 6 latents are in the cache" in caplog.text
    assert "0 of 3 captions are in the cache" in caplog.text
    assert len(asked) == 3
    pixels = np.asarray(Image.open(pictures / "controls" / "1_0.png"))
    Image.fromarray(255 - pixels).save(pictures / "controls" / "1_0.png")
    caplog.clear()
    second, asked = encoded(made, vae, pictures, how, monkeypatch)
    assert "5 of 6 latents are in the cache" in caplog.text
    assert "2 of 3 captions are in the cache" in caplog.text  # the text encoder sees it
    assert [text.endswith("make it blue") for text, _, _ in asked] == [True]
    same, other = (
        [torch.equal(*pair) for pair in zip(*(run.items[n].condition[1][KEY] for run in (first, second)), strict=True)]
        for n in range(2)
    )
    assert (same, other) == ([True, True], [False, True])
    caplog.clear()
    _, asked = encoded(made, vae, pictures, how, monkeypatch)
    assert "6 of 6 latents are in the cache" in caplog.text
    assert not asked
    _, asked = encoded(made, vae, pictures, how, monkeypatch, no_resize_control=True)
    assert len(asked) == 2


@pytest.mark.parametrize("edition", ["edit", "edit-2509", "edit-2511"])
def test_the_text_encoder_sees_what_comfyuis_node_shows_it(edition, made, vae, pictures, monkeypatch):
    """Against the node itself, given the same pixels and no cache."""
    nodes_qwen = pytest.importorskip("comfy_extras.nodes_qwen")
    how = made.how.EDITIONS[edition]
    if how.most == 1:
        for number in range(2):
            (pictures / "controls" / f"{number}_1.png").unlink()
    found, asked = encoded(made, vae, pictures, how, monkeypatch, drops=True)
    told: list = []
    pixels = [
        made.media.read_control(
            str(pictures / "controls" / f"1_{n}.png"),
            str(pictures / "images" / "1.png"),
            made.dataset.Dataset(image_directory="x", resolution=(96, 64)),
        )
        for n in range(how.most if how.most == 1 else 2)
    ]
    named = {"image": pixels[0]} if how.most == 1 else {"image1": pixels[0], "image2": pixels[1]}
    with torch.inference_mode():
        (wanted,) = getattr(nodes_qwen, how.node).execute(Sees(told), "make it blue", None, **named).args[0]
    assert told[0] in asked
    condition = found.items[1].condition
    assert torch.equal(condition[0], wanted[0])
    assert len(condition[1][KEY]) == len(pixels)
    assert condition[1].get("reference_latents_method", "") == how.method
    empty = found.items[1].dropped
    assert torch.equal(empty[0][0, 1:], condition[0][0, 1:])  # the same pictures
    assert float(empty[0][0, 0, 0]) == float(condition[0][0, 0, 0]) - len("make it blue")
    assert all(torch.equal(a, b) for a, b in zip(empty[1][KEY], condition[1][KEY], strict=True))
