"""What has no place, left out on purpose: by every spelling that a message prints, or by `--on-partial-match`."""

import json
import re
from pathlib import Path

import pytest
import torch
from lyco_testing.files import unmapped
from lyco_testing.tables import musubi_file, random
from safetensors import safe_open
from safetensors.torch import save_file

from lyco_core.cli import main
from lyco_core.errors import LycoError
from lyco_core.merging import MergeOptions, Source, merge_checkpoint
from lyco_core.selection import Selection

WIDTH = 64
NAMES = [f"{a}.{x}" for a in ("self_attn", "cross_attn") for x in "qkvo"]
SPELLINGS = {
    "file": ("lora_unet_blocks_{n}_self_attn_q", "lora_unet_blocks_{n}_.*"),
    "path": ("blocks.{n}.self_attn.q", r"blocks\.{n}\..*"),
    "ComfyUI": ("diffusion_model.blocks.{n}.self_attn.q.weight", r"diffusion_model\.blocks\.{n}\..*"),
    "ComfyUI, the module": ("diffusion_model.blocks.{n}.self_attn.q", r"diffusion_model\.blocks\.{n}\..*q"),
}
PREFIXES = ("model.diffusion_model.", "")


def written(folder: Path, modules: list[str], prefix: str = PREFIXES[0], **foreign: torch.Tensor) -> tuple[Path, Path]:
    """A Wan of two blocks, and an adapter with `modules` and tensors of nothing known."""
    torch.manual_seed(0)
    keys = [f"{prefix}blocks.{n}.{name}.weight" for n in range(2) for name in NAMES]
    tensors = {key: random(WIDTH, WIDTH) for key in keys}
    save_file(tensors, folder / "base.safetensors")
    save_file(musubi_file(dict.fromkeys(modules, (WIDTH, WIDTH)), "lokr", random) | foreign, folder / "a.safetensors")
    return folder / "base.safetensors", folder / "a.safetensors"


def changed(base: Path, out: Path, prefix: str = PREFIXES[0]) -> set[str]:
    before, after = unmapped(base), unmapped(out)
    assert before.keys() == after.keys()
    return {k.removeprefix(prefix).removesuffix(".weight") for k in before if not torch.equal(before[k], after[k])}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "pattern"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_has_no_place_is_excluded_by_any_of_its_names(spelling: str, exact: bool, prefix: str, tmp_path: Path):
    base, adapter = written(tmp_path, ["blocks.0.self_attn.q", "blocks.9.self_attn.q"], prefix)
    words = ["merge", "--base", str(base), "--adapter", str(adapter), "-o", str(tmp_path / "out.safetensors")]
    assert main(words) == 1
    assert main([*words, "--exclude", SPELLINGS[spelling][not exact].replace("{n}", "9")]) == 0
    assert changed(base, tmp_path / "out.safetensors", prefix) == {"blocks.0.self_attn.q"}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_has_a_place_is_chosen_by_any_of_its_names(spelling: str, prefix: str, tmp_path: Path):
    base, adapter = written(tmp_path, [f"blocks.{n}.self_attn.{x}" for n in range(2) for x in "qk"], prefix)
    exact, pattern = (text.replace("{n}", "1") for text in SPELLINGS[spelling])
    one = "blocks.1.self_attn.q"
    selections = {
        "all": Selection(),
        "include": Selection.of(include=[exact]),
        "exclude": Selection.of(exclude=[pattern]),
        "half": Selection.of(block_strengths=[(exact, 0.5)]),
    }
    made = {}
    for name, selection in selections.items():
        out = tmp_path / f"{name}.safetensors"
        merge_checkpoint(base, [Source(adapter)], out, MergeOptions(selection))
        made[name] = unmapped(out)[f"{prefix}{one}.weight"]
    before = unmapped(base)[f"{prefix}{one}.weight"]
    assert changed(base, tmp_path / "include.safetensors", prefix) == {one}
    assert one not in changed(base, tmp_path / "exclude.safetensors", prefix)
    assert torch.allclose(made["half"] - before, (made["all"] - before) / 2, atol=1e-5)


def test_what_does_not_fit_is_excluded_by_any_of_its_names(tmp_path: Path):
    base, adapter = written(tmp_path, ["blocks.0.self_attn.k"])
    wide = musubi_file({"blocks.0.self_attn.q": (2 * WIDTH, WIDTH)}, "lora", random)
    save_file(unmapped(adapter) | wide, adapter)
    for number, texts in enumerate(SPELLINGS.values()):
        out = tmp_path / f"{number}.safetensors"
        with pytest.raises(LycoError, match="1 of 2 modules have another shape"):
            merge_checkpoint(base, [Source(adapter)], out)
        options = MergeOptions(Selection.of(exclude=[texts[0].replace("{n}", "0")]))
        merge_checkpoint(base, [Source(adapter)], out, options)
        assert changed(base, out) == {"blocks.0.self_attn.k"}


def test_a_key_of_no_adapter_is_excluded_by_its_name(tmp_path: Path):
    foreign = {"lora_unet_blocks_0_self_attn_v.some_new_thing": random(3)}
    base, adapter = written(tmp_path, ["blocks.0.self_attn.q"], **foreign)
    for number, text in enumerate([*foreign, "lora_unet_blocks_0_self_attn_v"]):
        out = tmp_path / f"{number}.safetensors"
        with pytest.raises(LycoError, match="1 keys belong to no adapter"):
            merge_checkpoint(base, [Source(adapter)], out)
        merge_checkpoint(base, [Source(adapter)], out, MergeOptions(Selection.of(exclude=[text])))
        assert changed(base, out) == {"blocks.0.self_attn.q"}


@pytest.mark.parametrize("way", ["exclude", "partial"])
def test_the_error_ends_with_both_ways_out(way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    modules = [f"blocks.{n}.self_attn.{x}" for n in (0, 1, 8, 9, 10) for x in "qk"]
    base, adapter = written(tmp_path, [*modules, "blocks.1.self_attn.extra"])
    out = tmp_path / "out.safetensors"
    words = ["merge", "--base", str(base), "--adapter", str(adapter), "-o", str(out)]
    assert main(words) == 1
    message = capsys.readouterr().err
    found = re.fullmatch(
        r"lyco: error: a\.safetensors: 7 of 11 modules are not in the model \(.*\); merge the rest with "
        r'(--on-partial-match warn), or leave these out with --exclude "(.*)"\n',
        message,
    )
    assert found is not None, message
    assert found[2] == r"blocks\.(?:8|9|10)\..*|blocks_.*"
    assert not out.exists()
    assert main([*words, *(found[1].split() if way == "partial" else ["--exclude", found[2]])]) == 0
    assert changed(base, out) == {m for m in modules if m.split(".")[1] in "01"}
    told = capsys.readouterr().err
    with safe_open(out, "pt") as file:
        record = json.loads(file.metadata()["lyco_merge"])[0]["adapters"][0]
    if way == "partial":
        assert "a.safetensors: left out: 7 of 11 modules are not in the model" in told
        assert record["left_out"].startswith("7 of 11 modules are not in the model")
    else:
        assert told == ""
        assert "left_out" not in record


def test_partial_is_not_nothing(tmp_path: Path):
    base, adapter = written(tmp_path, ["blocks.8.self_attn.q"])
    for partial in (False, True):
        with pytest.raises(LycoError, match=r"1 of 1 modules are not in the model \([^;]*\)$"):
            merge_checkpoint(base, [Source(adapter)], tmp_path / "out.safetensors", MergeOptions(partial=partial))
    assert not (tmp_path / "out.safetensors").exists()


def test_what_nothing_can_be_merged_into_may_be_excluded(tmp_path: Path):
    base, adapter = written(tmp_path, ["blocks.0.self_attn.q", "blocks.1.self_attn.q"])
    key = f"{PREFIXES[0]}blocks.1.self_attn.q.weight"
    save_file(unmapped(base) | {key: torch.zeros(WIDTH, WIDTH, dtype=torch.int8)}, base)
    out = tmp_path / "out.safetensors"
    with pytest.raises(LycoError, match=rf"merged into \({re.escape(key)}: INT8 that no comfy_quant describes\)"):
        merge_checkpoint(base, [Source(adapter)], out)
    merge_checkpoint(base, [Source(adapter)], out, MergeOptions(Selection.of(exclude=[key])))
    assert changed(base, out) == {"blocks.0.self_attn.q"}


def test_on_a_base_with_diffusers_names(tmp_path: Path):
    """Z-Image's fused qkv is three weights there; ComfyUI's name of it is all of them, and each has its own."""
    torch.manual_seed(0)
    save_file(
        {f"layers.{n}.attention.to_{x}.weight": random(WIDTH, WIDTH) for n in range(2) for x in "qkv"}
        | {f"layers.{n}.attention.to_out.0.weight": random(WIDTH, WIDTH) for n in range(2)}
        | {
            f"layers.{n}.feed_forward.w{w}.weight": random(*s)
            for n in range(2)
            for w, s in ((1, (170, WIDTH)), (2, (WIDTH, 170)), (3, (170, WIDTH)))
        },
        tmp_path / "base.safetensors",
    )
    modules = {f"layers.{n}.attention.qkv": (3 * WIDTH, WIDTH) for n in range(2)}
    save_file(musubi_file(modules, "lora", random), tmp_path / "a.safetensors")
    wholes = (
        "lora_unet_layers_0_attention_qkv",
        "layers.0.attention.qkv",
        "diffusion_model.layers.0.attention.qkv.weight",
    )
    for number, (text, expected) in enumerate([*((w, set("qkv")) for w in wholes), ("layers.0.attention.to_k", {"k"})]):
        out = tmp_path / f"{number}.safetensors"
        options = MergeOptions(Selection.of(include=[text]), architecture="z_image")
        merge_checkpoint(tmp_path / "base.safetensors", [Source(tmp_path / "a.safetensors")], out, options)
        assert changed(tmp_path / "base.safetensors", out) == {f"layers.0.attention.to_{x}" for x in expected}
