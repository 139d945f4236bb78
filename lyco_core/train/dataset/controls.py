"""Which control images, which control video, or which layers belong to an item: Musubi Tuner's ways."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import TrainError

__all__ = ["belonging", "control_videos_in", "controls_in", "numbered_in_line"]


def controls_in(folder: str, names: Sequence[str], endings: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """File name of an item -> its controls in `folder`: a file of its name, then NAME_0, NAME_1 and so on.

    A control is the item's whose name is the longest that its own begins with. An item without one is left out.

    Args:
        names: of the items' files, without folders.
        endings: of controls' files.

    Raises:
        TrainError: the folder cannot be read, or a control's name ends in no number.
    """
    return belonging(folder, names, {name for name in _entries(folder) if name.lower().endswith(endings)})


def belonging(folder: str, names: Sequence[str], left: set[str]) -> dict[str, tuple[str, ...]]:
    """See `controls_in`; `left`: names in `folder`, of which those that belong to an item are taken out."""
    found: dict[str, tuple[str, ...]] = {}
    for name in sorted(names, key=len, reverse=True):
        stem = os.path.splitext(name)[0]
        mine = {control for control in left if control.startswith((f"{stem}.", f"{stem}_"))}
        left -= mine
        if mine:
            ordered = sorted(mine, key=lambda control: (_number(folder, stem, control), control))
            found[name] = tuple(os.path.join(folder, control) for control in ordered)
    return found


def control_videos_in(folder: str, stems: Mapping[str, str], endings: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Name of a video -> its control in `folder`, alone: of its whole name, else a folder of frames, else a video.

    A video without one is left out.

    Args:
        stems: name of each video -> the same without its ending.
        endings: of videos.

    Raises:
        TrainError: the folder cannot be read.
    """
    videos = {name: os.path.splitext(name)[0] for name in _entries(folder) if name.lower().endswith(endings)}
    framed = {name for name in _entries(folder) if os.path.isdir(os.path.join(folder, name))}
    found: dict[str, tuple[str, ...]] = {}
    for name, stem in stems.items():
        mine = [*(videos.keys() & {name}), *(framed & {stem}), *(other for other, its in videos.items() if its == stem)]
        if mine:
            found[name] = (os.path.join(folder, mine[0]),)
    return found


def _entries(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise TrainError(f"control_directory: {folder}: cannot be read: {error.strerror}") from None


def _number(folder: str, stem: str, control: str) -> int:
    """Where a control comes among those of its item."""
    rest = os.path.splitext(control)[0]
    if rest == stem:
        return -1
    digits = rest.rpartition("_")[2]
    if not re.fullmatch(r"\d+", digits, re.ASCII):
        raise TrainError(
            f"{os.path.join(folder, control)}: begins as {stem} does and ends in no number, so its place among "
            f"those of {stem} is unknown; name it {stem}_0 and so on, or take it out"
        )
    return int(digits)


def numbered_in_line(key: str, entry: Mapping[str, Any], folder: str, where: str) -> tuple[str, ...]:
    """The paths in `control_path`, which is the first, and `control_path_0`, `control_path_1` … of a list's line.

    Args:
        key: `control_path`, or another.
        folder: what relative paths start from.
        where: what errors call the line.
    """
    given = {name: entry[name] for name in entry if name.startswith(key) and entry[name]}
    numbers: dict[int, str] = {}
    for name in sorted(given, key=len):
        found = re.fullmatch(rf"{key}(?:_(\d+))?", name, re.ASCII)
        number = int(found[1] or 0) if found else -1
        if number < 0 or number in numbers:
            raise TrainError(f"{where} has {name}, expected {key}, or {key}_0, {key}_1 and so on")
        numbers[number] = os.path.join(folder, str(given[name]))
    return tuple(numbers[number] for number in sorted(numbers))
