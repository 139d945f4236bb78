"""The web extension's types, as its JSDoc says them, against the ones that ComfyUI's frontend publishes."""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NPM = shutil.which("npm")


@pytest.mark.skipif(NPM is None, reason="the web extension's types are checked with npm, which is not installed")
def test_tsc_finds_nothing():
    assert NPM is not None
    quiet = ["--silent", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
    installed = subprocess.run([NPM, "install", *quiet], cwd=HERE, capture_output=True, text=True, timeout=300)
    if installed.returncode:
        pytest.skip(f"npm cannot install the published types: {(installed.stderr or installed.stdout).strip()[-200:]}")
    done = subprocess.run([NPM, "run", "--silent", "check"], cwd=HERE, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
