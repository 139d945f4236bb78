"""Keys into adapters: spelling, suffixes, and whole modules or none."""

import json
from pathlib import Path

import pytest
import torch
from lyco_testing.tables import dotted_file, loha, lokr, lora, musubi_file, random
from lyco_testing.zoo import CASES, Case
from safetensors.torch import save_file

from lyco_core.adapter_reader import read_adapter_set
from lyco_core.adapters import DoRA, LoKr
from lyco_core.errors import AdapterError, FormatError
from lyco_core.formats import FORMATS, TENSOR_SUFFIXES, Format, parse, split_key
from lyco_core.formats.grammar import format_of


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("lora_unet_a_b.lokr_w1", ("lora_unet_a_b", "lokr_w1")),
        ("diffusion_model.a.0.lora_up.weight", ("diffusion_model.a.0", "lora_up.weight")),
        ("diffusion_model.a.0.dora_scale", ("diffusion_model.a.0", "dora_scale")),
        ("diffusion_model.a.lora_B.bias", ("diffusion_model.a", "lora_B.bias")),
        ("alpha", ("", "alpha")),
        ("", ("", "")),
    ],
)
def test_split_key(key: str, expected: tuple[str, str]):
    assert split_key(key) == expected


@pytest.mark.parametrize("suffix", TENSOR_SUFFIXES)
def test_split_key_finds_every_suffix(suffix: str):
    """Three parts at most, and none that ends as another does."""
    key = "a.0.to_q" + suffix if suffix.startswith("_") else f"a.0.to_q.{suffix}"
    assert split_key(key) == ("a.0.to_q", suffix)


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_every_format_is_told_by_each_of_its_prefixes(format: Format):
    for prefix in (*format.module_prefixes, *format.other_prefixes):
        found = format_of(f"{prefix}a.b")
        assert found is format, f"{prefix}: in FORMATS, {format.id} has to stand above {found and found.id}"


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_every_form_survives_its_names(case: Case):
    adapter = case.make()
    suffixes = {field: s for s, (algorithm, field) in TENSOR_SUFFIXES.items() if algorithm == adapter.algorithm}
    tensors = {f"lora_unet_x.{suffixes[name]}": tensor for name, tensor in adapter.tensors.items()}
    if adapter.alpha is not None:
        tensors["lora_unet_x.alpha"] = torch.tensor(adapter.alpha)
    found = parse(tensors, {}).adapters["x"]
    assert torch.equal(found.delta_weight(), adapter.delta_weight())


def test_formats_are_told_apart():
    assert parse(musubi_file({"blocks.0.ffn.0": (8, 8)}), {}).format is FORMATS["musubi"]
    assert parse(dotted_file({"blocks.0.ffn.0": (8, 8)}), {}).format is FORMATS["comfyui"]
    assert parse(lora("transformer.blocks.0", 8, 8), {}).format is FORMATS["diffusers"]
    assert parse(lora("blocks.0.ffn", 8, 8), {}).format is FORMATS["bare"]
    assert parse(lora("model", 8, 8), {}).format is None


def test_peft_names_of_lora():
    tensors = {
        "diffusion_model.a.lora_A.weight": torch.ones(2, 4),
        "diffusion_model.a.lora_B.weight": torch.ones(6, 2),
    }
    found = parse(tensors, {}).adapters["a"]
    assert found.shape == (6, 4)
    assert found.scale == 1


def test_text_encoder_modules_keep_their_whole_name():
    found = parse(lora("lora_te1_text_model_x", 8, 8), {})
    assert list(found.adapters) == ["lora_te1_text_model_x"]


def test_a_module_with_an_unknown_tensor_is_left_out_whole():
    tensors = lokr("lora_unet_a", 8, 8) | lokr("lora_unet_b", 8, 8)
    tensors["lora_unet_a.set_weight"] = torch.ones(8, 1)
    found = parse(tensors, {})
    assert list(found.adapters) == ["b"]
    assert set(found.unrecognised_keys) == {k for k in tensors if k.startswith("lora_unet_a.")}


def test_an_alpha_alone_is_no_adapter():
    found = parse({"lora_unet_a.alpha": torch.tensor(1.0)}, {})
    assert found.unrecognised_keys == ("lora_unet_a.alpha",)


@pytest.mark.parametrize("lacking", ["lokr_w1", "lokr_w2_a", "lokr_w2_b"])
def test_a_missing_tensor_names_the_module_and_the_tensor(lacking: str):
    tensors = lokr("lora_unet_blocks_0_ffn_0", 8, 8)
    del tensors[f"lora_unet_blocks_0_ffn_0.{lacking}"]
    field = lacking.removeprefix("lokr_")
    with pytest.raises(AdapterError, match=rf"^lora_unet_blocks_0_ffn_0: .*{field}.* missing; a LoKr needs"):
        parse(tensors, {})


def test_two_algorithms_in_one_module():
    with pytest.raises(AdapterError, match="loha and lokr in one module"):
        parse(lokr("lora_unet_a", 8, 8) | loha("lora_unet_a", 8, 8), {})


def test_alpha_of_several_numbers():
    tensors = lokr("lora_unet_a", 8, 8) | {"lora_unet_a.alpha": torch.ones(2)}
    with pytest.raises(AdapterError, match=r"lora_unet_a: alpha has shape \[2\], expected one number"):
        parse(tensors, {})


def test_alpha_may_have_any_dtype_and_one_dimension():
    for alpha in (torch.tensor([2], dtype=torch.int64), torch.tensor(2.0, dtype=torch.bfloat16)):
        found = parse(lokr("lora_unet_a", 8, 8) | {"lora_unet_a.alpha": alpha}, {}).adapters["a"]
        assert isinstance(found, LoKr)
        assert found.alpha == 2.0


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.int64])
def test_integers_are_no_factors(dtype: torch.dtype):
    tensors = lokr("lora_unet_a", 8, 8) | {"lora_unet_a.lokr_w1": torch.ones(4, 4, dtype=dtype)}
    with pytest.raises(AdapterError, match=r"lora_unet_a\.lokr_w1: its dtype is \w+, expected floating point"):
        parse(tensors, {})


def test_one_tensor_under_two_names():
    tensors = lora("diffusion_model.a", 8, 8) | {"diffusion_model.a.lora_A.weight": torch.ones(2, 8)}
    with pytest.raises(AdapterError, match="under two names"):
        parse(tensors, {})


def test_one_module_under_two_names():
    tensors = lora("lora_unet_img_in", 8, 8, random) | lora("diffusion_model.img_in", 8, 8, random)
    with pytest.raises(
        AdapterError, match=r"^diffusion_model\.img_in: .* there twice, also as lora_unet_img_in, and .* differ"
    ):
        parse(tensors, {})


def test_pefts_dora_is_no_plain_lora():
    tensors = lora("diffusion_model.a", 8, 8) | {"diffusion_model.a.lora_magnitude_vector.weight": torch.ones(8)}
    found = parse(tensors, {}).adapters["a"]
    assert isinstance(found, DoRA)
    assert found.axis == 0


def test_alphas_in_diffusers_metadata():
    config = {"transformer.lora_alpha": 4, "transformer.alpha_pattern": {"b.0": 1.0}, "transformer.r": 2}
    names = [f"transformer.{x}.lora_{ab}.weight" for x in ("a.0", "b.0") for ab in "AB"]
    tensors = {name: torch.ones((2, 8) if "_A" in name else (8, 2)) for name in names}
    found = parse(tensors, {"lora_adapter_metadata": json.dumps(config)}).adapters
    assert [a.scale for a in found.values()] == [2.0, 0.5]
    config["transformer.use_rslora"] = True
    found = parse(tensors, {"lora_adapter_metadata": json.dumps(config)}).adapters
    assert found["a.0"].scale == pytest.approx(4 / 2**0.5)
    with pytest.raises(FormatError, match="lora_adapter_metadata is not a LoraConfig"):
        parse(tensors, {"lora_adapter_metadata": "[1"})


@pytest.mark.parametrize("beside", [True, False])
def test_pefts_configuration_is_of_pefts_formats_alone(beside: bool, tmp_path: Path):
    """A folder may hold a file of another trainer beside it, whose missing alpha means a scale of 1."""
    text = json.dumps({"lora_alpha": 16, "r": 2})
    if beside:
        (tmp_path / "adapter_config.json").write_text(text)
    for name, scale in {
        "diffusion_model.a.b": 1,
        "lora_unet_a_b": 1,
        "lycoris_a_b": 1,
        "base_model.model.a.b": 8,
    }.items():
        factors = {f"{name}.lora_A.weight": random(2, 8), f"{name}.lora_B.weight": random(8, 2)}
        save_file(factors, tmp_path / "a.safetensors", None if beside else {"lora_adapter_metadata": text})
        (adapter,) = read_adapter_set(tmp_path / "a.safetensors").adapters.values()
        assert adapter.scale == scale, name


def test_large_numbers_are_no_infinite_ones(tmp_path: Path):
    """Each is finite, and their sum in float32 is not."""
    for large in (torch.full((4, 4), 3e38), torch.full((4, 4), 3e38).bfloat16(), torch.full((2048, 4), 6e4).half()):
        save_file({"lora_unet_a.diff": large}, tmp_path / "a.safetensors")
        (adapter,) = read_adapter_set(tmp_path / "a.safetensors").adapters.values()
        assert torch.equal(adapter.delta_weight(), large.float())
    save_file({"lora_unet_a.diff": torch.tensor([[3e38, float("inf")]])}, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=r"lora_unet_a\.diff: 1 of its 2 numbers are NaN or infinite"):
        read_adapter_set(tmp_path / "a.safetensors")


def test_a_magnitude_alone_is_refused_beside_other_modules():
    tensors = lokr("lora_unet_a", 8, 8) | {"lora_unet_b.dora_scale": torch.ones(8, 1)}
    with pytest.raises(AdapterError, match="lora_unet_b: dora_scale without the factors that it belongs to"):
        parse(tensors, {})
