"""*Inspect Adapter* beside a quantized MODEL: shapes are those that its weights stand for."""

import pytest
import torch
from lyco_testing import quantized_models
from lyco_testing.foreign_weights import EVERY, base_model
from safetensors.torch import save_file

FFN = "diffusion_model.blocks.0.ffn.2"


@pytest.mark.parametrize("form", EVERY)
def test_the_true_shapes_are_told(form, tmp_path, loras, host):
    tensors, _ = quantized_models.adapter("wan", "lora")
    save_file(tensors, loras / "fits.safetensors")
    up, down = f"{FFN}.lora_up.weight", f"{FFN}.lora_down.weight"
    save_file({up: torch.ones(256, 4), down: torch.ones(4, 128)}, loras / "narrow.safetensors")
    model, _ = base_model(tmp_path, "wan", form)
    report, compared = host.inspect("fits.safetensors", model)
    (shown,) = host.match_ui(compared)["lyco_match"]
    assert "20 of 20 modules" in report
    assert (shown["matched"], shown["left_out"]) == (20, [])
    report, compared = host.inspect("narrow.safetensors", model)
    (shown,) = host.match_ui(compared)["lyco_match"]
    assert "0 of 1 module" in report
    (left,) = shown["left_out"]
    assert (left["why"], left["expected"], left["found"]) == ("shape", "[256, 512]", "[256, 128]")
