"""Adapters into models of every format that ComfyUI stores: loaded by its own loader, and sampled."""

import re

import pytest
import torch
from lyco_testing.gguf_files import gguf_bytes, stored
from lyco_testing.quantized_files import adapter_for
from lyco_testing.quantized_models import FORMATS, QUANTIZED, THREE, base_file, load, predict, reference, why_not
from lyco_testing.tiny_wan import wan_adapter, wan_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lyco_core.merging import MergeOptions, Source, merge_checkpoint

SIZE = 0.2
"""Of the change, beside a weight's numbers."""
COST = {"fp8": 0.21, "mxfp8": 0.21, "nvfp4": 0.6, "int8": 0.13, "asym": 0.5, "convrot_w4a4": 1.2}
"""Format's beginning -> most that rounding a change of this size may cost, beside the change: measured, and a fifth."""


@pytest.fixture(params=THREE)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=QUANTIZED)
def form(request: pytest.FixtureRequest, pack) -> str:
    if reason := why_not(request.param):
        pytest.skip(reason)
    return request.param


class Case:
    """A model with an adapter for all of its blocks, and what it should predict."""

    def __init__(self, folder, family: str, form: str) -> None:
        self.family = family
        self.base, numbers = base_file(folder, family, form)
        self.adapter = folder / "a.safetensors"
        tensors, self.changes = adapter_for(family, SIZE)
        save_file(tensors, self.adapter)
        self.before = predict(family, reference(family, numbers))
        self.exact = predict(family, reference(family, numbers, self.changes))
        self.model = load(family, self.base)
        self.most = next(cost for name, cost in COST.items() if form.startswith(name))

    def error(self, found: torch.Tensor, wanted: torch.Tensor | None = None) -> float:
        """Beside the change that the adapter makes."""
        wanted = self.exact if wanted is None else wanted
        return float((found - wanted).double().norm() / (self.exact - self.before).double().norm())


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def told(report: str) -> float:
    found = re.search(r"of the change in quantized weights, [\d.]+ % \(error ([\d.e-]+)\) is stored; worst in ", report)
    assert found is not None
    return float(found[1])


def test_files(family, form, tmp_path, pack):
    case = Case(tmp_path, family, form)
    noise = case.error(predict(family, case.model), case.before)
    options = MergeOptions(architecture=family)
    made = merge_checkpoint(case.base, [Source(case.adapter)], tmp_path / "out.safetensors", options)
    found = predict(family, load(family, tmp_path / "out.safetensors"))
    assert case.error(found) < min(case.most, 1.7 * told(made.survival[0]) + 1.5 * noise)
    with safe_open(case.base, "pt") as old, safe_open(tmp_path / "out.safetensors", "pt") as new:
        assert old.keys() == new.keys()
        assert (old.metadata() or {}).items() <= new.metadata().items()
        for key in old.keys():  # noqa: SIM118
            module, _, name = key.rpartition(".")
            if module not in case.changes or name in ("bias", "comfy_quant", "pre_quant_scale"):
                assert bytes_of(new.get_tensor(key)) == bytes_of(old.get_tensor(key)), key
    options = MergeOptions(architecture=family, dtype=torch.float32)
    merge_checkpoint(case.base, [Source(case.adapter)], tmp_path / "plain.safetensors", options)
    if form != "fp8_raw":  # whose file says that it is loaded as float8
        assert case.error(predict(family, load(family, tmp_path / "plain.safetensors"))) < 1e-5


def test_models(form, tmp_path, loras, host):
    """In inference mode, as nodes run: sampled, saved and loaded again."""
    import comfy.sd

    family = "wan"
    case = Case(tmp_path, family, form)
    before = predict(family, case.model)
    noise = case.error(before, case.before)
    with torch.inference_mode():
        merged = host.merge_onto(case.model, "a.safetensors", 1.0)
    found = predict(family, merged.model)
    assert case.error(found) < min(case.most, 1.7 * told(merged.report) + 1.5 * noise)
    assert torch.equal(predict(family, case.model), before)
    with torch.inference_mode():
        comfy.sd.save_checkpoint(str(tmp_path / "saved.safetensors"), merged.model)
    saved = {
        key.removeprefix("model.diffusion_model."): t for key, t in load_file(tmp_path / "saved.safetensors").items()
    }
    with safe_open(case.base, "pt") as file:
        save_file(
            saved, tmp_path / "again.safetensors", {k: v for k, v in (file.metadata() or {}).items() if k[0] != "_"}
        )
    assert case.error(predict(family, load(family, tmp_path / "again.safetensors")), found) < 1e-5


def test_gguf_files_of_another_pack(tmp_path, loras, host, monkeypatch):
    """ComfyUI-GGUF registers a folder of its own; what is merged goes where its loader looks."""
    import folder_paths

    (tmp_path / "models").mkdir()
    weights = {key: stored(tensor, "BF16") for key, tensor in wan_checkpoint(blocks=2).items()}
    (tmp_path / "models" / "base.gguf").write_bytes(gguf_bytes(weights))
    save_file(wan_adapter(), loras / "a.safetensors")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "unet_gguf", ([str(tmp_path / "models")], {".gguf"}))
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path / "output"))
    assert "unet_gguf/base.gguf" in host.checkpoint_names()
    for dtype, name in (("as it is", "m.gguf"), ("bfloat16", "m.safetensors")):
        asked = {"dtype": dtype, "quantize": "as it is", "rounding_seed": -1, "gpu": False, "partial": False}
        options = host.merge_options(host.selection("", "", ""), **asked)
        made, report = host.merge_files("unet_gguf/base.gguf", [("a.safetensors", 1.0)], options, "m", overwrite=False)
        assert made == name
        assert f"{name} (output/diffusion_models): 20 of " in report
        assert (tmp_path / "output" / "diffusion_models" / name).is_file()


def test_every_format_of_this_comfyui_is_here(pack):
    from comfy.quant_ops import QUANT_ALGOS

    assert set(QUANT_ALGOS) - {"float8_e5m2"} <= {form.algorithm for form in FORMATS.values()}
