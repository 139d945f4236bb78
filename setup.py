"""All that setup.py is here for: a build that packs what is here, and nothing that an earlier one left behind."""

import shutil
from pathlib import Path

from setuptools import setup

built = Path(__file__).parent / "build" / "lib"
if built.exists():  # setuptools copies the modules into it, never removes one from it, and packs all that it finds
    shutil.rmtree(built)

setup()
