"""Folders of images or videos with captions, as Musubi Tuner's dataset configuration describes them."""

from .buckets import Fit, fit
from .config import Dataset, parse_datasets
from .files import Media, media_of
from .frames import windows

__all__ = ["Dataset", "Fit", "Media", "fit", "media_of", "parse_datasets", "windows"]
