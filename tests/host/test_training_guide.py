"""The first configuration of docs/training.md, word for word: from a folder of pictures to a file that loads."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from lyco_testing.comfy import ROOT, find_comfyui
from lyco_testing.example_files import write_models
from lyco_testing.tables import TRAINED
from lyco_testing.tiny_wan import TEXT
from PIL import Image
from safetensors.torch import save_file

from lyco_core.architectures import ARCHITECTURES

GUIDE = (ROOT / "docs" / "training.md").read_text("utf-8")
LESS = {"max_train_steps = 1600": "max_train_steps = 2", "resolution = [512, 512]": "resolution = [64, 64]"}
"""What it says -> what a test has time for."""


def test_its_first_configuration_trains(pack, tmp_path: Path):
    first = re.findall(r"^```toml\n(.*?)^```", GUIDE, re.M | re.S)[0]
    assert all(text in first for text in LESS)
    comfyui = tmp_path / "ComfyUI"
    for folder in ("models/diffusion_models", "models/text_encoders", "models/loras", "input/my_pictures"):
        (comfyui / folder).mkdir(parents=True)
    write_models(comfyui)
    (comfyui / "models/loras/my_lokr.safetensors").unlink()  # is what comes out here
    text_encoder = comfyui / "models/text_encoders/umt5_xxl_fp16.safetensors"
    save_file({"nothing": torch.zeros(1)}, text_encoder)
    pictures = comfyui / "input/my_pictures"
    for name in ("cat", "dog"):
        pixels = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{name}.png")
        (pictures / f"{name}.txt").write_text(f"a {name}")
    # The text encoder has 11 GB: what it would say of the captions is in the cache as if it had been here.
    training = f"{pack.__name__}.nodes.host.training"
    encoders, pieces, cache = (importlib.import_module(f"{training}.{n}") for n in ("encoders", "pieces", "cache"))
    files = encoders.Encoders(TRAINED["wan"], str(comfyui / "models/vae/wan_2.1_vae.safetensors"), (str(text_encoder),))
    for caption in ("a cat", "a dog", ""):
        entry = pieces.caption_entry(str(pictures / ".lyco_cache"), caption, files)
        cache.store_conditioning(entry, [torch.randn(1, 8, TEXT), {"pooled_output": None}])
    for text, less in LESS.items():
        first = first.replace(text, less)
    (comfyui / "my_lokr.toml").write_text(first, "utf-8")
    command = [sys.executable, "-m", "lyco_core", "train", str(comfyui / "my_lokr.toml"), "--comfyui"]
    done = subprocess.run(
        [*command, str(find_comfyui())], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    inspected = subprocess.run(
        [sys.executable, "-m", "lyco_core", "inspect", str(comfyui / "models/loras/my_lokr.safetensors")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
    )
    assert "LoKr" in inspected.stdout
    assert "Wan 2.1/2.2" in inspected.stdout


def test_it_says_which_files_every_family_needs():
    rows = re.findall(r"^\| ([^|]+?) \| (?:`|none: )", GUIDE, re.M)
    trained = {found.title for found in ARCHITECTURES.values() if found.training is not None}
    assert {title for title in trained if not title.startswith("FramePack")} == {
        "Wan 2.1/2.2" if row.startswith("Wan") else row.split(",")[0] for row in rows
    }
