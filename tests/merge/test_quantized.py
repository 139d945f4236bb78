"""Bases in every quantized form: what is stored is the sum, rounded as finely as the form allows, and nothing else."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from lyco_testing.half_kernels import half_kernels
from lyco_testing.stored_forms import NEED_KITCHEN, SAID, marker, numbers, random_codes
from lyco_testing.tables import dotted_file, random
from lyco_testing.tiny_wan import wan_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lyco_core.cli import main
from lyco_core.errors import LycoError, MergeError
from lyco_core.inspection import inspect_file
from lyco_core.merging import MergeOptions, Source, merge_checkpoint
from lyco_core.quantized import kitchen, reading

WIDTH, FEED = 256, 320
MODULES = {
    **{f"blocks.0.self_attn.{name}": (WIDTH, WIDTH) for name in "qkv"},
    "blocks.0.ffn.0": (FEED - 24, WIDTH),
    "blocks.0.ffn.2": (WIDTH, FEED),
}
ROUGHNESS = {"fp8": 0.03, "mxfp8": 0.04, "int8": 0.02, "int8_row": 0.02, "int8_convrot": 0.01}
"""Of the sums, by rounding; the rest have four bits."""


def known(form: str) -> str:
    """The form, if what it needs is here: without it, that is what is said first."""
    if form in NEED_KITCHEN:
        pytest.importorskip("comfy_kitchen")
    return form


@pytest.fixture(params=SAID)
def form(request: pytest.FixtureRequest) -> str:
    return known(request.param)


def stem(path: str, prefix: str = "") -> str:
    return f"{prefix}{path}."


def base(form: str, *, in_metadata: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors = {k: t.half() for k, t in wan_checkpoint(WIDTH, FEED, 1).items()}
    layers: dict[str, Mapping[str, object]] = {}
    for n, (path, (rows, columns)) in enumerate(MODULES.items()):
        del tensors[f"{path}.weight"]
        tensors |= {f"{path}.{role}": part for role, part in random_codes(form, rows, columns, n).items()}
        tensors[f"{path}.bias"] = torch.zeros(rows)
        tensors[f"{path}.input_scale"] = torch.tensor(0.5)
        layers[path] = SAID[form]
        if not in_metadata:
            tensors[f"{path}.comfy_quant"] = marker(SAID[form])
    return tensors, {"_quantization_metadata": json.dumps({"layers": layers})} if in_metadata else {}


def adapter(kind: str = "lokr") -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(tensors, path -> exact change), a tenth of the weights."""
    torch.manual_seed(4)
    tensors = dotted_file(MODULES, kind, random)
    changes: dict[str, Tensor] = {}
    for path, (_, columns) in MODULES.items():
        name = f"diffusion_model.{path}"
        tensors[f"{name}.lokr_w1"] *= 0.1 * columns**-0.5
        w1, a, b = (tensors[f"{name}.lokr_{part}"].double() for part in ("w1", "w2_a", "w2_b"))
        changes[path] = torch.kron(w1, a @ b) / 2
    return tensors, changes


def merged(
    tmp_path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str], options: MergeOptions | None = None
):
    save_file(dict(tensors), tmp_path / "base.safetensors", metadata)
    save_file(adapter()[0], tmp_path / "a.safetensors")
    source, output = Source(tmp_path / "a.safetensors"), tmp_path / "out.safetensors"
    made = merge_checkpoint(tmp_path / "base.safetensors", [source], output, options or MergeOptions())
    return load_file(output), made


@pytest.mark.parametrize("form", ["mxfp8", "nvfp4", "nvfp4_before"])
def test_where_kernels_do_not_round_float32(form, tmp_path: Path):
    pytest.importorskip("comfy_kitchen")
    expected, _ = merged(tmp_path, *base(form))
    (tmp_path / "out.safetensors").unlink()
    with half_kernels():
        found, _ = merged(tmp_path, *base(form))
    for key, tensor in expected.items():
        assert torch.equal(found[key].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def parts_of(tensors: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{path}."): t for key, t in tensors.items() if key.startswith(f"{path}.")}


@pytest.mark.parametrize(("in_metadata", "band_bytes"), [(False, 2**17), (True, 2**23)])
def test_the_sums_in_the_bases_own_form(form, in_metadata, band_bytes, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(reading, "FILE_BAND_BYTES", band_bytes)
    tensors, metadata = base(form, in_metadata=in_metadata)
    found, made = merged(tmp_path, tensors, metadata)
    assert {k: (t.shape, t.dtype) for k, t in found.items()} == {k: (t.shape, t.dtype) for k, t in tensors.items()}
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert metadata.items() <= file.metadata().items()
    wanted_all, error_all, across_all = 0.0, 0.0, 0.0
    rewritten = set()
    for path, (rows, _) in MODULES.items():
        exact = numbers(form, parts_of(tensors, path), rows) + adapter()[1][path]
        stored = numbers(form, parts_of(found, path), rows)
        error, change = stored - exact, adapter()[1][path]
        assert float(error.norm() / exact.norm()) < ROUGHNESS.get(form, 0.17)
        wanted_all += float(change.square().sum())
        error_all += float(error.square().sum())
        across_all += float((error * change).sum())
        rewritten |= {f"{path}.{role}" for role in (*random_codes(form, 32, 64, 0),)} - {f"{path}.pre_quant_scale"}
    for key, tensor in tensors.items():
        if key not in rewritten:
            assert bytes_of(found[key]) == bytes_of(tensor), key
    told = re.match(r"of the change in quantized weights, ([\d.]+) % \(error ([\d.e-]+)\) is stored", made.survival[0])
    assert told is not None
    assert float(told[1]) == pytest.approx(100 * (1 + across_all / wanted_all), abs=2)  # of every fourth band
    assert float(told[2]) == pytest.approx((error_all / wanted_all) ** 0.5, rel=0.1)


def bytes_of(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_another_dtype_leaves_nothing_of_the_form(form, dtype, tmp_path: Path):
    tensors, metadata = base(form, in_metadata=True)
    tensors |= {f"{path}.comfy_quant": marker(SAID[form]) for path in MODULES}
    found, made = merged(tmp_path, tensors, metadata, MergeOptions(dtype=dtype))
    assert found.keys() == {*wan_checkpoint(WIDTH, FEED, 1)}
    assert {tensor.dtype for tensor in found.values()} == {dtype}
    assert not made.survival
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert "_quantization_metadata" not in file.metadata()
    for path, (rows, columns) in MODULES.items():
        exact = numbers(form, parts_of(tensors, path), rows) + adapter()[1][path]
        stored = found[f"{path}.weight"]
        assert stored.shape == (rows, columns)
        tolerance = 2e-6 if dtype == torch.float32 else 2**-8
        assert float((stored.double() - exact).abs().max()) < tolerance * float(exact.abs().max())


def test_layers_of_a_text_encoder_stay_in_the_metadata(tmp_path: Path):
    tensors, _ = base("int8_row")
    tensors = {f"model.diffusion_model.{key}": tensor for key, tensor in tensors.items()}
    encoder = {"text_encoders.t5.q": {"format": "float8_e4m3fn"}}
    layers = encoder | {f"model.diffusion_model.{path}": SAID["int8_row"] for path in MODULES}
    tensors["text_encoders.t5.q.weight"] = torch.ones(4, 4).to(torch.float8_e4m3fn)
    metadata = {"_quantization_metadata": json.dumps({"layers": layers})}
    found, _ = merged(tmp_path, tensors, metadata, MergeOptions(dtype=torch.bfloat16))
    assert found["text_encoders.t5.q.weight"].dtype == torch.float8_e4m3fn
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert json.loads(file.metadata()["_quantization_metadata"])["layers"] == encoder


def test_inspect_tells_packed_shapes_by_their_format(form, tmp_path: Path):
    tensors, metadata = base(form)
    save_file(tensors, tmp_path / "base.safetensors", metadata)
    save_file(adapter()[0], tmp_path / "a.safetensors")
    found = inspect_file(tmp_path / "a.safetensors", tmp_path / "base.safetensors").as_json()["model"]
    assert (found["matched"], found["misfits"], found["homeless"]) == (len(MODULES), [], [])


def test_extract_reads_every_form(form, tmp_path: Path):
    tensors, metadata = base(form)
    merged(tmp_path, tensors, metadata, MergeOptions(dtype=torch.float32))
    words = [
        "extract",
        "--base",
        "base.safetensors",
        "--tuned",
        "out.safetensors",
        "-o",
        "x.safetensors",
        "--rank",
        "8",
    ]
    assert main([str(tmp_path / w) if w.endswith(".safetensors") else w for w in words]) == 0
    found = load_file(tmp_path / "x.safetensors")
    for path, change in adapter()[1].items():
        up, down = (found[f"diffusion_model.{path}.lora_{side}.weight"].double() for side in ("up", "down"))
        assert float((up @ down - change).norm() / change.norm()) < 1e-3


MISSING = [(form, role) for form in SAID for role in random_codes(form, 32, 64, 0) if role.startswith("weight_")]


@pytest.mark.parametrize(("form", "role"), [m for m in MISSING if m != ("w4a8", "weight_codebook")])
def test_a_missing_scale_is_told(form: str, role: str, tmp_path: Path):
    tensors, metadata = base(known(form))
    del tensors[f"blocks.0.ffn.0.{role}"]
    with pytest.raises(MergeError, match=rf"blocks\.0\.ffn\.0\.weight: \w[\w ]* whose {role} is missing\)") as caught:
        merged(tmp_path, tensors, metadata)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("name", NEED_KITCHEN)
def test_without_the_package_the_form_and_the_way_out_are_named(name: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(kitchen, "find_kitchen", lambda: None)
    tensors, metadata = base(name)
    with pytest.raises(
        MergeError, match=r"blocks\.0\..*for which comfy-kitchen is needed: use the Python that ComfyUI"
    ):
        merged(tmp_path, tensors, metadata)
    monkeypatch.setattr(kitchen, "find_kitchen", lambda: kitchen)  # one without the functions
    with pytest.raises(MergeError, match="which this comfy-kitchen does not know: update ComfyUI"):
        merged(tmp_path, tensors, metadata)
    shapes = inspect_file(tmp_path / "a.safetensors", tmp_path / "base.safetensors").as_json()["model"]
    assert shapes["matched"] == len(MODULES)


DAMAGED = {
    "a scale for other rows": ("int8_row", {"weight_scale": torch.ones(7, 1)}, {}),
    "groups that do not divide": ("int8_convrot", {}, {"convrot_groupsize": 1024}),
    "groups of no power of 4": ("int8_convrot", {}, {"convrot_groupsize": 32}),
    "a word for a number": ("w4a4", {}, {"params": {"convrot_groupsize": "x"}}),
    "another dtype": ("mxfp8", {"weight": torch.zeros(296, 256)}, {}),
    "too few scales": ("nvfp4", {"weight_scale": torch.zeros(4, 4, dtype=torch.uint8)}, {}),
    "one dimension": ("int8", {"weight": torch.zeros(64, dtype=torch.int8)}, {}),
    "a format of tomorrow": ("int8", {}, {"format": "int3"}),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_does_not_make_a_form_is_refused(name: str, tmp_path: Path):
    form, parts, said = DAMAGED[name]
    tensors, metadata = base(known(form))
    tensors |= {f"blocks.0.ffn.0.{role}": part for role, part in parts.items()}
    tensors["blocks.0.ffn.0.comfy_quant"] = marker({**SAID[form], **said})
    with pytest.raises(LycoError, match=r"nothing can be merged into \(blocks\.0\.ffn\.0\.weight: "):
        merged(tmp_path, tensors, metadata)


@pytest.mark.parametrize("name", ["int8", "int8_row", "int8_convrot", "fp8", "w4a4", "w4a8"])
def test_stochastic_rounding_has_the_right_mean(name: str, tmp_path: Path):
    if name in NEED_KITCHEN:
        pytest.importorskip("comfy_kitchen")
    tensors, metadata = base(name)
    found, made = merged(tmp_path, tensors, metadata, MergeOptions(seed=3))
    path, (rows, _) = next(iter(MODULES.items()))
    error = (
        numbers(name, parts_of(found, path), rows) - numbers(name, parts_of(tensors, path), rows) - adapter()[1][path]
    )
    assert abs(float(error.mean())) < 5 * float(error.std()) / error.numel() ** 0.5
    assert made.survival


@pytest.mark.parametrize("name", ["mxfp8", "nvfp4"])
def test_forms_that_are_rounded_to_the_nearest_only(name: str, tmp_path: Path):
    tensors, metadata = base(name)
    pytest.importorskip("comfy_kitchen")
    with pytest.raises(MergeError, match="which is rounded to the nearest only; leave stochastic rounding out"):
        merged(tmp_path, tensors, metadata, MergeOptions(seed=3))


def test_a_change_that_is_too_small_for_its_form_warns(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("comfy_kitchen")
    tensors, metadata = base("w4a4")
    save_file(tensors, tmp_path / "base.safetensors", metadata)
    save_file(adapter()[0], tmp_path / "a.safetensors")
    words = ["merge", "--base", "base.safetensors", "--adapter", "a.safetensors@0.05", "-o", "out.safetensors"]
    assert main([str(tmp_path / w) if ".safetensors" in w else w for w in words]) == 0
    assert "warning: these weights are too coarse for this change; to keep it, write a bfloat16 file" in (
        capsys.readouterr().out
    )
