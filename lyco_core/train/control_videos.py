"""Control videos: what a dataset needs for a model that reads one over each clip, Wan's Fun-Control."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import TrainError, about_file
from ..text import shorten
from .dataset import Dataset, media_of

__all__ = ["require_control_videos", "require_no_control_videos", "require_own_size"]


def require_control_videos(datasets: Sequence[Dataset]) -> None:
    """Raise `TrainError` unless each video has its control, and each image one of its size."""
    for dataset in datasets:
        media = media_of(dataset)
        if without := [one.path for one in media if not one.controls]:
            raise TrainError(
                f"{dataset.source}: {len(without)} of {len(media)} have no control ({shorten(without)}), and Fun-"
                "Control is trained with one over each; give control_directory, or control_path in each line of a list"
            )
        for one in media:
            if len(one.controls) > 1:
                with about_file(one.path):
                    raise TrainError(f"has {len(one.controls)} control images, and Fun-Control reads one")
        require_own_size(dataset, "Fun-Control reads a control over each item")


def require_own_size(dataset: Dataset, why: str) -> None:
    """Raise `TrainError` for a dataset with sizes of controls, where what lies over an item has the item's."""
    if dataset.no_resize_control or dataset.control_resolution:
        raise TrainError(
            f"{dataset.source}: {why}, at the item's own size; take out no_resize_control and control_resolution"
        )


def require_no_control_videos(datasets: Sequence[Dataset], title: str) -> None:
    """Raise `TrainError` for a control video; `title`: of the model, which reads none."""
    for dataset in datasets:
        found = [one.path for one in media_of(dataset) if one.controls] if dataset.is_video else []
        if found:
            with about_file(found[0]):
                raise TrainError(
                    f"has a control video, and {title} reads none: take out control_directory or control_path, or "
                    "train a Fun-Control model of Wan; what reads a video in another way is trained in the graph, with "
                    "its own conditioning"
                )
