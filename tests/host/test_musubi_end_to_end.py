"""Every family that Musubi Tuner trains, from files to a file that Musubi itself merges: by the CLI and the graph."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lyco_testing import musubi_models
from lyco_testing.comfy import ROOT, Server, find_comfyui
from lyco_testing.films import film
from lyco_testing.hosted import place_of
from lyco_testing.tables import TRAINED
from lyco_testing.trained_files import FAMILIES, FEATURES, Family, write_encoders, write_model
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from lyco_core.cli import main

pytestmark = pytest.mark.skipif("MUSUBI_PATH" not in os.environ, reason="MUSUBI_PATH names no checkout of Musubi Tuner")

NAMES = {name: name.lower().replace(",", "").replace(" ", "_") for name in FAMILIES}
"""Family -> the name of its files."""

CAPTIONS = ("a cat", "a dog")
OTHER = {"lokr": "loha", "loha": "lora", "lora": "lokr"}
"""What is trained over the API where the CLI trains the first."""

ALONE = ("HunyuanVideo", "FLUX.1 Kontext", "FLUX.2")
"""Those that train in a process of their own, which nobody has told anything; the others do in one."""


@pytest.fixture(scope="module")
def files(pack, server: Server) -> Server:
    """A ComfyUI's folders with every model, the encoders, and two pictures, two edits and two clips."""
    folders = {name: server.base / "models" / name for name in ("vae", "text_encoders", "clip_vision")}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    write_encoders(folders["vae"])
    (folders["vae"] / "clip_l.safetensors").rename(folders["text_encoders"] / "clip_l.safetensors")
    for name in ("clip_h", "siglip"):
        (folders["vae"] / f"{name}.safetensors").rename(folders["clip_vision"] / f"{name}.safetensors")
    save_file({"nothing": torch.zeros(1)}, folders["text_encoders"] / "cached.safetensors")
    for name, family in FAMILIES.items():
        write_model(family, model_file(server, name))
        if family.two:
            write_model(family, model_file(server, name, "_high"), seed=1)
    write_media(server.base / "input")
    return server


def model_file(server: Server, name: str, end: str = "") -> Path:
    return server.base / "models" / "diffusion_models" / f"{NAMES[name]}{end}.safetensors"


def write_media(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for kind in ("pictures", "edits", "before", "clips"):
        (folder / kind).mkdir(parents=True)
    for number, caption in enumerate(CAPTIONS):
        for kind in ("pictures", "edits", "before"):
            pixels = generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{number}.png")
            (folder / kind / f"{number}.txt").write_text(caption)
        film(folder / "clips" / f"{number}.mp4", 9, first=20 + 60 * number, caption=caption)
    for kind in ("edits", "before"):
        shutil.copy(folder / kind / "0.png", folder / f"{kind}.png")
    shutil.copy(folder / "clips" / "0.mp4", folder / "clip.mp4")
    start = "[general]\nresolution = [64, 64]\n\n[[datasets]]\n"
    (folder / "pictures.toml").write_text(start + 'image_directory = "pictures"\n')
    (folder / "edits.toml").write_text(start + 'image_directory = "edits"\ncontrol_directory = "before"\n')
    (folder / "clips.toml").write_text(start + 'video_directory = "clips"\ntarget_frames = [5]\n')


def words(server: Server, name: str) -> list[str]:
    """Musubi's command for a family, with ComfyUI's files."""
    family, models = FAMILIES[name], server.base / "models"
    text = models / "text_encoders" / ("cached.safetensors" if family.cached else "clip_l.safetensors")
    found = ["train", "--comfyui", str(find_comfyui()), f"{family.script}_train_network.py", "--sdpa"]
    found += ["--dit", str(model_file(server, name)), "--vae", str(models / "vae" / f"{family.vae}.safetensors")]
    found += ["--text_encoder", str(text), "--clip_type", "stable_diffusion"]
    found += ["--dataset_config", f"{family.media}.toml", "--network_module", f"networks.{family.algorithm}"]
    found += ["--network_dim", "4", "--network_alpha", "2", "--learning_rate", "1e-2", "--max_train_steps", "4"]
    found += ["--mixed_precision", "no", "--save_precision", "fp32", "--gradient_checkpointing", *family.more]
    found += ["--output_dir", str(server.base / "models" / "loras"), "--output_name", f"cli_{NAMES[name]}"]
    if family.vision:
        found += ["--image_encoder", str(models / "clip_vision" / f"{family.vision}.safetensors")]
    if family.two:
        found += ["--dit_high_noise", str(model_file(server, name, "_high"))]
    return found


@pytest.fixture(scope="module")
def trained(pack, files: Server) -> Server:
    """The same folders, once the CLI has trained all."""
    folder = files.base / "input"
    store_captions(pack, files)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])}
    start = [sys.executable, "-W", "ignore", "-m"]
    together: list[str] = []
    for name in FAMILIES:
        if name not in ALONE:
            together += ["--", *words(files, name)] if together else words(files, name)
    commands = [[*start, "lyco_core", *words(files, name)] for name in ALONE]
    commands.append([*start, "lyco_testing.told_sizes", str(find_comfyui()), *together])
    for command in commands:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stderr[-3000:]
    return files


def store_captions(pack, files: Server) -> None:
    """What Ideogram 4 reads of a text encoder that is gigabytes, as if one had been here."""
    training = f"{pack.__name__}.nodes.host.training"
    encoders, pieces, cache = (importlib.import_module(f"{training}.{n}") for n in ("encoders", "pieces", "cache"))
    models = files.base / "models"
    vae, text = models / "vae" / "image128.safetensors", models / "text_encoders" / "cached.safetensors"
    asked = encoders.Encoders(TRAINED["ideogram4"], str(vae), (str(text),), "stable_diffusion")
    home = str(files.base / "input" / "pictures" / ".lyco_cache")
    for number, caption in enumerate(["", *CAPTIONS]):
        tensor = torch.randn((1, 8, FEATURES), generator=torch.Generator().manual_seed(number))
        cache.store_conditioning(pieces.caption_entry(home, caption, asked), [tensor, {"pooled_output": None}])


def node(kind: str, **inputs: object) -> dict[str, object]:
    return {"class_type": kind, "inputs": inputs}


def workflow(name: str) -> dict[str, object]:
    """Stock's nodes around *Train Adapter*, as a family's own workflow has them."""
    family = FAMILIES[name]
    settings = {"network_module": OTHER[family.algorithm], "network_dim": 4, "network_alpha": 2.0, "factor": -1}
    settings |= {"learning_rate": 0.01, "max_train_steps": 2, "batch_size": 1, "seed": 1, "save_precision": "fp32"}
    settings |= {"timestep_sampling": "uniform", "discrete_flow_shift": 1.0, "output_name": f"api_{NAMES[name]}"}
    nodes = {
        "model": node("UNETLoader", unet_name=f"{NAMES[name]}.safetensors", weight_dtype="default"),
        "vae": node("VAELoader", vae_name=f"{family.vae}.safetensors"),
        "clip": node("CLIPLoader", clip_name="clip_l.safetensors", type="stable_diffusion"),
        "train": node("LycoTrainAdapter", model=["model", 0], **settings),
        "name": node("PreviewAny", source=["train", 0]),
    }
    inputs = nodes["train"]["inputs"]
    if family.two:
        high = f"{NAMES[name]}_high.safetensors"
        nodes["high"] = node("UNETLoader", unet_name=high, weight_dtype="default")
        inputs["model_high_noise"] = ["high", 0]
    if family.media == "pictures" and not family.cached:
        folder = {"folder": "pictures", "width": 64, "height": 64, "num_repeats": 1, "enable_bucket": True}
        nodes["data"] = node("LycoTrainingDataset", vae=["vae", 0], clip=["clip", 0], **folder, target_frames="1")
        inputs["dataset"] = ["data", 0]
        return nodes
    nodes["text"] = node("CLIPTextEncode", clip=["clip", 0], text=CAPTIONS[0])
    nodes["latent"] = node("VAEEncode", vae=["vae", 0], pixels=["pixels", 0])
    inputs |= {"latents": ["latent", 0], "positive": ["text", 0]}
    if family.media == "clips":
        nodes |= clip_nodes(family)
        inputs["positive"] = ["first" if family.reads_first_frame else "text", 0]
    elif family.media == "edits":
        nodes |= edit_nodes(family)
        inputs["positive"] = ["reference", 0]
    else:
        nodes["pixels"] = node("LoadImage", image="edits.png")
        nodes["text"] = node("ProbeConditioning", width=FEATURES, seed=1)
    return nodes


def clip_nodes(family: Family) -> dict[str, dict[str, object]]:
    nodes = {
        "video": node("LoadVideo", file="clip.mp4"),
        "frames": node("GetVideoComponents", video=["video", 0]),
        "pixels": node("ImageFromBatch", image=["frames", 0], batch_index=0, length=5),
    }
    if family.reads_first_frame:
        nodes["start"] = node("ImageFromBatch", image=["frames", 0], batch_index=0, length=1)
        kind = "HunyuanVideo15ImageToVideo" if family.architecture == "hunyuan_video_1_5" else "WanImageToVideo"
        size = {"width": 96, "height": 64, "length": 5, "batch_size": 1, "start_image": ["start", 0]}
        texts = {"positive": ["text", 0], "negative": ["text", 0]}
        nodes["first"] = node(kind, vae=["vae", 0], **texts, **size)
    if family.vision:
        nodes["eye"] = node("CLIPVisionLoader", clip_name=f"{family.vision}.safetensors")
        nodes["sees"] = node("CLIPVisionEncode", clip_vision=["eye", 0], image=["start", 0], crop="center")
        nodes["first"]["inputs"]["clip_vision_output"] = ["sees", 0]
    return nodes


def edit_nodes(family: Family) -> dict[str, dict[str, object]]:
    nodes = {"pixels": node("LoadImage", image="edits.png"), "before": node("LoadImage", image="before.png")}
    if family.architecture == "qwen_image":
        given = {"clip": ["clip", 0], "vae": ["vae", 0], "image": ["before", 0]}
        return nodes | {"reference": node("TextEncodeQwenImageEdit", prompt=CAPTIONS[0], **given)}
    nodes["control"] = node("VAEEncode", vae=["vae", 0], pixels=["before", 0])
    return nodes | {"reference": node("ReferenceLatent", conditioning=["text", 0], latent=["control", 0])}


@pytest.mark.parametrize("name", FAMILIES)
def test_musubi_merges_what_the_command_trains(name, trained: Server, tmp_path):
    check(name, trained, trained.base / "models" / "loras" / f"cli_{NAMES[name]}.safetensors", tmp_path)


@pytest.mark.parametrize("name", FAMILIES)
def test_musubi_merges_what_the_graph_trains(name, files: Server, tmp_path):
    outputs = files.run(workflow(name))
    assert outputs["name"]["text"] == [f"api_{NAMES[name]}.safetensors"]
    check(name, files, files.base / "output" / "loras" / outputs["name"]["text"][0], tmp_path)


def check(name: str, server: Server, adapter: Path, folder: Path) -> None:
    """Of each weight Musubi's change is that of `lyco delta` to 1e-6, also where a last block's text leads nowhere."""
    family, tensors, model = FAMILIES[name], load_file(adapter), model_file(server, name)
    modules, weights = musubi_models.musubi_modules(family), load_file(model)
    assert {key.split(".")[0] for key in tensors} == set(modules)
    base = {f"{path}.weight": rows(family, path, weights).double().contiguous() for path in modules.values()}
    save_file(base, folder / "base.safetensors")
    theirs = musubi_models.merged(folder / "base.safetensors", tensors)
    assert main(["delta", str(adapter), "-o", str(folder / "delta.safetensors"), "--model", str(model)]) == 0
    ours = load_file(folder / "delta.safetensors")
    worst, idle = 0.0, 0
    for path in modules.values():
        change = theirs[f"{path}.weight"] - base[f"{path}.weight"]
        mine = rows(family, path, ours).double()
        idle += not change.any()
        worst = max(worst, float((mine - change).norm() / change.norm().clamp(min=1e-30)))
    print(f"{name} | {adapter.name} | {len(modules)} modules, {idle} idle | relative error {worst:.1e}")
    assert worst <= 1e-6
    assert idle <= len(modules) // 4


def rows(family: Family, path: str, weights: dict[str, Tensor]) -> Tensor:
    """Musubi's module's rows in a weight of ComfyUI's."""
    width = family.config.get("hidden_size", family.config.get("dim", 0))
    module, first = place_of(family.architecture, path, width)
    weight = weights[f"{module}.weight"]
    return weight if first is None else weight[first : first + width]
