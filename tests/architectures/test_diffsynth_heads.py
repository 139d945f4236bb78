"""DiffSynth's fused attention of MiniMax-H3 goes head by head, as its first files have it: the rows change places."""

import pytest
import torch
from lyco_testing.tables import lokr, lora, random

from lyco_core.architectures import identify
from lyco_core.architectures.interleaved import stacked
from lyco_core.conversion import ConvertOptions, convert_set
from lyco_core.errors import AdapterError
from lyco_core.formats import emit, parse

HEADS, HEAD, WIDTH = 56, 128, 5376
ROWS = 3 * HEADS * HEAD
QKV = ("blocks.49.attn.qkv_proj", "token_refiner.blocks.1.attn.qkv_proj")


def file(prefix: str = "", infix: str = ".default") -> dict[str, torch.Tensor]:
    """A LoRA of rank 1 whose numbers tell every row of every weight from all others."""
    modules = dict.fromkeys(QKV, (ROWS, WIDTH)) | {"blocks.49.attn.out_proj": (WIDTH, 7168)}
    made: dict[str, torch.Tensor] = {}
    for number, (name, (rows, columns)) in enumerate(modules.items(), 1):
        made[f"{prefix}{name}.lora_A{infix}.weight"] = torch.ones(1, columns)
        made[f"{prefix}{name}.lora_B{infix}.weight"] = (torch.arange(rows) + number * ROWS)[:, None].float()
    return made


def rows_of(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Module path -> the first column of its change."""
    return {path: adapter.tensors["up"][:, 0] for path, adapter in identify(parse(tensors, {})).adapters.items()}


def test_rows_are_stacked():
    found = rows_of(file())
    for number, name in enumerate(QKV, 1):
        rows = torch.arange(ROWS).reshape(HEADS, 3, HEAD) + number * ROWS
        q, k, v = (rows[:, part].flatten() for part in range(3))
        assert torch.equal(found[name], torch.cat([q, k, v]).float())
    assert torch.equal(found["blocks.49.attn.out_proj"], torch.arange(WIDTH) + 3.0 * ROWS)


@pytest.mark.parametrize(("prefix", "infix"), [("", ""), ("diffusion_model.", ""), ("diffusion_model.", ".default")])
def test_other_trainers_files_stay(prefix: str, infix: str):
    """As of ai-toolkit, Musubi, and the model's own code, which have all queries first."""
    for number, name in enumerate(QKV, 1):
        assert torch.equal(rows_of(file(prefix, infix))[name], torch.arange(ROWS) + float(number * ROWS))


@pytest.mark.parametrize("to", ["comfyui", "diffusers", "musubi"])
def test_they_are_stacked_once(to):
    """What is written is no file of DiffSynth's any more."""
    made = emit(convert_set(identify(parse(file(), {}), layout=to), ConvertOptions(to)).adapter_set)[0]
    once = identify(parse(file(), {}))
    again = identify(identify(once))
    name = QKV[0]
    assert torch.equal(again.adapters[name].tensors["up"], once.adapters[name].tensors["up"])
    if to != "diffusers":
        assert rows_of(made).keys() == rows_of(file()).keys()
        for key, rows in rows_of(file()).items():
            assert torch.equal(rows_of(made)[key], rows)


def test_diffusers_reads_them_so():
    convert = getattr(
        pytest.importorskip("diffusers.loaders.lora_conversion_utils"),
        "_convert_non_diffusers_minimax_h3_lora_to_diffusers",
        None,
    )
    if convert is None:
        pytest.skip("this diffusers has no MiniMax-H3")
    theirs = convert(file())
    ours = emit(convert_set(identify(parse(file(), {}), layout="diffusers"), ConvertOptions("diffusers")).adapter_set)[
        0
    ]
    found = {key: tensor for key, tensor in ours.items() if key.endswith(".lora_B.weight")}
    assert len(found) == 7
    for key, tensor in found.items():
        assert torch.equal(tensor, theirs[key]), key


def test_what_has_no_such_form_is_refused():
    (lokr_,) = parse(lokr(f"diffusion_model.{QKV[0]}", ROWS, WIDTH, random), {}).adapters.values()
    (lora_,) = parse(lora(f"diffusion_model.{QKV[0]}", ROWS - HEAD, WIDTH, random), {}).adapters.values()
    for adapter in (lokr_, lora_):
        with pytest.raises(AdapterError, match=rf"is {adapter.title} of {adapter.shape[0]} rows, in a file as DiffS"):
            stacked(adapter, HEAD)
