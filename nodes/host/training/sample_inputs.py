"""What samples are made of: prompts and their pictures, through the encoders before the training begins.

By the same functions as a dataset's captions, first frames and control images. A command keeps what they make in the
cache of its first dataset; a graph, whose encoders are loaded, keeps it in memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ....lyco_core.errors import TrainError
from ....lyco_core.train.dataset import Dataset
from ....lyco_core.train.distributed import World
from ....lyco_core.train.first_frames import FirstFrame
from ....lyco_core.train.references import References
from ....lyco_core.train.sample_prompt import SamplePrompt
from ..protocols import CLIP, VAE, Conditioning
from .cache import Entry, identity, read_conditioning
from .encoders import Encoding
from .encoding import encode_captions, latent_of, store_latent, with_encoder
from .first_frames import SEEN, FrameEncoder, asked, read_first_frame
from .media import read_covering, read_covering_frames, read_reference
from .outputs import extent_of
from .pieces import Text, text_of, what_looks
from .references import require_nodes, seen, with_references

Inputs = tuple[list[Conditioning], list[Conditioning]]
"""What a sample is made of: its prompt and its negative prompt, with the pictures in both."""


PLAIN = Dataset(image_directory=".")
"""A dataset that asks for nothing of control images."""


@dataclasses.dataclass(frozen=True)
class _Reference:
    """A control image of a prompt, and where its latent is kept."""

    path: str
    dataset: Dataset
    """Which says the image's size."""
    entry: Entry
    mode: str
    """See `media.opened_image`."""

    @property
    def pixels(self) -> Tensor:
        """(1, height, width, 3)."""
        return read_reference(self.path, self.dataset, self.mode)


@dataclasses.dataclass(frozen=True)
class _Job:
    """A prompt, and where what is made of it is kept."""

    prompt: SamplePrompt
    references: list[_Reference]
    first: Entry | None
    texts: tuple[Text, Text]


def encoded_inputs(prompts: Sequence[SamplePrompt], dataset: Dataset, encoders: Encoding, world: World) -> list[Inputs]:
    """What is made of prompts, or was and is in the cache of a dataset, which says how large control images are.

    Of several processes one encodes. Raises `TrainError` for a picture that cannot be read.
    """
    _require_nodes(prompts, encoders.references)
    jobs = [_job(prompt, dataset, encoders) for prompt in prompts]
    if world.writes:
        _encode(jobs, encoders)
    world.wait()
    return [_read(job, encoders.references) for job in jobs]


def loaded_inputs(
    prompts: Sequence[SamplePrompt],
    kind: FirstFrame | None,
    how: References | None,
    clip: CLIP,
    vae: VAE,
    vision: Any = None,
) -> list[Inputs]:
    """The same by what a graph has loaded; control images come to the size of their sample.

    Raises `TrainError` for an image encoder that sees nothing for a text encoder too.
    """
    _require_nodes(prompts, how)
    return [_made(prompt, kind, how, clip, vae, vision) for prompt in prompts]


def _made(
    prompt: SamplePrompt, kind: FirstFrame | None, how: References | None, clip: CLIP, vae: VAE, vision: Any
) -> Inputs:
    pictures = [read_reference(path, _sized(prompt), _mode(how)) for path in prompt.control_image_path]
    latents = [latent_of(vae, *one) for one in zip(pictures, prompt.control_image_path, strict=True)]
    first = FrameEncoder(kind, vae, vision).conditioning(*_beside(prompt, vae)) if kind and _frames(prompt) else {}
    if kind and kind.asks:
        output = first.pop(SEEN)
        if getattr(output, kind.sees, None) is None:
            raise TrainError(
                "clip_vision sees nothing that the text encoder reads; connect the one that ComfyUI's workflow of the "
                "model loads: llava_llama3_vision for HunyuanVideo"
            )
        texts = [asked(clip, text, kind, output) for text in _texts(prompt)]
    else:
        texts = [seen(clip, text, pictures, how) for text in _texts(prompt)]
    return _both(texts, latents, how, first)


def _job(prompt: SamplePrompt, dataset: Dataset, encoders: Encoding) -> _Job:
    sized, cache, kind = _sized(prompt, dataset), dataset.cache, encoders.first_frame
    mode = _mode(encoders.references)
    shape = [sized.resolution, sized.no_resize_control, sized.control_resolution, *([mode] if mode != "RGB" else [])]
    references = [
        _Reference(
            path, sized, Entry(cache, "sample_control", "control", identity(path), shape, encoders.vae_identity()), mode
        )
        for path in prompt.control_image_path
    ]
    first = None
    if kind and _frames(prompt):
        size = [prompt.width, prompt.height, prompt.frame_count]
        made_from = [identity(path) for path in _frames(prompt)], size, encoders.vae_identity()
        first = Entry(cache, "sample_first", kind.node, *made_from, what_looks(encoders))
    frame = first if kind and kind.asks else None
    positive, negative = (text_of(cache, text, encoders, references, frame) for text in _texts(prompt))
    return _Job(prompt, references, first, (positive, negative))


def _encode(jobs: Sequence[_Job], encoders: Encoding) -> None:
    """Have the cache hold all that is made of prompts."""
    references = [one for one in _once(one for job in jobs for one in job.references) if not one.entry.is_there]
    if references:
        with_encoder(encoders.load_vae, store_latent, references, encoders.encoded)
    first = [job for job in jobs if job.first and not job.first.is_there]
    if first and (kind := encoders.first_frame):
        with_encoder(partial(FrameEncoder.of, kind, encoders), _store_first, first, encoders.encoded)
    encode_captions(_once(text for job in jobs for text in job.texts), encoders)


def _once(some: Iterable[Any]) -> list[Any]:
    """What is kept in one place once."""
    return list({one.entry.path: one for one in some}.values())


def _store_first(encoder: FrameEncoder, job: _Job) -> None:
    assert job.first is not None
    encoder.write(job.first, *_beside(job.prompt, encoder.vae))


def _read(job: _Job, how: References | None) -> Inputs:
    latents = [one.entry.read()[0]["latent"] for one in job.references]
    first = read_first_frame(job.first) if job.first else {}
    return _both([[read_conditioning(text.entry)] for text in job.texts], latents, how, first)


def _both(
    texts: Sequence[list[Conditioning]], latents: Sequence[Tensor], how: References | None, first: Mapping[str, Any]
) -> Inputs:
    """Texts with the pictures that belong to them."""
    positive, negative = (
        [[entry[0], entry[1] | first] for entry in (with_references(one, latents, how) for one in text)]
        for text in texts
    )
    return positive, negative


def _texts(prompt: SamplePrompt) -> tuple[str, str]:
    return prompt.prompt, prompt.negative_prompt or ""


def _frames(prompt: SamplePrompt) -> list[str]:
    """The paths of what is read beside the noise: a first frame, a last one, a control video."""
    return [path for path in (prompt.image_path, prompt.end_image_path, prompt.control_video_path) if path]


def _beside(prompt: SamplePrompt, vae: VAE) -> tuple[Tensor, int, Tensor | None]:
    """The arguments of `FrameEncoder.conditioning`: all at the size of the video."""
    frames, height, width = extent_of(prompt, vae)
    side = vae.spacial_compression_decode()
    size, length = (width * side, height * side), (frames - 1) * (vae.temporal_compression_decode() or 1) + 1
    video = prompt.control_video_path
    control = read_covering_frames(video, size, length) if video else None
    ends = [read_covering(path, size) for path in (prompt.image_path, prompt.end_image_path) if path]
    if control is not None and not ends:
        ends = [control[:1]]
    return torch.cat(ends), length, control


def _mode(how: References | None) -> str:
    return "RGBA" if how and how.layers else "RGB"


def _sized(prompt: SamplePrompt, like: Dataset = PLAIN) -> Dataset:
    """What says how large a prompt's control images are: a dataset that asks for the same, of the sample's size."""
    size, asked = (prompt.width, prompt.height), (like.no_resize_control, like.control_resolution)
    return Dataset(image_directory=".", resolution=size, no_resize_control=asked[0], control_resolution=asked[1])


def _require_nodes(prompts: Iterable[SamplePrompt], how: References | None) -> None:
    if how and any(prompt.control_image_path for prompt in prompts):
        require_nodes(how)
