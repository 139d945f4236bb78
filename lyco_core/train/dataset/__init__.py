"""Folders of images or videos with captions, as Musubi Tuner's dataset configuration describes them."""

from .buckets import Fit, covering, fit, fit_control
from .config import STEPS, Dataset, parse_datasets
from .controls import controls_in
from .files import VIDEOS, Media, frames_of, kinds_in, media_of
from .frames import at_rate, windows

__all__ = [
    "STEPS",
    "VIDEOS",
    "Dataset",
    "Fit",
    "Media",
    "at_rate",
    "controls_in",
    "covering",
    "fit",
    "fit_control",
    "frames_of",
    "kinds_in",
    "media_of",
    "parse_datasets",
    "windows",
]
