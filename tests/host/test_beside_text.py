"""Adapters beside the quantized weights of a text encoder, and the guard that surrounds its first call."""

import inspect
import json
from pathlib import Path

import pytest
import torch
from lyco_testing.comfy_models import tiny_model
from lyco_testing.relative import relative
from lyco_testing.zoo import normal
from safetensors.torch import load_file, save_file

LAYER = "text_model.encoder.layers.0"
LINEARS = {f"{LAYER}.mlp.fc1": (3072, 768), f"{LAYER}.mlp.fc2": (768, 3072), f"{LAYER}.self_attn.q_proj": (768, 768)}


def encoder(file: Path, quantized: dict | None = None):
    import comfy.sd

    options = {"dtype": torch.float32} | ({} if quantized is None else {"quantization_metadata": quantized})
    with torch.inference_mode():
        return comfy.sd.load_clip([str(file)], clip_type=comfy.sd.CLIPType.STABLE_DIFFUSION, model_options=options)


@pytest.fixture(scope="module")
def clips(pack, tmp_path_factory):
    """CLIP-L with random weights, one layer of it quantized; and the float32 one that it stands for."""
    import comfy.clip_model
    import comfy.ops
    import comfy.sd1_clip
    from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor

    folder = tmp_path_factory.mktemp("encoders")
    config = json.loads((Path(inspect.getfile(comfy.sd1_clip)).parent / "sd1_clip_config.json").read_text())
    torch.manual_seed(0)
    state = comfy.clip_model.CLIPTextModel(config, torch.float32, "meta", comfy.ops.manual_cast).state_dict()
    state = {key: torch.randn(tensor.shape).half().float() / 30 for key, tensor in state.items()}
    stored = dict(state)
    layout = QUANT_ALGOS["int8_tensorwise"]["comfy_tensor_layout"]
    for path in LINEARS:
        weight = QuantizedTensor.from_float(state[f"{path}.weight"], layout, per_channel=True)
        stored |= {key: tensor.contiguous() for key, tensor in weight.state_dict(f"{path}.weight").items()}
        said = json.dumps({"format": "int8_tensorwise"})
        stored[f"{path}.comfy_quant"] = torch.tensor(list(said.encode()), dtype=torch.uint8)
        state[f"{path}.weight"] = weight.dequantize()
    save_file(stored, folder / "int8.safetensors")
    save_file(state, folder / "plain.safetensors")
    assert load_file(folder / "int8.safetensors")[f"{LAYER}.mlp.fc1.weight"].dtype == torch.int8
    return encoder(folder / "int8.safetensors", {"mixed_ops": True}), encoder(folder / "plain.safetensors")


def encoded(clip) -> torch.Tensor:
    with torch.inference_mode():
        return clip.encode_from_tokens(clip.tokenize("a dog"))


@pytest.mark.parametrize("mode", ["auto", "apply while sampling"])
def test_a_text_encoder_is_as_exact(mode, clips, loras, host):
    torch.manual_seed(1)
    tensors = {}
    for path, (out, width) in LINEARS.items():
        name = f"lora_te_{path.replace('.', '_')}"
        tensors[f"{name}.lora_up.weight"], tensors[f"{name}.lora_down.weight"] = normal(out, 4), normal(4, width) / 80
    save_file(tensors, loras / "a.safetensors")
    int8, plain = clips
    load = lambda clip, mode: host.load_onto(tiny_model("wan"), clip, "a.safetensors", 0.7, partial=False, mode=mode)  # noqa: E731
    base = encoded(plain)
    change = encoded(load(plain, "patch the weights").clip) - base
    one = load(int8, mode)
    assert "3 modules add it while sampling" in one.report
    before = encoded(int8)
    found = encoded(one.clip) - before
    noise = relative(before, base) * float(base.norm() / change.norm())
    assert relative(found, change) < 1.5 * noise + 1e-4
    assert torch.equal(encoded(int8), before)


def test_the_text_encoder_at_a_strength_of_its_own(clips, loras, host):
    name = f"lora_te_{LAYER.replace('.', '_')}_mlp_fc1"
    save_file(
        {f"{name}.lora_up.weight": normal(3072, 4), f"{name}.lora_down.weight": normal(4, 768) / 80},
        loras / "a.safetensors",
    )
    plain = clips[1]

    def loaded(strength, clip_strength):
        row = host.Row("a.safetensors", strength, True, clip_strength)
        return host.load_rows(tiny_model("wan"), plain, [row], partial=False, mode="auto")

    assert torch.equal(encoded(loaded(0.0, 0.7).clip), encoded(loaded(0.7, None).clip))
    assert "strength 0.7, text encoder 0.2" in loaded(0.7, 0.2).report
    unchanged = loaded(0.7, 0.0).clip
    assert not unchanged.patcher.patches
    assert torch.equal(encoded(unchanged), encoded(plain))


def test_text_encoders_that_are_tried(clips, loras, host):
    name = f"lora_te_{LAYER.replace('.', '_')}_mlp_fc1"
    save_file(
        {f"{name}.lora_up.weight": normal(3072, 4), f"{name}.lora_down.weight": normal(4, 768) / 80},
        loras / "a.safetensors",
    )
    for clip in clips:
        model = tiny_model("wan")
        tried = host.try_all(
            model, clip, ["a.safetensors"], host.strengths_of("0.7, 0, -1"), partial=False, mode="auto"
        )
        for found, strength in zip(tried.loaded, (0.7, 0.0, -1.0), strict=True):
            loaded = host.load_onto(model, clip, "a.safetensors", strength, partial=False, mode="auto")
            assert torch.equal(encoded(found.clip), encoded(loaded.clip))
            assert torch.equal(encoded(found.clip), encoded(clip)) == (strength == 0)


def test_it_stops_where_a_module_is_passed_by(clips, loras, host, monkeypatch):
    import comfy.clip_model

    name = f"lora_te_{LAYER.replace('.', '_')}_mlp_fc1"
    save_file(
        {f"{name}.lora_up.weight": normal(3072, 4), f"{name}.lora_down.weight": normal(4, 768)}, loras / "a.safetensors"
    )
    clip = host.load_onto(tiny_model("wan"), clips[0], "a.safetensors", 1.0, partial=False, mode="auto").clip

    def forward(self, x):
        hidden = torch.nn.functional.linear(x, self.fc1.weight.dequantize(), self.fc1.bias)
        return self.fc2(self.activation(hidden))

    monkeypatch.setattr(comfy.clip_model.CLIPMLP, "forward", forward)
    with pytest.raises(Exception, match=r"1 adapters were not computed \(clip_l.*mlp.fc1\)"):
        encoded(clip)


@pytest.mark.parametrize("mode", ["auto", "apply while sampling"])
def test_a_hook_of_a_text_encoder(mode, clips, loras, host):
    """As with the adapter loaded at each strength, quantized or not: by *Set CLIP Hooks*, scheduled or not."""
    import comfy.hooks
    from comfy_extras.nodes_hooks import SetClipHooks
    from lyco_testing.hooked_sampling import keyframes

    torch.manual_seed(1)
    tensors = {}
    for path, (out, width) in LINEARS.items():
        name = f"lora_te_{path.replace('.', '_')}"
        tensors[f"{name}.lora_up.weight"], tensors[f"{name}.lora_down.weight"] = normal(out, 4), normal(4, width) / 80
    save_file(tensors, loras / "a.safetensors")
    group = host.hooked(host.Request("a.safetensors", 1.0, 0.8, mode=mode), None)
    group.set_keyframes_on_hooks(keyframes((0, 1), (0.5, 0.25)))
    for clip in clips:
        at = [
            host.load_onto(tiny_model("wan"), clip, "a.safetensors", strength, partial=False, mode=mode).clip
            for strength in (0.8, 0.2)
        ]
        before, expected = encoded(clip), [encoded(one) for one in at]
        (constant,) = SetClipHooks().apply_hooks(clip, False, True, group)
        assert torch.equal(encoded(constant), expected[0])
        (scheduled,) = SetClipHooks().apply_hooks(clip, True, True, group)
        with torch.inference_mode():
            made = scheduled.encode_from_tokens_scheduled(scheduled.tokenize("a dog"), show_pbar=False)
        assert [one["clip_start_percent"] for _, one in made] == [0.0, 0.5]
        assert all(map(torch.equal, [cond for cond, _ in made], expected))
        assert all(isinstance(one["hooks"], comfy.hooks.HookGroup) for _, one in made)
        assert torch.equal(encoded(clip), before)


def test_a_hook_whose_file_has_another_text_encoder(clips, loras, host):
    from comfy_extras.nodes_hooks import SetClipHooks

    name = "lora_te_text_model_encoder_layers_99_mlp_fc1"
    save_file(
        {f"{name}.lora_up.weight": normal(3072, 4), f"{name}.lora_down.weight": normal(4, 768)}, loras / "a.safetensors"
    )
    group = host.hooked(host.Request("a.safetensors", 1.0, 1.0), None)
    with pytest.raises(Exception, match=r"a\.safetensors: .*layers_99"):
        SetClipHooks().apply_hooks(clips[0], False, True, group)
