"""Pictures and their layers: through ComfyUI's VAE with transparency into the cache, and into Qwen-Image-Layered."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lyco_testing.comfy_models import MODELS, tiny_model
from lyco_testing.tables import TRAINED
from PIL import Image
from safetensors.torch import save_file

KEY = "reference_latents"


@pytest.fixture(scope="module")
def made(pack) -> SimpleNamespace:
    names = {name: f"nodes.host.training.{name}" for name in ("encoders", "encoding", "pieces", "cache", "flow_model")}
    names |= {"dataset": "lyco_core.train.dataset", "errors": "lyco_core.errors", "how": "lyco_core.train.layers"}
    names |= {"options": "lyco_core.train.options"}
    return SimpleNamespace(**{k: importlib.import_module(f"{pack.__name__}.{v}") for k, v in names.items()})


@pytest.fixture(scope="module")
def place(tmp_path_factory, pack) -> Path:
    """Two VAEs of Qwen-Image with random weights, with and without transparency, and two pictures of two layers."""
    wan = pytest.importorskip("comfy.ldm.wan.vae")
    folder = tmp_path_factory.mktemp("layers")
    torch.manual_seed(3)
    for channels in (3, 4):
        config = {"dim": 8, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": []}
        config |= {"temperal_downsample": [False, True, True], "image_channels": channels}
        config |= {"conv_out_channels": channels} if channels == 4 else {}
        state = wan.WanVAE(**config).state_dict()
        save_file({k: torch.randn(v.shape) / 10 for k, v in state.items()}, folder / f"vae{channels}.safetensors")
    (folder / "images").mkdir()
    generator = np.random.default_rng(0)
    for number in range(2):
        for name, size in (("", (64, 96, 3)), ("_1", (64, 96, 4)), ("_2", (96, 128, 4))):
            pixels = generator.integers(0, 255, size, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{number}{name}.png")
        (folder / "images" / f"{number}.txt").write_text("a house")
    return folder


def encoded(made, place: Path, channels: int = 4, **how: object):
    import dataclasses

    entry = {"image_directory": "images", "multiple_target": True, "resolution": [96, 64], "cache_directory": "cache"}
    (dataset,) = made.dataset.parse_datasets({"datasets": [entry]}, place)
    vae = str(place / f"vae{channels}.safetensors")
    references = dataclasses.replace(made.how.LAYERED, **how)
    encoders = made.encoders.Encoders(TRAINED["qwen_image"], vae, (vae,), references=references)
    for caption in ("a house", ""):
        tensor = torch.randn((1, 7, 48), generator=torch.Generator().manual_seed(len(caption)))
        made.cache.store_conditioning(made.pieces.caption_entry(dataset.cache, caption, encoders), [tensor, {}])
    return made.encoding.encode_datasets([dataset], encoders)


def test_each_layer_is_encoded_for_itself_and_the_picture_is_the_reference(made, place):
    import comfy.sd
    import comfy.utils

    found, alone = encoded(made, place), encoded(made, place, whole=False)
    with torch.inference_mode():
        vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(place / "vae4.safetensors")))
        for number, item in enumerate(found.items):
            latents = []
            for name in ("", "_1", "_2"):
                image = Image.open(place / "images" / f"{number}{name}.png")
                if name == "_2":
                    image = image.resize((96, 72), Image.Resampling.LANCZOS).crop((0, 4, 96, 68))
                # A picture without transparency goes to the VAE as ComfyUI's workflow gives it.
                latents.append(vae.encode(torch.from_numpy(np.array(image)).float().div(255)[None]))
            torch.testing.assert_close(item.latent[None], torch.cat(latents, dim=2))
            (reference,) = item.condition[1][KEY]
            torch.testing.assert_close(reference, latents[0])
            assert torch.equal(alone.items[number].latent, item.latent[:, 1:])
            assert torch.equal(alone.items[number].condition[1][KEY][0], reference)
            assert not torch.equal(latents[0], latents[1])


def test_a_vae_without_transparency_is_refused(made, place):
    with pytest.raises(made.errors.TrainError, match=r"0.png: has layers, and the VAE makes 3 channels and no transp"):
        encoded(made, place, 3)


def test_the_model_takes_all_layers_at_once(made, place, monkeypatch):
    """As the workflow's latent of layers + 1 frames; the reference moves what comes out."""
    name, config = MODELS["qwen_image"]
    more = {"in_channels": 64, "use_additional_t_cond": True, "default_ref_method": "negative_index"}
    monkeypatch.setitem(MODELS, "qwen_image", (name, config | more))
    with torch.inference_mode():
        model = tiny_model("qwen_image")
    items = encoded(made, place).items
    with made.flow_model.loaded(model, made.options.RunOptions()) as flow:
        x = flow.latent(items[0].latent)[None]
        assert x.shape == (1, 16, 3, 8, 12)
        seen = []
        handle = flow.model.diffusion_model.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append((args, kwargs)), with_kwargs=True
        )
        with torch.no_grad():
            one, other = (flow.velocity(x, torch.tensor([0.5]), [item.condition]) for item in items)
        handle.remove()
        assert one.shape == x.shape
        assert not torch.allclose(one, other)
        told = seen[0][1]["ref_latents"][0]
        torch.testing.assert_close(told, flow.model.process_latent_in(items[0].condition[1][KEY][0]))
