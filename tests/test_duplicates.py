"""A module that a file tells twice counts once; two that contradict each other are refused, both by name."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lyco_testing.tables import dotted_file, lokr, lora, musubi_file, random
from safetensors.torch import load_file, save_file
from torch import Tensor

from lyco_core.adapter_reader import load_adapter_set
from lyco_core.architectures import identify
from lyco_core.cli import main
from lyco_core.delta_weights import delta_weights
from lyco_core.errors import AdapterError
from lyco_core.formats import parse, split_key
from lyco_core.inspection import inspect_file
from lyco_core.placement import place

Tensors = dict[str, Tensor]
WIDTH = 64
BLOCK = "diffusion_model.layers.0.attention"


def spelled(name: str, up: Tensor, down: Tensor, alpha: float | None = None) -> Tensors:
    made = {f"{name}.lora.up.weight": up, f"{name}.lora.down.weight": down}
    return made if alpha is None else made | {f"{name}.alpha": torch.tensor(alpha)}


def two_spellings() -> tuple[Tensors, Tensors]:
    """A Z-Image file as one trainer writes it, and the change of each weight in float64.

    q, k and v are there apart, under `to.q` with the alpha under `to_q`, and again fused; so is the output.
    """
    torch.manual_seed(0)
    parts = {x: (random(WIDTH, 2).bfloat16(), random(2, WIDTH).bfloat16()) for x in "qkv"}
    out = random(WIDTH, 2).bfloat16(), random(2, WIDTH).bfloat16()
    tensors = spelled(f"{BLOCK}.out", *out, 2.0) | spelled(f"{BLOCK}.to_out.0", *(factor.clone() for factor in out))
    for x, factors in parts.items():
        tensors |= spelled(f"{BLOCK}.to.{x}", *factors) | {f"{BLOCK}.to_{x}.alpha": torch.tensor(1.0)}
    ups, downs = zip(*parts.values(), strict=True)
    tensors |= spelled(f"{BLOCK}.qkv", torch.block_diag(*(up.float() for up in ups)).bfloat16(), torch.cat(downs), 3.0)
    fused = torch.cat([up.double() @ down.double() / 2 for up, down in parts.values()])
    expected = {f"{BLOCK}.out.weight": out[0].double() @ out[1].double(), f"{BLOCK}.qkv.weight": fused}
    return tensors, expected


def deltas(tensors: Tensors, **options) -> Tensors:
    return dict(delta_weights(place(identify(parse(tensors, {})), **options).require_complete()))


def assert_close(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    for key, weight in expected.items():
        assert float((found[key].double() - weight).norm() / weight.norm()) < 1e-6, key


def test_two_spellings_count_once():
    tensors, expected = two_spellings()
    assert_close(deltas(tensors), expected)


def test_converted_they_are_there_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tensors, expected = two_spellings()
    save_file(tensors, tmp_path / "a.safetensors")
    for layout in ("comfyui", "diffusers", "musubi"):
        new = tmp_path / f"{layout}.safetensors"
        assert main(["convert", str(tmp_path / "a.safetensors"), "-o", str(new), "--to", layout]) == 0
        assert "there under another name too, and counted once" in capsys.readouterr().out
        placement = place(load_adapter_set(new)).require_complete()
        assert not placement.adapter_set.idle
        assert_close(dict(delta_weights(placement)), expected)


def test_merged_they_are_there_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tensors, expected = two_spellings()
    base = {"layers.0.attention.qkv.weight": random(192, 64), "layers.0.attention.out.weight": random(64, 64)}
    base |= {"layers.0.feed_forward.w1.weight": random(170, 64)}
    paths = {name: str(tmp_path / f"{name}.safetensors") for name in ("base", "a", "new")}
    save_file(base, paths["base"])
    save_file(tensors, paths["a"])
    assert main(["merge", "--base", paths["base"], "--adapter", paths["a"], "-o", paths["new"]]) == 0
    assert "left out: 4 modules (diffusion_model.layers.0.attention." in capsys.readouterr().out
    merged = load_file(paths["new"])
    for key, weight in expected.items():
        name = key.removeprefix("diffusion_model.")
        assert torch.allclose(merged[name].double(), base[name].double() + weight, atol=1e-5)


def test_resized_they_are_there_once(tmp_path: Path):
    """Each would be approximated apart, and the two would contradict each other."""
    tensors, _ = two_spellings()
    save_file(tensors, tmp_path / "a.safetensors")
    assert main(["resize", str(tmp_path / "a.safetensors"), "-o", str(tmp_path / "b.safetensors"), "--rank", "1"]) == 0
    left = load_file(tmp_path / "b.safetensors")
    assert not parse(left, {}).unrecognised
    assert not place(load_adapter_set(tmp_path / "b.safetensors")).adapter_set.idle
    assert {split_key(key)[0] for key in left} == {f"{BLOCK}.{name}" for name in ("qkv", "out")}


def test_inspect_says_so(tmp_path: Path):
    save_file(two_spellings()[0], tmp_path / "a.safetensors")
    found = inspect_file(tmp_path / "a.safetensors")
    assert found.as_json()["modules"] == 2
    assert len(found.as_json()["idle"]) == 4
    assert any("whether the two agree is seen when it is loaded" in line for line in found.lines())


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


FUSED, PARTS = {"layers.0.attention.qkv": (192, 64)}, {f"layers.0.attention.to_{x}": (64, 64) for x in "qkv"}


@pytest.mark.parametrize("algorithm", ["lora", "loha", "lokr"])
def test_zeros_beside_what_is_trained_are_nothing(algorithm: str):
    torch.manual_seed(1)
    fused, parts = dotted_file(FUSED, algorithm, random), dotted_file(PARTS, algorithm, random)
    assert_close(deltas(fused | dotted_file(PARTS, algorithm, zeros)), deltas(fused))
    assert_close(deltas(parts | dotted_file(FUSED, algorithm, zeros)), deltas(parts))


def test_zeros_alone_are_a_module():
    assert set(deltas(dotted_file(PARTS, tensor=zeros))) == {f"{BLOCK}.qkv.weight"}


def test_untrained_dora_beside_a_fused_one(tmp_path: Path):
    """SimpleTuner: W2 of to_q, to_k and to_v is zero, and their magnitudes are the weight's own norms."""
    torch.manual_seed(2)
    base = {f"layers.0.attention.{name}.weight": random(rows, 64) for name, rows in {"qkv": 192, "out": 64}.items()}
    norms = base["layers.0.attention.qkv.weight"].norm(dim=1, keepdim=True)
    fused = dotted_file(FUSED, tensor=random) | {f"{BLOCK}.qkv.dora_scale": norms * 1.5}
    parts = dotted_file(PARTS, tensor=random)
    for n, x in enumerate("qkv"):
        parts |= {f"{BLOCK}.to_{x}.dora_scale": norms[64 * n : 64 * n + 64] + 1e-3}
        parts[f"{BLOCK}.to_{x}.lokr_w2_b"] = zeros(2, 16)
    paths = {name: str(tmp_path / f"{name}.safetensors") for name in ("base", "a", "b", "with", "without")}
    save_file(base, paths["base"])
    save_file(fused | parts, paths["a"])
    save_file(fused, paths["b"])
    for adapter, new in (("a", "with"), ("b", "without")):
        assert main(["merge", "--base", paths["base"], "--adapter", paths[adapter], "-o", paths[new]]) == 0
    found, expected = load_file(paths["with"]), load_file(paths["without"])
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_what_contradicts_is_refused_by_both_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.manual_seed(3)
    names = (
        r"diffusion_model\.layers\.0\.attention\.to_[qkv] and diffusion_model\.layers\.0\.attention\.qkv both change"
    )
    tensors = dotted_file(FUSED, tensor=random) | dotted_file(PARTS, tensor=random)
    with pytest.raises(AdapterError, match=names):
        deltas(tensors)
    file, new = str(tmp_path / "a.safetensors"), str(tmp_path / "new.safetensors")
    base = tmp_path / "base.safetensors"
    save_file(tensors, file)
    save_file({"layers.0.attention.qkv.weight": random(192, 64), "layers.0.attention.out.weight": random(64, 64)}, base)
    for command in (
        ["delta", file, "-o", new],
        ["convert", file, "-o", new, "--to", "diffusers"],
        ["merge", "--base", str(base), "--adapter", file, "-o", new],
        ["resize", file, "-o", new, "--rank", "1"],
    ):
        assert main(command) == 1
        assert re.match(r"lyco: error: a\.safetensors: " + names, capsys.readouterr().err)
        assert not Path(new).exists()


def one_off(tensors: Tensors) -> Tensors:
    key = next(key for key in tensors if key.endswith("lora_up.weight"))
    return tensors | {key: tensors[key] * 1.001}


@pytest.mark.parametrize("change", [dict, one_off])
def test_one_module_by_two_formats(change: Callable[[Tensors], Tensors]):
    torch.manual_seed(4)
    first = musubi_file({"layers.0.feed_forward.w1": (512, 192)}, "lora", random)
    again = {
        key.replace("lora_unet_layers_0_feed_forward_w1", "diffusion_model.layers.0.feed_forward.w1"): tensor
        for key, tensor in first.items()
    }
    if change is dict:
        assert_close(deltas(first | again), deltas(first))
    else:
        with pytest.raises(AdapterError, match="is there twice, also as lora_unet_layers_0_feed_forward_w1"):
            deltas(first | change(again))


def test_a_magnitude_spelled_with_dots_joins_its_module():
    """Of a LoRA whose other keys have underscores."""
    name = "lora_unet_layers_0_attention_to_q"
    found = parse(lora(name, 8, 8, random) | {"lora_unet_layers_0_attention.to_q.dora_scale": torch.ones(8, 1)}, {})
    assert found.titles == {"LoRA with DoRA": 1}
    assert list(found.prefixes.values()) == [name]


def test_two_alphas_of_one_module_are_not_joined():
    name = "lora_unet_layers_0_attention_to_q"
    tensors = lokr(name, 8, 8) | {"lora_unet_layers_0_attention.to_q.alpha": torch.tensor(2.0)}
    assert parse(tensors, {}).unrecognised_keys == ("lora_unet_layers_0_attention.to_q.alpha",)
