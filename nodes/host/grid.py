"""Pictures, or videos, side by side under their labels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import Tensor

from ...lyco_core.errors import LycoError
from .lettering import lettered

GAP = 8
"""Pixels around each cell; even, so that pictures of even sides make such a grid, which codecs of videos ask for."""

LETTERS = (12, 40)
"""The smallest and the largest size of letters, in pixels."""

PAPER, INK = 1.0, 0.14


def labelled_grid(images: Sequence[Tensor], labels: Sequence[str], columns: int) -> Tensor:
    """The pictures in rows, each below its label, their pixels as they are: (frames, height, width, channels), 0 to 1.

    Args:
        images: (frames, height, width, channels), all of the same shape; frames of a video, or pictures of a batch, of
            each of which there is a grid.
        labels: one each.
        columns: how many are in a row; 0: `columns_for` the labels.

    Raises:
        LycoError: the labels are more or fewer than the pictures, or the pictures' shapes differ.
    """
    _require_alike(images, labels)
    frames, height, width, channels = images[0].shape
    columns = min(columns or columns_for(labels), len(images))
    letters = [lettered(label, _letter_size(width), width) for label in labels]
    head = 2 * math.ceil(max(len(letter) for letter in letters) / 2)
    rows = math.ceil(len(images) / columns)
    cell_height, cell_width = head + height + GAP, width + GAP
    grid = images[0].new_full((frames, GAP + rows * cell_height, GAP + columns * cell_width, channels), PAPER)
    for number, (image, letter) in enumerate(zip(images, letters, strict=True)):
        top, left = GAP + number // columns * cell_height, GAP + number % columns * cell_width
        ink = letter.to(grid).mul(INK - PAPER).add(PAPER)
        grid[:, top + head - len(letter) : top + head, left : left + width, :3] = ink[:, :, None]
        grid[:, top + head : top + head + height, left : left + width] = image
    return grid


def columns_for(labels: Sequence[str]) -> int:
    """A row for each NAME where labels NAME@STRENGTH are of several files at several strengths; else near a square."""
    runs = [len(list(run)) for _, run in itertools.groupby(labels, lambda label: label.rpartition("@")[0])]
    if len(runs) > 1 and runs[0] > 1 and len(set(runs)) == 1:
        return runs[0]
    return math.ceil(math.sqrt(len(labels)))


def _letter_size(width: int) -> int:
    smallest, largest = LETTERS
    return min(max(width // 28, smallest), largest)


def _require_alike(images: Sequence[Tensor], labels: Sequence[str]) -> None:
    if len(images) != len(labels):
        raise LycoError(
            f"there are {len(labels)} labels and {len(images)} images, expected a label for each; connect the labels "
            "of Try LoHa/LoKr Strengths, and the images that VAE Decode makes of all its models"
        )
    first = images[0].shape
    for label, image in zip(labels, images, strict=True):
        if image.shape != first:
            raise LycoError(
                f"{label}: its image is {_size(image)}, the first is {_size(images[0])}; make them of one size, with "
                "as many frames each"
            )


def _size(image: Tensor) -> str:
    frames, height, width, channels = image.shape
    return f"{width} x {height} pixels in {channels} channels, {frames} frames"
