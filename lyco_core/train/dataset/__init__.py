"""Folders of images or videos with captions, as Musubi Tuner's dataset configuration describes them."""

from .buckets import Fit, fit
from .config import Dataset, parse_datasets
from .files import VIDEOS, Media, frames_of, kinds_in, media_of
from .frames import at_rate, windows

__all__ = [
    "VIDEOS",
    "Dataset",
    "Fit",
    "Media",
    "at_rate",
    "fit",
    "frames_of",
    "kinds_in",
    "media_of",
    "parse_datasets",
    "windows",
]
