"""The models that pages of the browser tests choose from."""

import base64
import io

from safetensors.torch import save_file

from lyco_testing.comfy import Server
from lyco_testing.tiny_wan import wan_adapter, wan_checkpoint


def thumbnail() -> str:
    """A small JPEG as ModelSpec's metadata hold it."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((96, 96)).convert("RGB").save(buffer, "JPEG")
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
