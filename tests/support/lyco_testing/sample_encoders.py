"""Text and image encoders that nobody had to train, for the inputs of samples."""

from pathlib import Path
from types import SimpleNamespace

import torch

from .sampled_trainings import caption
from .tables import TRAINED

LOADERS = ("_load_vae", "_load_clip", "load_image_encoder")
"""What opens the files of a command's encoders."""


class Reads:
    """A text encoder that adds what it sees to what it reads."""

    def tokenize(self, text: str, images=(), image_embeds=None, **more: object) -> tuple:
        seen = [*images, *([] if image_embeds is None else [image_embeds])]
        return text.removeprefix("Picture 1: <|vision_start|><|image_pad|><|vision_end|>"), seen

    def encode_from_tokens_scheduled(self, tokens: tuple) -> list:
        text, images = tokens
        found, more = caption(text)
        return [[found + sum(float(image.mean()) for image in images), dict(more)]]


def vision_of(width: int = 8, *, projects: bool = False):
    """An image encoder that sees the mean of each half."""
    import comfy.clip_vision

    def encode_image(image: torch.Tensor, crop: bool) -> comfy.clip_vision.Output:
        assert not crop
        found = comfy.clip_vision.Output()
        halves = torch.stack([half.mean() for half in image.chunk(2, dim=1)])
        found.penultimate_hidden_states = halves[None, :, None].expand(1, 2, width).contiguous()
        if projects:
            found.mm_projected = found.penultimate_hidden_states * 2
        return found

    return SimpleNamespace(encode_image=encode_image)


def alike(one: object, other: object) -> bool:
    """Whether two conditionings are the same, all the way down."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    return alike(vars(one), vars(other)) if hasattr(one, "__dict__") else one == other


def files_that_load(made, monkeypatch, folder: Path, vae, eye, kind, how):
    """The encoders of a command whose files are these: a VAE, `Reads` and an image encoder."""
    file = folder / "file.safetensors"
    file.write_bytes(b"")
    for load, given in zip(LOADERS, (vae, Reads(), eye), strict=True):
        monkeypatch.setattr(made.encoders, load, lambda _, given=given: given)
    return made.encoders.Encoders(TRAINED["wan"], str(file), (str(file),), "", kind, str(file), how)


def encoded_twice(made, monkeypatch, prompts, folder: Path, files):
    """The inputs of one prompt as they are encoded, and as the cache, which has to have it all, gives them again."""
    dataset = made.dataset.Dataset(image_directory=str(folder))
    for _ in range(2):
        (found,) = made.sample_inputs.encoded_inputs(prompts, dataset, files, made.distributed.World())
        yield found
        for load in LOADERS:
            monkeypatch.setattr(made.encoders, load, None)
