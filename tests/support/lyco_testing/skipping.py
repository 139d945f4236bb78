"""Tests that need a real ComfyUI: marked as such, or skipped with a line that says how to get one."""

from pathlib import Path

import pytest

__all__ = ["in_comfyui"]


def in_comfyui(items: list[pytest.Item], where: Path, reason: str | None) -> None:
    """Mark the tests of a folder or a file, for its conftest's `pytest_collection_modifyitems`.

    Args:
        reason: why none can run here, as `comfy.why_not` says it.
    """
    for item in items:
        if where in (item.path, *item.path.parents):
            item.add_marker(pytest.mark.host)
            item.add_marker(pytest.mark.filterwarnings("default"))  # ComfyUI's own warnings are not ours
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))
