"""Trainings of tiny models that are sampled meanwhile, with small VAEs and captions that nobody had to encode."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .comfy_models import MODELS, tiny_model
from .quantized_models import TOKENS, normal

LINES = (
    "a cat --w 64 --h 80 --s 3",
    "# no prompt",
    "a dog --w 64 --h 64 --d 7 --s 2 --n a bird --l 3 --fs 2",
)
RUNNABLE = {"z_image": {"dim": 256, "axes_dims": [32, 48, 48]}}
"""The tiny models are made for their keys; these sizes let them compute."""

TEXTS = ("a cat", "a dog", "a bird", "")


def model_of(architecture: str, monkeypatch: pytest.MonkeyPatch):
    name, config = MODELS[architecture]
    monkeypatch.setitem(MODELS, architecture, (name, config | RUNNABLE.get(architecture, {})))
    with torch.inference_mode():
        return tiny_model(architecture)


def vae_of(channels: int, *, video: bool):
    """ComfyUI's own small VAE of random weights."""
    import comfy.sd
    from comfy.taesd.taesd import TAESD

    torch.manual_seed(0)
    made = _of_videos(channels) if video else TAESD(latent_channels=channels)
    with torch.inference_mode():  # ComfyUI's classes leave their weights to chance
        weights = {key: _drawn(tensor) for key, tensor in made.state_dict().items()}
        last = [key for key in weights if "decoder" in key and key.endswith(".bias")][-1]
        weights[last] = torch.full_like(weights[last], 0.5)
        return comfy.sd.VAE(sd=weights)


def _of_videos(channels: int) -> torch.nn.Module:
    taehv = pytest.importorskip("comfy.taesd.taehv", reason="this ComfyUI has no small VAE of videos: update it")
    return taehv.TAEHV(latent_channels=channels, latent_format=None)


def _drawn(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dim() < 2:
        return torch.zeros_like(tensor) if tensor.dim() else tensor.detach().clone()
    return torch.randn(tensor.shape) * tensor[0].numel() ** -0.5


def caption(text: str) -> list:
    seed = TEXTS.index(text)
    return [normal(seed, 1, TOKENS, 48), {"pooled_output": normal(seed + 9, 1, 24)}]


def trained(train, model, architecture: str, folder: Path, sampling: bool = True, vae=None, high=None, **more):
    """(the adapter's numbers, what was told of samples).

    `inputs`: what the prompts are made of, if that is more than their captions; `seen`: what items hold beside theirs;
    `condition` and `shape`: of all items; `form`: what kind of sample it is.
    """
    lines = more.pop("lines", LINES)
    shape = more.pop("shape", (16, *([3] if architecture == "wan" else []), 8, 8))
    condition, form = more.pop("condition", None), more.pop("form", None)
    tell, inputs, seen = more.pop("tell", {}), more.pop("inputs", None), more.pop("seen", {})
    settings = {
        "network_module": "lokr",
        "network_dim": 4,
        "max_train_steps": 4,
        "learning_rate": 3e-2,
        "save_precision": "fp32",
        "ema_decay": 0.9,
        "rank_dropout": 0.2,
        "module_dropout": 0.2,
        **more,
    }
    if sampling:
        settings |= {"sample_prompts": lines, "sample_every_n_steps": 2, "sample_at_first": True}
    options = train.options.train_options(settings)
    texts = [caption(text) for text in TEXTS]
    conditions = [condition or [texts[i][0], texts[i][1] | seen] for i in range(2)]
    items = [train.items.Item(normal(i, *shape), one, f"item {i}") for i, one in enumerate(conditions)]
    told, made = [], None
    prompts = train.samples.prompts_of(options)
    if prompts:
        vae = vae or vae_of(shape[0], video=architecture == "wan")
        inputs = inputs or [([caption(p.prompt)], [caption(p.negative_prompt or "")]) for p in prompts]
        asked = train.samples.prompted(prompts, inputs, options.run.seed)
        tell |= {"form": form} if form else {}
        made = train.samples.Sampling(asked, lambda: vae, told.append, lambda *why: told.append(why), **tell)
    with torch.inference_mode():
        data, quiet = train.run.Data(items), lambda *_: None
        done = train.run.train(model, data, options, str(folder), quiet, sampling=made, high=high)
    return load_file(done.path), told


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
