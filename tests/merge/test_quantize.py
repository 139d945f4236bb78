"""A base in floating point, quantized in the pass that merges: which of it, by how much, and nothing else."""

import json
import re
from pathlib import Path

import pytest
import torch
from lyco_testing.stored_forms import SAID, random_codes
from lyco_testing.tables import dotted_file, random, weights
from lyco_testing.tiny_wan import wan_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lyco_core.cli import main
from lyco_core.errors import LycoError, MergeError
from lyco_core.io import Checkpoint
from lyco_core.merging import MergeOptions, Source, merge_checkpoint
from lyco_core.merging.linears import choose
from lyco_core.model import Model, model_of
from lyco_core.quantized import NEW_FORMS, Quantization, reading
from lyco_core.quantized.reading import read_weight

WIDTH, FEED = 256, 496
"""The feed-forward's second Linear has columns that no rotation divides."""
LINEARS = {
    **{f"blocks.0.{part}.{name}": (WIDTH, WIDTH) for part in ("self_attn", "cross_attn") for name in "qkvo"},
    "blocks.0.ffn.0": (FEED, WIDTH),
    "blocks.0.ffn.2": (WIDTH, FEED),
}
ROUGHNESS = {"int8_convrot": 0.01, "fp8_scaled": 0.03, "mxfp8": 0.04, "nvfp4": 0.11, "w4a8": 0.09}
"""Most that rounding moves random weights by."""
KITCHEN = ("mxfp8", "nvfp4", "w4a8")

PUBLISHED = {
    "qwen_image": 839,
    "flux1_kontext": 304,
    "flux2_dev": 128,
    "krea2": 224,
    "ltx_2_3": 1496,
    "ltx_video_2b": 280,
    "ideogram4": 204,
    "anima": 426,
    "cosmos_predict2_14b": 554,
    "minimax_h3": 250,
}
"""Full-size model -> how many Linears ComfyUI's own files of it have quantized, or those of its converter."""


@pytest.fixture(params=NEW_FORMS)
def form(request: pytest.FixtureRequest) -> str:
    if request.param in KITCHEN:
        pytest.importorskip("comfy_kitchen")
    return request.param


def base() -> dict[str, Tensor]:
    """A whole checkpoint: what is not the diffusion model's is no one's business."""
    model = {f"model.diffusion_model.{key}": t.bfloat16() for key, t in wan_checkpoint(WIDTH, FEED, 1).items()}
    generator = torch.Generator().manual_seed(9)
    return model | {
        "first_stage_model.decoder.blocks.0.attn.weight": torch.randn(512, 512, generator=generator).half(),
        "text_encoders.t5.layers.0.q.weight": torch.randn(256, 256, generator=generator).bfloat16(),
    }


def adapter(gain: float = 0.004) -> dict[str, Tensor]:
    torch.manual_seed(4)
    tensors = dotted_file(LINEARS, "lokr", random)
    return {key: t * gain if key.endswith("w1") else t for key, t in tensors.items()}


def merged(tmp_path: Path, options: MergeOptions, tensors: dict[str, Tensor] | None = None, name: str = "out"):
    save_file(tensors or base(), tmp_path / "base.safetensors")
    save_file(adapter(), tmp_path / "a.safetensors")
    output = tmp_path / f"{name}.safetensors"
    made = merge_checkpoint(tmp_path / "base.safetensors", [Source(tmp_path / "a.safetensors")], output, options)
    return load_file(output), made


def numbers(path: Path) -> dict[str, Tensor]:
    """Weight key -> what a file's quantized weight stands for, read as any base is."""
    with Checkpoint(path) as checkpoint:
        _, quantization = model_of(checkpoint)
        assert not quantization.refused
        return {key: read_weight(form, checkpoint.holder) for key, form in quantization.forms.items()}


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_linears_are_those_of_comfyuis_own_files(model):
    shapes = weights(model)
    chosen = choose("fp8_scaled", Model.of(shapes), Quantization({}, {}, {}, {}, ()))
    assert len(chosen.forms) == PUBLISHED[model]
    assert re.fullmatch(
        rf"fp8_scaled: {PUBLISHED[model]} Linears, as in ComfyUI's own files of .*; \d+ others stay as they are",
        "\n".join(chosen.lines),
    )


@pytest.mark.parametrize("band_bytes", [2**17, 2**23])
def test_each_linear_of_the_blocks_is_rounded_once(form, band_bytes, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(reading, "FILE_BAND_BYTES", band_bytes)
    exact, _ = merged(tmp_path, MergeOptions(dtype=torch.float32), name="exact")
    found, made = merged(tmp_path, MergeOptions(quantize=form))
    unfit = {f"{path}: {FEED} columns" for path in ("blocks.0.ffn.2",)} if form in ("int8_convrot", "w4a8") else set()
    quantized = {path for path in LINEARS if not (unfit and path == "blocks.0.ffn.2")}
    quantized -= {"blocks.0.ffn.0", "blocks.0.ffn.2"} if form == "mxfp8" else set()  # neither side is one of 32
    stored = numbers(tmp_path / "out.safetensors")
    assert {key.removeprefix("model.diffusion_model.") for key in stored} == {f"{path}.weight" for path in quantized}
    error = size = kept = change = 0.0
    for key, values in stored.items():
        wrong, before = values - exact[key], base()[key].float()
        assert float(wrong.norm() / exact[key].norm()) < ROUGHNESS[form], key
        marker = json.loads(bytes(found[key.replace(".weight", ".comfy_quant")].tolist()))
        assert marker == NEW_FORMS[form].said
        wanted = exact[key] - before
        error, size = error + float(wrong.square().sum()), size + float(exact[key].square().sum())
        change, kept = change + float(wanted.square().sum()), kept + float((wrong * wanted).sum())
    for key, tensor in base().items():
        if key not in stored and key.removeprefix("model.diffusion_model.").removesuffix(".weight") not in LINEARS:
            assert torch.equal(found[key].view(torch.uint8), tensor.view(torch.uint8)), key
    assert made.quantized[0].startswith(f"{form}: {len(quantized)} Linears of the repeated blocks; which ones ")
    assert [line for line in made.quantized[1:] if "blocks.0.ffn.2" in line] == list(made.quantized[1:])
    assert len(made.quantized) == (1 if len(quantized) == len(LINEARS) else 2)
    told = re.match(
        r"rounding moves these weights by ([\d.]+) % of their size, .* of the change, ([\d.]+) %", made.survival[0]
    )
    assert told is not None
    assert float(told[1]) == pytest.approx(100 * (error / size) ** 0.5, rel=0.15)  # one band in eight is measured
    assert float(told[2]) == pytest.approx(100 * (1 + kept / change), abs=2)
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert json.loads(file.metadata()["lyco_merge"])[0]["quantized"] == form


def test_bands_do_not_show(form, tmp_path: Path, monkeypatch):
    one, _ = merged(tmp_path, MergeOptions(quantize=form), name="one")
    monkeypatch.setattr(reading, "FILE_BAND_BYTES", 2**17)
    two, _ = merged(tmp_path, MergeOptions(quantize=form), name="two")
    assert {k: t.view(torch.uint8).tolist() for k, t in one.items() if t.dim()} == {
        k: t.view(torch.uint8).tolist() for k, t in two.items() if t.dim()
    }


def test_the_rest_takes_the_dtype(tmp_path: Path):
    tensors = {key: t.float() for key, t in base().items()}
    found, _ = merged(tmp_path, MergeOptions(quantize="fp8_scaled", dtype=torch.bfloat16), tensors)
    assert found["model.diffusion_model.blocks.0.ffn.0.weight"].dtype == torch.float8_e4m3fn
    assert found["model.diffusion_model.head.head.weight"].dtype == torch.bfloat16
    assert found["text_encoders.t5.layers.0.q.weight"].dtype == torch.float32


def test_stochastic_rounding_is_of_the_seed(tmp_path: Path):
    made = [
        merged(tmp_path, MergeOptions(quantize="int8_convrot", seed=n), name=f"{n}{i}")[0]
        for n, i in ((1, 0), (1, 1), (2, 0))
    ]
    key = "model.diffusion_model.blocks.0.self_attn.q.weight"
    assert torch.equal(made[0][key], made[1][key])
    assert not torch.equal(made[0][key], made[2][key])
    pytest.importorskip("comfy_kitchen")
    with pytest.raises(MergeError, match="is stored as NVFP4, which is rounded to the nearest only"):
        merged(tmp_path, MergeOptions(quantize="nvfp4", seed=1), name="x")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_no_scale_holds(form, number, tmp_path: Path):
    tensors = base()
    tensors["model.diffusion_model.blocks.0.cross_attn.k.weight"][7, 9] = number
    with pytest.raises(LycoError, match=r"blocks.0.cross_attn.k.*NaN, infinite or too large for its scale"):
        merged(tmp_path, MergeOptions(quantize=form), tensors)
    assert not (tmp_path / "out.safetensors").exists()


def test_bases_that_are_refused(tmp_path: Path):
    def refused(tensors: dict[str, Tensor], form: str = "int8_convrot") -> str:
        with pytest.raises(LycoError) as caught:
            merged(tmp_path, MergeOptions(quantize=form), tensors)
        return str(caught.value)

    tensors = base()
    key = "model.diffusion_model.blocks.0.self_attn.q"
    parts = random_codes("int8_row", WIDTH, WIDTH, 0)
    said = torch.tensor(list(json.dumps(SAID["int8_row"]).encode()), dtype=torch.uint8)
    told = refused(tensors | {f"{key}.{role}": t for role, t in parts.items()} | {f"{key}.comfy_quant": said})
    assert told.endswith(
        f"base.safetensors: {key}.weight: is stored as INT8 already; to quantize, expected a base in floating point; "
        "leave quantize out"
    )
    told = refused({f"model.diffusion_model.{key}": t for key, t in wan_checkpoint(128, 320, 1).items()})
    assert re.search(
        r"nothing of it can be stored as int8_convrot \(blocks\.0\.\S+: (128|320) columns are no multiple of 256\)",
        told,
    )
    with pytest.raises(MergeError, match="the form is int4, expected one of int8_convrot, fp8_scaled"):
        MergeOptions(quantize="int4")


def test_a_family_that_comfyui_tells_by_a_packed_width_is_refused():
    model = Model.of(weights("sdxl"))
    assert len(choose("int8_convrot", model, Quantization({}, {}, {}, {}, ())).forms) > 500
    with pytest.raises(MergeError, match="is SDXL, which ComfyUI does not know again in nvfp4"):
        choose("nvfp4", model, Quantization({}, {}, {}, {}, ()))


def test_names_that_are_not_comfyuis_are_refused():
    shapes = {
        key.replace("double_blocks", "transformer_blocks"): shape for key, shape in weights("flux1_kontext").items()
    }
    with pytest.raises(MergeError, match="to quantize, expected a model of a known family by ComfyUI's names"):
        choose(
            "int8_convrot",
            Model.of({k: s for k, s in shapes.items() if "single" not in k}),
            Quantization({}, {}, {}, {}, ()),
        )


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_file(base(), tmp_path / "base.safetensors")
    save_file(adapter(), tmp_path / "a.safetensors")
    paths = [str(tmp_path / name) for name in ("base.safetensors", "a.safetensors", "out.safetensors")]
    options = ["merge", "--base", paths[0], "--adapter", paths[1], "-o", paths[2], "--quantize", "int8_convrot"]
    assert main(options) == 0
    told = capsys.readouterr().out
    assert "int8_convrot: 9 Linears of the repeated blocks; " in told
    assert (
        f"left as they are, since int8_convrot does not fit them: blocks.0.ffn.2 (blocks.0.ffn.2: {FEED} columns "
        in told
    )
    again = tmp_path / "again.safetensors"
    assert main(["merge", "--base", paths[2], "--adapter", paths[1], "-o", str(again), "--quantize", "fp8_scaled"]) == 1
    assert "already; to quantize, expected a base in floating point; leave --quantize out" in capsys.readouterr().err


def test_the_command_knows_all_forms(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["merge", "--help"])
    assert f"{{{','.join(NEW_FORMS)}}}" in capsys.readouterr().out.replace("\n", "").replace(" ", "")
