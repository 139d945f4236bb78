"""The models that pages of the browser tests choose from."""

import base64
import io
from pathlib import Path

import torch
from safetensors.torch import save_file

from lyco_testing.comfy import Server
from lyco_testing.tables import musubi_file, random, targets
from lyco_testing.tiny_wan import wan_adapter, wan_checkpoint

SKY = ((236, 240), (214, 170), (170, 110))
"""Of red, green and blue: at the top and at the bottom."""


def thumbnail() -> str:
    """A small JPEG, a sun over waves, as ModelSpec's metadata hold it."""
    from PIL import Image, ImageDraw

    picture = Image.linear_gradient("L").resize((96, 96))
    picture = Image.merge("RGB", [picture.point(lambda v, a=a, b=b: a + (b - a) * v // 255) for a, b in SKY])
    pen = ImageDraw.Draw(picture)
    pen.ellipse((30, 18, 66, 54), fill=(214, 69, 46))
    for row in range(4):
        for column in range(-1, 5):
            left, top = 24 * column + 12 * (row % 2), 58 + 11 * row
            pen.ellipse(
                (left, top, left + 26, top + 30), fill=(38, 84 - 12 * row, 124 - 14 * row), outline=(226, 232, 228)
            )
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def fill(server: Server) -> None:
    """The models that the pages choose from."""
    loras, tensors = server.base / "models" / "loras", wan_adapter()
    for name in ("wan", "z_image_turbo_bf16"):  # the latter is what the example workflows ask for
        save_file(wan_checkpoint(), server.base / "models" / "diffusion_models" / f"{name}.safetensors")
    about = {
        "ss_network_module": "networks.lokr",
        "ss_output_name": "ukiyo-e",
        "ss_steps": "1600",
        "modelspec.trigger_phrase": "ukiyoe style",
        "modelspec.thumbnail": thumbnail(),
    }
    save_file(tensors, loras / "my_lokr.safetensors", about)
    save_file({k.replace("blocks_1", "blocks_9"): v for k, v in tensors.items()}, loras / "half.safetensors")
    markup = "<img src=x onerror=lycoBroken()>"
    hostile = {"modelspec.title": markup, "modelspec.description": markup, "modelspec.trigger_phrase": markup}
    save_file(
        {**tensors, f"{markup}.weight": tensors["lora_unet_blocks_0_ffn_0.alpha"].clone()},
        loras / "hostile.safetensors",
        hostile,
    )
    (loras / "cut.safetensors").write_bytes((loras / "my_lokr.safetensors").read_bytes()[:-100])


def many_blocks(path: Path) -> None:
    """A LoRA for a narrow FLUX.1 of 19 and 38 blocks, of which some change more than others."""
    torch.manual_seed(4)
    narrow = {path: (rows // 16, columns // 16) for path, (rows, columns) in targets("flux1_kontext").items()}
    tensors = musubi_file(narrow, "lora", random)
    for key, tensor in tensors.items():
        if "up" in key:
            tensor *= 0.3 + int(key.split("blocks_")[1].split("_")[0]) * 7 % 19 / 19
    save_file(tensors, path, {"ss_network_module": "networks.lora", "modelspec.trigger_phrase": "ukiyoe style"})
