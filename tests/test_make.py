"""The Makefile's commands, as make would run them."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def told(*words: str) -> list[str]:
    """The lines that `make` would run; what a make that runs these tests hands down is none of its business."""
    alone = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    command = ["make", "-n", *words]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], env=alone, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_comfyui_whose_path_has_a_space(tmp_path: Path):
    """The whole line is one redirection of one file's lines."""
    lines = told("-o", ".venv/test", "host-requirements", f"COMFYUI={tmp_path}/My ComfyUI")
    (line,) = (line for line in lines if line.startswith("grep"))
    assert shlex.split(line)[3:] == [f"{tmp_path}/My ComfyUI/requirements.txt", ">", ".venv/comfyui.txt"]


@pytest.mark.parametrize(("flags", "expected"), [("", sys.executable), (" -I -S", ".venv/bin/python")])
def test_gpu_takes_the_python_that_has_a_torch(flags: str, expected: str):
    """A rented machine's is for its card; without site-packages there is none."""
    lines = told("-o", ".venv/core", "gpu", f"PYTHON={sys.executable}{flags}", "ARGS=--card 12")
    assert lines[-1] == f"{expected} benchmarks/gpu --card 12"
