"""ComfyUI tells a model by its full size; a tiny one's file says its own in the metadata, and is told by that.

`python -m lyco_testing.told_sizes COMFYUI ARGUMENTS -- ARGUMENTS …` runs `lyco` so in one process, once for each list
of arguments. The probes tell a server. Nothing else of ComfyUI is replaced, and other models are read as ever.
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

__all__ = ["SIZES", "VISION", "told_sizes"]

SIZES = "lyco_testing_sizes"
"""Key of a file's metadata: [class of comfy.supported_models, config] as JSON."""

_EYE = {"hidden_act": "gelu_pytorch_tanh", "intermediate_size": 32, "num_attention_heads": 8, "num_channels": 3}
_EYE |= {"num_hidden_layers": 2, "patch_size": 14}
VISION: dict[str, dict[str, Any]] = {
    "clip_vision_config_h.json": _EYE | {"hidden_size": 1280, "image_size": 28, "model_type": "clip_vision_model"},
    "clip_vision_siglip_384.json": _EYE | {"hidden_size": 1152, "image_size": 378, "model_type": "siglip_vision_model"},
}
"""Config that ComfyUI finds for an image encoder's file -> one of two layers, as wide."""


@contextlib.contextmanager
def told_sizes() -> Iterator[None]:
    """Inside, files whose metadata have `SIZES` are models of those, and image encoders are of `VISION`."""
    import comfy.clip_vision
    import comfy.model_detection as detection
    import comfy.supported_models

    by_shapes, by_config, encoder = (
        detection.detect_unet_config,
        detection.model_config_from_unet_config,
        comfy.clip_vision.ClipVisionModel,
    )

    def detected(state: Any, prefix: str, metadata: Any = None) -> Any:
        told = (metadata or {}).get(SIZES)
        return json.loads(told) if told else by_shapes(state, prefix, metadata=metadata)

    def chosen(config: Any, *more: Any, **others: Any) -> Any:
        if isinstance(config, dict):
            return by_config(config, *more, **others)
        name, sizes = config
        known = getattr(comfy.supported_models, name)
        extra = {key: value for key, value in known.unet_extra_config.items() if key not in sizes}
        return type(name, (known,), {"unet_extra_config": extra})(sizes)

    def seeing(config: Any) -> Any:
        return encoder(VISION.get(Path(config).name, config) if isinstance(config, str) else config)

    with (
        mock.patch.object(detection, "detect_unet_config", detected),
        mock.patch.object(detection, "model_config_from_unet_config", chosen),
        mock.patch.object(comfy.clip_vision, "ClipVisionModel", seeing),
    ):
        yield


def main(comfyui: str, *arguments: str) -> int:
    """Exit status of the first command that fails, else of the last."""
    from lyco_core.cli import main as lyco

    from .comfy import import_comfyui

    import_comfyui(Path(comfyui))
    words: list[list[str]] = [[]]
    for word in arguments:
        if word == "--":
            words.append([])
        else:
            words[-1].append(word)
    with told_sizes():
        return next((status for status in map(lyco, words) if status), 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
