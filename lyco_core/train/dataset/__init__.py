"""Folders of images or videos with captions, as Musubi Tuner's dataset configuration describes them."""

from .buckets import Fit, fit, fit_control
from .config import Dataset, parse_datasets
from .controls import controls_in
from .files import Media, media_of
from .frames import at_rate, windows

__all__ = [
    "Dataset",
    "Fit",
    "Media",
    "at_rate",
    "controls_in",
    "fit",
    "fit_control",
    "media_of",
    "parse_datasets",
    "windows",
]
