"""Musubi Tuner's trainer of HiDream-O1 on its own model, as small as ours; $MUSUBI_PATH names a checkout."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from .musubi_models import musubi_module

__all__ = ["Musubi", "patches"]


def patches(pictures: Tensor) -> Tensor:
    """(n, height / 32, width / 32, 3072) of (n, 3, height, width): a token's pixels by color, row and column."""
    n, colors, height, width = pictures.shape
    cut = pictures.view(n, colors, height // 32, 32, width // 32, 32)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(n, height // 32, width // 32, -1)


class Musubi:
    """What its script does in a step, but for what it reads from caches."""

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, Tensor], task: str, model_type: str) -> None:
        """`config` and `weights` are of ComfyUI's model. Skips where what Musubi needs is not installed."""
        try:
            script = musubi_module("hidream_o1_train_network")
            from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLConfig
        except ImportError as error:
            pytest.skip(f"what Musubi Tuner's HiDream-O1 needs is not installed: {error}")
        text, seeing = config["text_config_overrides"], config["vision_config_overrides"]
        rope = {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"}
        sizes = Qwen3VLConfig(
            text_config={**text, "rms_norm_eps": 1e-6, "rope_theta": 5e6, "rope_scaling": rope},
            vision_config={**seeing, "out_hidden_size": text["hidden_size"], "deepstack_visual_indexes": []},
        )
        self.model = musubi_module("hidream_o1.qwen3_vl_transformers").Qwen3VLForConditionalGeneration(sizes)
        self.model.lm_head = torch.nn.Identity()
        self.model.load_state_dict({f"model.{key}": value for key, value in weights.items()})
        self.model.hidream_o1_task = task
        self.trainer = script.HiDreamO1NetworkTrainer()
        self.trainer.blocks_to_swap = 0
        self.args = SimpleNamespace(
            **{"task": task, "model_type": model_type, "noise_scale_start": None, "noise_scale_end": None},
            **{"noise_clip_std": None, "weighting_scheme": "none", "fp8_base": False, "fp8_scaled": False},
            **{"timestep_sampling": "uniform", "min_timestep": None, "max_timestep": None},
            **{"gradient_checkpointing": False, "dino_loss_weight": 0.0},
        )
        self.trainer.handle_model_specific_args(self.args)

    def step(
        self, pictures: Tensor, noise: Tensor, sigma: Tensor, ids: Sequence[Tensor], more: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """What its model is given and predicts of each picture, as patches, at times that it would have drawn."""
        args, cpu, dtype = self.args, torch.device("cpu"), torch.float32
        latents = patches(pictures)
        x, times = self.trainer.get_noisy_model_input_and_timesteps(
            args, patches(noise), latents, sigma.tolist(), None, cpu, dtype
        )
        accelerator = SimpleNamespace(device=cpu, unwrap_model=lambda model: model, autocast=contextlib.nullcontext)
        batch = {"input_ids": list(ids), **more}
        found = self.trainer.call_dit(args, accelerator, self.model, latents, batch, noise, x, times, dtype)
        assert torch.equal(found.target, latents.flatten(1, 2))  # its loss is the mean square of what is off these
        return x, found.pred

    def modules(self) -> set[str]:
        """What its network trains, as its files have it."""
        made = musubi_module("networks.lora_hidream_o1").create_arch_network(1.0, 4, 2, None, [], self.model)
        return {lora.lora_name for lora in made.unet_loras}
