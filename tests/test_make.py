"""The Makefile's commands, as make would run them."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def test_a_comfyui_whose_path_has_a_space(tmp_path: Path):
    """The whole line is one redirection of one file's lines."""
    words = ["make", "-n", "-o", ".venv/test", "host-requirements", f"COMFYUI={tmp_path}/My ComfyUI"]
    lines = subprocess.run(words, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True).stdout
    (line,) = (line for line in lines.splitlines() if line.startswith("grep"))
    assert shlex.split(line)[3:] == [f"{tmp_path}/My ComfyUI/requirements.txt", ">", ".venv/comfyui.txt"]


@pytest.mark.parametrize(("flags", "expected"), [("", sys.executable), (" -I -S", ".venv/bin/python")])
def test_gpu_takes_the_python_that_has_a_torch(flags: str, expected: str):
    """A rented machine's is for its card; without site-packages there is none."""
    words = ["make", "-n", "-o", ".venv/core", "gpu", f"PYTHON={sys.executable}{flags}", "ARGS=--card 12"]
    done = subprocess.run(words, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{expected} benchmarks/gpu --card 12"
