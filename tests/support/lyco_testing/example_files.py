"""Everything that the example workflows name, by its name, small."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from .tiny_wan import wan_adapter, wan_checkpoint

MODELS = ("z_image_turbo_bf16", "z_image_bf16", "wan2.1_t2v_1.3B_bf16")
VAES = ("ae", "wan_2.1_vae")


def write_models(base: Path) -> None:
    """Models of a ComfyUI whose folders are in `base`. Z-Image has one size only, so a Wan stands in for it.

    Text encoders are left to a probe: the smallest of the right width has gigabytes.
    """
    from comfy.taesd.taehv import TAEHV  # of a ComfyUI that has been made importable

    models = base / "models"
    (models / "vae").mkdir(exist_ok=True)
    torch.manual_seed(0)
    vae = {key: torch.randn(value.shape) / 30 for key, value in TAEHV(latent_channels=16).state_dict().items()}
    for name in MODELS:
        save_file(wan_checkpoint(), models / "diffusion_models" / f"{name}.safetensors")
    for name in VAES:
        save_file(vae, models / "vae" / f"{name}.safetensors")
    for algorithm in ("lokr", "loha"):
        about = {"ss_network_module": f"networks.{algorithm}"}
        save_file(wan_adapter(algorithm), models / "loras" / f"my_{algorithm}.safetensors", about)
