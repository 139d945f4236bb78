"""The way out is the inverse of the way in, for every form of every algorithm under every format's names."""

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lyco_testing.tables import lokr, lora, musubi_file, outline, random, targets
from lyco_testing.trainers import TRAINERS, Trainer, file_of
from lyco_testing.zoo import CASES, normal
from lyco_testing.zoo_on_base import ON_BASE
from safetensors.torch import load_file, save_file

from lyco_core.adapter_reader import load_adapter_set
from lyco_core.adapter_set import AdapterSet
from lyco_core.adapter_writer import save_adapter_set
from lyco_core.adapters import IA3, LOW_RANK, Adapter, DoRA, Full, LoRA, OFTv2, Swapped, bare, with_alpha
from lyco_core.architectures import identify
from lyco_core.errors import AdapterError, PlacementError
from lyco_core.formats import FORMATS, Format, emit, parse

MADE = {case.name: case.make() for case in (*CASES, *ON_BASE)}
FORMS = {name: adapter for name, adapter in MADE.items() if not isinstance(adapter, Swapped)}  # those are in no file
ALGORITHMS = sorted({adapter.algorithm for adapter in FORMS.values()})
every_format = pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
PATHS = ["blocks.0.self_attn.q", "blocks.1.self_attn.q", "blocks.0.ffn.2", "layers.3.out", "single.17.x_proj"]


def set_of(adapters: dict[str, Adapter]) -> AdapterSet:
    """As if made in memory: of no file yet."""
    return AdapterSet(adapters, {path: path for path in adapters}, None, {})


def refused(adapter: Adapter, format: Format) -> bool:
    """PEFT's names know no magnitudes along the inputs, and ComfyUI's alone those for the weight's own norm."""
    return isinstance(adapter, DoRA) and (
        (adapter.axis == 1 and format.peft) or (adapter.by_base and format.id != "comfyui")
    )


def contradictory(adapters: dict[str, Adapter]) -> bool:
    """Whether one file cannot say both of what two of them are."""
    rotations = [a for a in adapters.values() if isinstance(a, OFTv2)]
    doras = [a.inner if isinstance(a, OFTv2) else a for a in adapters.values()]
    norms = {a.by_base for a in doras if isinstance(a, DoRA) and a.axis == 0}
    return len(norms) > 1 or len({(a.terms, a.of_peft) for a in rotations}) > 1


def expected_of(adapters: dict[str, Adapter], format: Format) -> dict[str, Adapter]:
    """What comes back: LoRAs alone are PEFT's own file, and PEFT has an alpha for each, which says a scale of 1."""
    inner = [bare(adapter) for adapter in adapters.values()]
    configured = format.peft and all(isinstance(a, LoRA) and a.mid is None for a in inner)
    return {
        format.module(format.prefix(path.removesuffix(".bias"))) + ".bias" * path.endswith(".bias"): (
            with_alpha(a, float(a.rank)) if configured and a.alpha is None and a.rank is not None else a
        )
        for path, a in adapters.items()
    }


def assert_same(found: Adapter, expected: Adapter) -> None:
    """Bit for bit; files have their alphas in float32."""
    assert type(found) is type(expected)
    assert (found.algorithm, found.shape) == (expected.algorithm, expected.shape)
    assert found.alpha == (None if expected.alpha is None else float(torch.tensor(expected.alpha)))
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor), name
    if isinstance(found, DoRA) and isinstance(expected, DoRA):
        assert (found.axis, found.by_base) == (expected.axis, expected.by_base)
    if isinstance(found, OFTv2) and isinstance(expected, OFTv2):
        assert (found.terms, found.of_peft, found.scaled) == (expected.terms, expected.of_peft, expected.scaled)
    if isinstance(found, IA3) and isinstance(expected, IA3):
        assert found.on_input == expected.on_input


def assert_identity(adapters: dict[str, Adapter], format: Format) -> None:
    tensors, metadata = emit(set_of(adapters), format)
    found, expected = parse(tensors, metadata), expected_of(adapters, format)
    assert found.format is format
    assert list(found.adapters) == list(expected)
    assert not found.unrecognised
    assert not found.idle
    for path, adapter in expected.items():
        assert_same(found.adapters[path], adapter)
    again, notes = emit(found)
    assert notes == metadata
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[key], tensor) for key, tensor in tensors.items())


@every_format
@pytest.mark.parametrize("form", FORMS)
def test_every_form_comes_back_or_is_refused_by_name(format: Format, form: str):
    adapter = FORMS[form]
    if not refused(adapter, format):
        return assert_identity({PATHS[0]: adapter}, format)
    message = "is along the inputs, .* knows the outp|are made for the norm that ComfyUI's own loader divides by"
    with pytest.raises(PlacementError, match=rf"self_attn.q: its DoRA magnitudes? ({message})"):
        emit(set_of({PATHS[0]: adapter}), format)


@every_format
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(derandomize=True, max_examples=6, deadline=None)
@given(data=st.data())
def test_parse_of_emit_is_the_identity(format: Format, algorithm: str, data: st.DataObject):
    """Several modules of one algorithm and one of any, in any dtype, with and without alphas and biases."""
    every = [adapter for adapter in FORMS.values() if not refused(adapter, format)]
    own = [adapter for adapter in every if adapter.algorithm == algorithm]
    adapters: dict[str, Adapter] = {}
    for path in data.draw(st.lists(st.sampled_from(PATHS), min_size=1, unique=True)):
        form = data.draw(st.sampled_from(own if path != PATHS[-1] else every))
        adapter = form.to(dtype=data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16])))
        if bare(adapter).algorithm in LOW_RANK:
            adapter = with_alpha(adapter, data.draw(st.none() | st.sampled_from([0.5, 1.0, 2.0, 3.0, 16.0, 0.3125])))
        adapters[path] = adapter
        if not isinstance(adapter, IA3) and data.draw(st.booleans()):
            adapters[path + ".bias"] = Full(normal(adapter.shape[0] or 3))
    if contradictory(adapters):
        with pytest.raises(PlacementError, match=r"made for two norms|of several options of PEFT"):
            emit(set_of(adapters), format)
        return
    assert_identity(adapters, format)


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda t: t.title)
def test_emit_of_parse_is_the_file_that_a_trainer_wrote(trainer: Trainer):
    """Key for key, whatever its spelling; alphas of PEFT's files are in its configuration."""
    for algorithm in trainer.algorithms:
        tensors = file_of(trainer, algorithm, {"blocks.0.attn.q": (16, 8), "blocks.1.attn.q": (16, 8)})
        made, metadata = emit(parse(tensors, {"title": "x"}))
        assert made.keys() == tensors.keys(), algorithm
        assert all(made[key].shape == t.shape and made[key].dtype == t.dtype for key, t in tensors.items()), algorithm
        assert metadata["title"] == "x"


@every_format
def test_an_identified_set_is_found_again_by_its_architecture(format: Format):
    torch.manual_seed(0)
    names = [name for name in targets("z_image") if name.startswith("layers.0.")]
    found = identify(parse(musubi_file({name: (64, 64) for name in names if "attention" in name}, "lokr", random), {}))
    assert found.architecture is not None
    tensors, metadata = emit(found, format)
    assert metadata["lyco_architecture"] == "z_image"
    again = identify(parse(tensors, metadata))
    assert again.format is format
    assert (again.architecture, again.layout) == (found.architecture, "musubi")
    assert list(again.adapters) == list(found.adapters)
    for path, adapter in found.adapters.items():
        assert_same(again.adapters[path], adapter)


def test_what_a_format_cannot_hold_is_refused_by_name():
    adapter, bias = LoRA(normal(8, 2), normal(2, 6)), Full(normal(8))
    for adapters, format, message in (
        (
            {"a.b": IA3(normal(8), on_input=False), "a.b.bias": bias},
            "comfyui",
            "a.b: no format has names for IA3 and difference",
        ),
        ({"a.b.bias": adapter}, "comfyui", r"a\.b: no format has names for LoRA of a bias"),
        ({"a": adapter}, "bare", r"a: would be taken for another module as a, so it has no name in the format bare"),
        ({"base_model.model.a": adapter}, "diffusers", "base_model.model.a: would be taken for another module"),
        ({"_x": adapter}, "musubi", "_x: would be taken for another module as lora_unet__x"),
        ({"a.b": adapter, "a_b": adapter}, "musubi", "lora_unet_a_b.*: two modules would go by this one name"),
    ):
        with pytest.raises(PlacementError, match=message):
            emit(set_of(adapters), FORMATS[format])


def test_what_only_its_own_format_spells_is_kept_there_and_refused_elsewhere():
    file = lora("lora_unet_blocks_0_q", 8, 8, random) | lora("lora_te1_text_model_q", 8, 8, random)
    unknown = {"lora_unet_x.set_weight": random(4)}
    found = parse(file | unknown, {})
    tensors = emit(found)[0]
    assert tensors.keys() == (file | unknown).keys()
    with pytest.raises(PlacementError, match=r"1 keys belong to no adapter .* \(lora_unet_x\.set_weight"):
        emit(found, FORMATS["onetrainer"])
    known = dataclasses.replace(found, unrecognised={})
    with pytest.raises(PlacementError, match="lora_te1_text_model_q: is a text encoder's, so it has no name in the"):
        emit(known, FORMATS["onetrainer"])
    with pytest.raises(PlacementError, match="blocks_0_q: is spelled with underscores, and no known architecture"):
        emit(known, FORMATS["comfyui"])


def test_an_alpha_is_stored_exactly(tmp_path: Path):
    """In the adapter's dtype where that holds it, else in float32; the file's own tensor where it still says so."""
    torch.manual_seed(0)
    for alpha, dtype in ((2.0, torch.bfloat16), (0.3, torch.float32), (300.5, torch.float32)):
        adapter = LoRA(random(8, 2).bfloat16(), random(2, 8).bfloat16(), alpha=alpha)
        stored = emit(set_of({"a.b": adapter}), FORMATS["musubi"])[0]["lora_unet_a_b.alpha"]
        assert stored.dtype == dtype
        assert float(stored) == float(torch.tensor(alpha))
    file = lora("lora_unet_a", 8, 8, random) | {"lora_unet_a.alpha": torch.tensor([4], dtype=torch.int64)}
    found = parse(file, {})
    assert emit(found)[0]["lora_unet_a.alpha"] is file["lora_unet_a.alpha"]
    changed = dataclasses.replace(found, adapters={"a": with_alpha(found.adapters["a"], 3.0)})
    assert float(emit(changed)[0]["lora_unet_a.alpha"]) == 3.0


def test_a_set_is_saved_whole_with_its_hashes_or_not_at_all(tmp_path: Path):
    torch.manual_seed(0)
    save_file(lokr("lora_unet_blocks_0_ffn_0", 128, 64, random), tmp_path / "a.safetensors", {"title": "x"})
    found, out = load_adapter_set(tmp_path / "a.safetensors", architecture="wan"), tmp_path / "b.safetensors"
    save_adapter_set(found, out, format=FORMATS["comfyui"], dtype=torch.bfloat16, metadata={"more": "y"})
    assert {key.rpartition(".")[0] for key in load_file(out)} == {"diffusion_model.blocks.0.ffn.0"}
    assert {tensor.dtype for tensor in load_file(out).values()} == {torch.bfloat16}
    again = load_adapter_set(out)
    assert again.architecture is found.architecture
    assert {"title", "more", "sshs_model_hash", "sshs_legacy_hash", "lyco_architecture"} == again.metadata.keys()
    found.adapters["blocks.0.ffn.0"].tensors["w1"][0, 0] = 7e4
    before = out.read_bytes()
    with pytest.raises(AdapterError, match=r"blocks\.0\.ffn\.0\.lokr_w1: its 70000 is beyond what float16 holds"):
        save_adapter_set(found, out, format=FORMATS["comfyui"], dtype=torch.float16, overwrite=True)
    found.adapters["blocks.0.ffn.0"].tensors["w1"][0, 0] = torch.nan
    with pytest.raises(AdapterError, match=r"lora_unet_blocks_0_ffn_0\.lokr_w1: 1 of its \d+ numbers are NaN"):
        save_adapter_set(found, out, overwrite=True)
    assert out.read_bytes() == before


def test_an_outline_is_no_file():
    found = parse({f"lora_unet_a.lora_{x}.weight": outline(8, 8) for x in ("up", "down")}, {})
    with pytest.raises(AdapterError, match="lora_unet_a: is an outline without numbers; load the file"):
        save_adapter_set(found, "never")
