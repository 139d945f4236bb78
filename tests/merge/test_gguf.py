"""GGUF bases: F16, BF16 and Q8_0 are changed in their own file, what is coarser is refused or read."""

import json
import re
from pathlib import Path

import pytest
import torch
from lyco_testing.gguf_files import TYPES, gguf_bytes, numbers, random_q8, read_gguf, stored
from lyco_testing.tables import dotted_file, random
from lyco_testing.tiny_wan import wan_checkpoint
from safetensors.torch import load_file, save_file

from lyco_core.cli import main
from lyco_core.errors import FileError, LycoError, MergeError
from lyco_core.inspection import inspect_file
from lyco_core.merging import MergeOptions, Source, merge_checkpoint
from lyco_core.quantized import ggml

MODULES = {"blocks.0.self_attn.q": (128, 128), "blocks.0.ffn.0": (320, 128), "blocks.0.ffn.2": (128, 320)}
NOTES = {"general.architecture": "wan", "general.file_type": 7, "words": ["a", "b"], "lyco_merge": '[{"old": 1}]'}


def base(kind: str):
    """Every Linear of a tiny Wan in a type; the rest as ComfyUI-GGUF's converter leaves it."""
    made = {}
    for n, (key, tensor) in enumerate(wan_checkpoint(blocks=1).items()):
        matrix = key.endswith(".weight") and tensor.dim() == 2
        if matrix and kind == "Q8_0":
            made[key] = random_q8(*tensor.shape, n)
        elif matrix and kind not in ("F32", "F16", "BF16"):
            _, block, each = TYPES[kind]
            made[key] = kind, tuple(tensor.shape), b"\x01" * (tensor.numel() // block * each)
        else:
            made[key] = stored(tensor, kind if matrix else "F32")
    return made


def adapter(folder: Path) -> tuple[Source, dict[str, torch.Tensor]]:
    torch.manual_seed(4)
    tensors = dotted_file(MODULES, "lokr", random)
    changes = {}
    for path, (_, columns) in MODULES.items():
        name = f"diffusion_model.{path}"
        tensors[f"{name}.lokr_w1"] *= 0.1 * columns**-0.5
        w1, a, b = (tensors[f"{name}.lokr_{part}"].double() for part in ("w1", "w2_a", "w2_b"))
        changes[f"{path}.weight"] = torch.kron(w1, a @ b) / 2
    save_file(tensors, folder / "a.safetensors")
    return Source(folder / "a.safetensors"), changes


@pytest.mark.parametrize("alignment", [32, 64])
@pytest.mark.parametrize(("kind", "rough"), [("F32", 1e-6), ("F16", 5e-4), ("BF16", 3e-3), ("Q8_0", 7e-3)])
def test_the_sums_in_a_file_like_the_base(kind, rough, alignment, tmp_path: Path):
    tensors = base(kind)
    (tmp_path / "base.gguf").write_bytes(gguf_bytes(tensors, NOTES, alignment))
    source, changes = adapter(tmp_path)
    made = merge_checkpoint(tmp_path / "base.gguf", [source], tmp_path / "out.gguf")
    found, notes = read_gguf(tmp_path / "out.gguf")
    assert list(found) == list(tensors)
    assert notes["general.architecture"] == "wan"
    old, new = json.loads(notes["lyco_merge"])
    assert (old, new["adapters"][0]["name"]) == ({"old": 1}, "a.safetensors")
    for key, before in tensors.items():
        assert found[key][:2] == before[:2]
        if key in changes:
            exact = numbers(*before) + changes[key]
            assert float((numbers(*found[key]) - exact).norm() / exact.norm()) < rough
        else:
            assert found[key][2] == before[2]
    assert bool(made.survival) == (kind == "Q8_0")


@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
def test_a_dtype_writes_safetensors(kind, tmp_path: Path):
    tensors = base(kind)
    (tmp_path / "base.gguf").write_bytes(gguf_bytes(tensors, NOTES))
    source, changes = adapter(tmp_path)
    options = MergeOptions(dtype=torch.float32)
    merge_checkpoint(tmp_path / "base.gguf", [source], tmp_path / "out.safetensors", options)
    found = load_file(tmp_path / "out.safetensors")
    assert found.keys() == tensors.keys()
    for key, before in tensors.items():
        exact = numbers(*before) + changes.get(key, torch.zeros(()))
        assert float((found[key].double() - exact).abs().max()) < 1e-6 * float(exact.abs().max())


def test_a_shape_that_was_flattened(tmp_path: Path):
    tensors = base("F16")
    flat = tensors["patch_embedding.weight"]
    tensors["patch_embedding.weight"] = flat[0], (64, 128), flat[2]
    note = {"comfy.gguf.orig_shape.patch_embedding.weight": [128, 16, 1, 2, 2]}
    (tmp_path / "base.gguf").write_bytes(gguf_bytes(tensors, note))
    save_file(
        {
            "diffusion_model.patch_embedding.lora_up.weight": torch.ones(128, 1),
            "diffusion_model.patch_embedding.lora_down.weight": torch.ones(1, 16, 1, 2, 2),
        },
        tmp_path / "a.safetensors",
    )
    source = Source(tmp_path / "a.safetensors")
    merge_checkpoint(tmp_path / "base.gguf", [source], tmp_path / "out.gguf")
    found, _ = read_gguf(tmp_path / "out.gguf")
    exact = numbers(*tensors["patch_embedding.weight"]) + 1
    assert torch.allclose(numbers(*found["patch_embedding.weight"]), exact, atol=1e-6)


def test_inspect_reads_the_header(tmp_path: Path):
    adapter(tmp_path)
    for kind in ("Q8_0", "Q4_0"):
        (tmp_path / "base.gguf").write_bytes(gguf_bytes(base(kind), NOTES))
        found = inspect_file(tmp_path / "a.safetensors", tmp_path / "base.gguf").as_json()["model"]
        assert (found["matched"], found["misfits"], found["homeless"]) == (len(MODULES), [], [])


def test_what_is_too_coarse_is_refused_with_the_reason(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(ggml, "package", lambda: ggml)
    source, _ = adapter(tmp_path)
    (tmp_path / "base.gguf").write_bytes(gguf_bytes(base("Q4_0"), NOTES))
    reason = r"ffn\.0\.weight: GGUF Q4_0, in which a change of half a percent vanishes .*choose bfloat16 as dtype"
    with pytest.raises(MergeError, match=reason):
        merge_checkpoint(tmp_path / "base.gguf", [source], tmp_path / "out.gguf")
    monkeypatch.setattr(ggml, "package", lambda: None)
    options = MergeOptions(dtype=torch.bfloat16)
    with pytest.raises(MergeError, match=r"GGUF Q4_0, for which the gguf package is needed: pip install gguf"):
        merge_checkpoint(tmp_path / "base.gguf", [source], tmp_path / "out.safetensors", options)
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_0", "Q8_0"])
def test_the_gguf_package_reads_the_same(kind, tmp_path: Path):
    gguf = pytest.importorskip("gguf")
    source, changes = adapter(tmp_path)
    types = gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(tmp_path / "base.gguf", "wan")
    exact = {}
    for key, tensor in wan_checkpoint(blocks=1).items():
        matrix = key.endswith(".weight") and tensor.dim() == 2
        form = types[kind] if matrix else types.F32
        data = gguf.quants.quantize(tensor.numpy(), form)
        exact[key] = torch.from_numpy(gguf.quants.dequantize(data, form).copy())
        writer.add_tensor(key, data, raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    options = MergeOptions(dtype=torch.float32)
    merge_checkpoint(tmp_path / "base.gguf", [source], tmp_path / "out.safetensors", options)
    for key, tensor in load_file(tmp_path / "out.safetensors").items():
        wanted = exact[key].double() + changes.get(key, torch.zeros(()))
        assert torch.allclose(tensor.double(), wanted, atol=1e-6)
    if kind == "Q8_0":
        merge_checkpoint(tmp_path / "base.gguf", [source], tmp_path / "out.gguf")
        for entry in gguf.GGUFReader(tmp_path / "out.gguf").tensors:
            wanted = exact[entry.name].double() + changes.get(entry.name, torch.zeros(()))
            data = gguf.quants.quantize(wanted.float().numpy(), entry.tensor_type)
            same = (torch.from_numpy(entry.data.copy()).flatten() == torch.from_numpy(data).flatten()).double().mean()
            assert float(same) > 0.999  # a rounding apart where float32 sums are


@pytest.mark.parametrize(
    ("output", "dtype", "reason"),
    [
        ("out.safetensors", None, "the base is a GGUF file, and so is what is merged; name the output ….gguf"),
        ("out.gguf", torch.bfloat16, "a GGUF file is written from one, in the base's own types"),
    ],
)
def test_the_outputs_name_says_what_it_is(output, dtype, reason, tmp_path: Path):
    source, _ = adapter(tmp_path)
    (tmp_path / "base.gguf").write_bytes(gguf_bytes(base("F16")))
    with pytest.raises(MergeError, match=re.escape(reason)):
        merge_checkpoint(tmp_path / "base.gguf", [source], tmp_path / output, MergeOptions(dtype=dtype))
    save_file(wan_checkpoint(blocks=1), tmp_path / "base.safetensors")
    with pytest.raises(MergeError, match="a GGUF file is written from one"):
        merge_checkpoint(tmp_path / "base.safetensors", [source], tmp_path / "out.gguf")
    assert not (tmp_path / output).exists()


def test_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    adapter(tmp_path)
    (tmp_path / "base.gguf").write_bytes(gguf_bytes(base("Q8_0")))
    words = ["merge", "--base", "base.gguf", "--adapter", "a.safetensors", "-o", "out.gguf"]
    assert main([str(tmp_path / word) if "." in word else word for word in words]) == 0
    assert "of the change in quantized weights, " in capsys.readouterr().out


GOOD = gguf_bytes({"blocks.0.ffn.0.weight": random_q8(8, 32, 0)}, {"a": "b"})
DAMAGED = {
    "no magic": b"GGML" + GOOD[4:],
    "version 1": GOOD[:4] + b"\1" + GOOD[5:],
    "many tensors": GOOD[:8] + b"\xff" * 8 + GOOD[16:],
    "many notes": GOOD[:16] + b"\xff" * 7 + GOOD[23:],
    "long name": GOOD[:24] + b"\xff" * 7 + GOOD[31:],
    "cut in the header": GOOD[:60],
    "cut in the data": GOOD[:-40],
    "empty": b"",
    "an unknown note": GOOD[:33] + b"\x63" + GOOD[34:],
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(name: str, tmp_path: Path):
    (tmp_path / "base.gguf").write_bytes(DAMAGED[name])
    adapter(tmp_path)
    with pytest.raises(FileError, match=r"^base\.gguf: ") as caught:
        inspect_file(tmp_path / "a.safetensors", tmp_path / "base.gguf")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("at", range(0, len(GOOD), 7))
def test_a_changed_byte_is_an_error_or_nothing(at: int, tmp_path: Path):
    adapter(tmp_path)
    for value in (0, 1, 0x7F, 0xFF):
        (tmp_path / "base.gguf").write_bytes(GOOD[:at] + bytes([value]) + GOOD[at + 1 :])
        try:
            inspect_file(tmp_path / "a.safetensors", tmp_path / "base.gguf")
        except LycoError as error:
            assert "\n" not in str(error)
