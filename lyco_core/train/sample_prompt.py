"""What one sample is made from, and where the pictures and videos are that its prompt names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from ..errors import TrainError

__all__ = ["CONTROL_VIDEO", "OF_PICTURES", "OF_SOUND", "SEVERAL", "SINGLE", "SamplePrompt", "about_prompt", "located"]

SEVERAL = "control_image_path"
"""What may be given more than once."""

CONTROL_VIDEO = "control_video_path"
"""What may be a folder too."""

SINGLE = ("image_path", "end_image_path", CONTROL_VIDEO)
"""What is one path."""


@dataclasses.dataclass(frozen=True)
class SamplePrompt:
    """What one sample is made from; None: as its model's family is sampled."""

    prompt: str = ""
    negative_prompt: str | None = None
    width: int = 256
    height: int = 256
    frame_count: int = 1
    seed: int | None = None
    sample_steps: int = 20
    guidance_scale: float | None = None
    """What the model is told, where it has an input for it."""
    cfg_scale: float | None = None
    discrete_flow_shift: float | None = None
    image_path: str = ""
    """Of the picture that a video begins with."""
    end_image_path: str = ""
    """Of the one that it ends with."""
    control_image_path: tuple[str, ...] = ()
    """Of the pictures that an edit model sees."""
    control_video_path: str = ""
    """Of the video, or the folder of its frames, that a video follows."""
    lyrics: str | None = None
    seconds: float | None = None
    bpm: int | None = None
    timesignature: str | None = None
    language: str | None = None
    keyscale: str | None = None

    def paths(self) -> list[str]:
        """Those of the pictures and the video that it names."""
        return [path for name in SINGLE if (path := getattr(self, name))] + [*self.control_image_path]


OF_SOUND = ("lyrics", "seconds", "bpm", "timesignature", "language", "keyscale")
"""What is said of sound alone, by the names of ComfyUI's inputs; `prompt` are its tags."""

OF_PICTURES = (
    "negative_prompt",
    "width",
    "height",
    "frame_count",
    "image_path",
    "end_image_path",
    "control_image_path",
    "control_video_path",
)
"""What is said of pictures and videos alone."""


@contextmanager
def about_prompt(number: int) -> Generator[None]:
    """Inside, a `TrainError` begins with the number of a prompt, from 1."""
    try:
        yield
    except TrainError as error:
        raise TrainError(f"prompt {number}: {error}") from None


def located(prompts: Sequence[SamplePrompt], place: Callable[[str, str], str]) -> tuple[SamplePrompt, ...]:
    """The prompts with the paths of their pictures.

    Args:
        place: makes a path of the option's name and what it says; may raise `TrainError`.
    """
    found: list[SamplePrompt] = []
    for number, prompt in enumerate(prompts, 1):
        with about_prompt(number):
            one = {n: place(n, path) for n in SINGLE if (path := getattr(prompt, n))}
            several = tuple(place(SEVERAL, path) for path in prompt.control_image_path)
            found.append(dataclasses.replace(prompt, **one, control_image_path=several))
    return tuple(found)
