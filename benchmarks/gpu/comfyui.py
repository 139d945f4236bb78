"""A real ComfyUI in this process, on the device, with the pack in it, as its `main.py` begins."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from lyco_testing.comfy import find_comfyui, import_pack, why_not

from gpu.asked import GIB


@dataclasses.dataclass(frozen=True)
class ComfyUI:
    """The one that is imported."""

    version: str
    pack: str
    """The name under which the pack is imported: its `lyco_core` is another than ours."""
    loras: Path
    """An empty `models/loras`."""
    dynamic: bool
    """Whether it manages memory in the way that NVIDIA's cards have by default since 0.28."""

    def part(self, name: str) -> Any:
        """A module of the pack."""
        return importlib.import_module(f"{self.pack}.{name}")


def prepare(device: str, *, dynamic: bool) -> str:
    """What must be done before torch is imported; why there is no ComfyUI, or nothing."""
    folder = find_comfyui()
    if reason := why_not(folder):
        return reason
    sys.path.insert(0, str(folder))
    from comfy.cli_args import args

    args.cpu = device == "cpu"
    args.disable_dynamic_vram = not dynamic
    if dynamic:
        if not device.startswith("cuda"):
            return f"dynamic VRAM is for NVIDIA's cards, the device is {device}"
        try:
            import comfy_aimdo.control as aimdo
        except ImportError:
            return "this ComfyUI has no dynamic VRAM"
        aimdo.init()
    return ""


def imported(reserved: int, *, dynamic: bool) -> ComfyUI:
    """ComfyUI and the pack; what `prepare` has prepared. reserved: bytes of the card that are to stay free."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    import comfy.memory_management
    import comfy.model_management as management
    import comfy.model_patcher
    import comfyui_version
    import folder_paths

    found = False
    if dynamic:
        import comfy_aimdo.control as aimdo

        headroom = _headroom() + reserved
        devices = [device.index for device in management.get_all_torch_devices()]
        try:
            found = bool(aimdo.init_devices((index, headroom) for index in devices))
        except TypeError:  # of before 0.4.10: an older protocol
            found = bool(aimdo.init_devices(devices))
        if found:
            comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
            comfy.memory_management.aimdo_enabled = True
    loras = Path(tempfile.mkdtemp(prefix="lyco-gpu-"))
    folder_paths.folder_names_and_paths["loras"] = ([str(loras)], {".safetensors"})
    return ComfyUI(comfyui_version.__version__, import_pack().__name__, loras, found)


def _headroom() -> int:
    from comfy.cli_args import args

    return int(getattr(args, "vram_headroom", 0) * GIB)


def widened() -> list[str]:
    """The formats of `quant_ops` by whose numbers this device cannot multiply: ComfyUI widens them first."""
    import comfy.model_management as management

    there, asked = management.get_torch_device(), {"float8_e4m3fn": "fp8", "nvfp4": "nvfp4", "mxfp8": "mxfp8"}
    answers = {name: getattr(management, f"supports_{short}_compute", None) for name, short in asked.items()}
    return [name for name, answer in answers.items() if answer is None or not answer(there)]
