"""The files that commands take and make: patterns, endings, folders, what macOS leaves, and damage of every kind."""

import base64
import json
import os
from pathlib import Path

import pytest
import torch
from lyco_testing.tables import musubi_file, random
from lyco_testing.terminals import on_terminal
from safetensors.torch import load_file, save_file

from lyco_core.cli import main
from lyco_core.io import Checkpoint, read_header

APPLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(60)
"""How AppleDouble begins."""


def adapter(path: Path, block: int = 0) -> Path:
    torch.manual_seed(block)
    save_file(musubi_file({f"blocks.{block}.ffn.0": (128, 64)}, tensor=random), path)
    return path


def base(path: Path, blocks: range = range(3)) -> Path:
    save_file({f"blocks.{n}.ffn.0.weight": torch.zeros(128, 64) for n in blocks}, path)
    return path


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a, b and C, and what macOS leaves beside them."""
    monkeypatch.chdir(tmp_path)
    for block, name in enumerate(("a.safetensors", "b.safetensors", "C.SAFETENSORS")):
        adapter(tmp_path / name, block)
        (tmp_path / f"._{name}").write_bytes(APPLE)
    return tmp_path


def made(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_folder_without_what_macos_leaves_in_it(three: Path):
    assert main(["convert", str(three), "-o", str(three / "out"), "--to", "comfyui"]) == 0
    assert made(three / "out") == {"a.safetensors", "b.safetensors", "C.SAFETENSORS"}


def test_what_macos_leaves_is_named_for_what_it_is(three: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", "._a.safetensors"]) == 1
    assert "._a.safetensors: is what macOS keeps beside a file on other disks" in capsys.readouterr().err


def test_a_checkpoint_in_a_folder_of_a_mac(tmp_path: Path):
    for name in ("Model.SAFETENSORS", "M-00001-of-00002.SafeTensors"):
        folder = tmp_path / name
        folder.mkdir()
        base(folder / name, range(1))
        (folder / f"._{name}").write_bytes(APPLE)
        if "of" in name:
            base(folder / "M-00002-of-00002.SafeTensors", range(1, 2))
        with Checkpoint(folder / name if "of" in name else folder) as checkpoint:
            assert len(checkpoint.tensors) == (2 if "of" in name else 1)
            assert checkpoint.name == ("M.SafeTensors" if "of" in name else name)


@pytest.mark.parametrize("output", ["new.SAFETENSORS", "new.Safetensors.Index.JSON"])
def test_a_merge_into_a_name_in_capitals(output: str, three: Path):
    base(three / "base.safetensors")
    command = ["merge", "--base", "base.safetensors", "--adapter", "a.safetensors", "-o", output]
    assert main(command) == 0
    with Checkpoint(three / output) as checkpoint:
        assert len(checkpoint.tensors) == 3


@pytest.mark.parametrize(
    "command",
    [
        ["delta", "a.safetensors"],
        ["resize", "a.safetensors", "--rank", "1"],
        ["combine", "a.safetensors", "b.safetensors"],
        ["merge", "--base", "base.safetensors", "--adapter", "a.safetensors"],
        ["extract", "--base", "base.safetensors", "--tuned", "tuned.safetensors", "--rank", "2"],
    ],
)
def test_what_is_written_has_the_ending_by_which_comfyui_lists_it(command: list[str], three: Path):
    save_file({"blocks.0.ffn.0.weight": torch.ones(128, 64)}, three / "tuned.safetensors")
    base(three / "base.safetensors", range(1))
    for output in ("new", "other.sft"):
        assert main([*command, "-o", output]) == 0
    assert {"new.safetensors", "other.sft"} <= made(three)


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "a.safetensors", "--model", "b.safetensors"],
        ["delta", "a.safetensors", "-o", "new", "--model", "b.safetensors"],
        ["merge", "--base", "b.safetensors", "--adapter", "a.safetensors", "-o", "new"],
        ["extract", "--base", "base.safetensors", "--tuned", "b.safetensors", "-o", "new", "--rank", "1"],
    ],
)
def test_an_adapter_in_the_place_of_a_model(command: list[str], three: Path, capsys: pytest.CaptureFixture[str]):
    base(three / "base.safetensors")
    assert main(command) == 1
    expected = "b.safetensors: is an adapter, expected a model's weights; name the model's own file"
    assert capsys.readouterr().err == f"lyco: error: {expected}\n"


def test_a_model_in_the_place_of_an_adapter(three: Path, capsys: pytest.CaptureFixture[str]):
    base(three / "base.safetensors")
    assert main(["resize", "base.safetensors", "-o", "new", "--rank", "1"]) == 1
    assert capsys.readouterr().err.startswith("lyco: error: base.safetensors: holds no adapter; found ")


def test_patterns_that_the_shell_left(three: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", "[ab]*.safetensors", "--json"]) == 0  # a pattern of Windows takes C.SAFETENSORS too
    assert [found["file"] for found in json.loads(capsys.readouterr().out)] == ["a.safetensors", "b.safetensors"]
    assert main(["convert", "[ab].safetensors", "-o", "out", "--to", "comfyui"]) == 0
    assert made(three / "out") == {"a.safetensors", "b.safetensors"}
    base(three / "base.sft")
    assert main(["merge", "--base", "bas?.sft", "--adapter", "[ab].safetensors@0.5", "-o", "merged.safetensors"]) == 0
    merged = load_file(three / "merged.safetensors")
    for block, name in enumerate(("a", "b")):
        factors = load_file(three / f"{name}.safetensors")
        w1, a, b = (factors[f"lora_unet_blocks_{block}_ffn_0.lokr_{x}"] for x in ("w1", "w2_a", "w2_b"))
        expected = torch.kron(w1, a @ b) / 4  # alpha 1, rank 2, half of it
        assert torch.allclose(merged[f"blocks.{block}.ffn.0.weight"], expected, atol=1e-5)
    assert not merged["blocks.2.ffn.0.weight"].any()


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(three: Path, capsys: pytest.CaptureFixture[str]):
    adapter(three / "style [ab].safetensors")
    assert main(["inspect", "style [ab].safetensors", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == "style [ab].safetensors"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["inspect", "x*.safetensors"], "x*.safetensors: there is no such file, and as a pattern it matches none"),
        (["convert", "x?", "-o", "out", "--to", "comfyui"], "x?: there is no such file, and as a pattern"),
        (["merge", "--base", "a.safetensors", "--adapter", "x*@1", "-o", "o"], "x*: there is no such file"),
        (["delta", "[ab].*", "-o", "o"], "[ab].*: matches 2 files (a.safetensors, b.safetensors)"),
        (["resize", "[ab].*", "-o", "o", "--rank", "1"], "[ab].*: matches 2 files"),
        (["extract", "--base", "[ab].*", "--tuned", "a.safetensors", "-o", "o", "--rank", "1"], "matches 2"),
        (["inspect", "a.safetensors", "--model", "[ab].*"], "[ab].*: matches 2 files"),
    ],
)
def test_a_pattern_that_fits_nothing_or_too_much(
    command: list[str], message: str, three: Path, capsys: pytest.CaptureFixture[str]
):
    before = made(three)
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith("lyco: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert made(three) == before


def test_inspect_of_several_goes_on_after_a_bad_one(three: Path, capsys: pytest.CaptureFixture[str]):
    (three / "b.safetensors").write_bytes(b"")
    assert main(["inspect", "a.safetensors", "b.safetensors", "C.SAFETENSORS"]) == 1
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "file           architecture  algorithm  rank  size",
        "a.safetensors  Wan 2.1/2.2   LoKr       2     0.8 kB",
        "b.safetensors  is empty (0 bytes); expected a safetensors file; save or download it again",
        "C.SAFETENSORS  Wan 2.1/2.2   LoKr       2     0.8 kB",
    ]
    assert told.err == "lyco: error: 1 of 3 files cannot be read as adapters; their lines say why\n"


def test_inspect_of_a_folder(three: Path, capsys: pytest.CaptureFixture[str]):
    (three / "deep").mkdir()
    base(three / "deep" / "base.safetensors")
    assert main(["inspect", "."]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[4].split("  ")[0] == os.path.join("deep", "base.safetensors")
    assert told[4].endswith("  checkpoint        98.6 kB")
    assert main(["inspect", "deep", "--json"]) == 0
    assert [found["file"] for found in json.loads(capsys.readouterr().out)] == ["base.safetensors"]
    (three / "empty").mkdir()
    assert main(["inspect", "empty"]) == 1
    assert capsys.readouterr().err == "lyco: error: there is no .safetensors file in empty\n"


def test_inspect_for_a_model_of_another_family(three: Path, capsys: pytest.CaptureFixture[str]):
    base(three / "base.safetensors")
    other = {f"layers.{n}.attention.out.weight": torch.zeros(64, 64) for n in range(2)}
    save_file(other | {"layers.0.attention.qkv.weight": torch.zeros(192, 64)}, three / "other.safetensors")
    for files in (["a.safetensors"], ["a.safetensors", "b.safetensors"]):
        assert main(["inspect", *files, "--model", "other.safetensors"]) == 1
        told = capsys.readouterr()
        assert "is an adapter for Wan 2.1/2.2, other.safetensors is a model of Z-Image" in told.err + told.out
        assert main(["inspect", *files, "--model", "other.safetensors", "--json"]) == 1
        assert "other.safetensors is a model of Z-Image" in (told := capsys.readouterr()).err
        assert json.loads(told.out)
        assert main(["inspect", *files, "--model", "base.safetensors"]) == 0
        assert "1 of 1" in capsys.readouterr().out


def test_inspect_prints_no_picture(three: Path, capsys: pytest.CaptureFixture[str]):
    code = base64.b64encode(bytes(range(256)) * 100).decode()
    notes = {"modelspec.thumbnail": f"data:image/webp;base64,{code}", "other": code, "sha256": "0123456789abcdef" * 4}
    save_file(load_file("a.safetensors"), "noted.safetensors", notes)
    assert main(["inspect", "noted.safetensors"]) == 0
    told = capsys.readouterr().out
    assert "modelspec.thumbnail = (image/webp, 34.2 kB)" in told
    assert "other = (encoded, 34.1 kB)" in told
    assert "sha256 = " + "0123456789abcdef" * 4 in told
    assert max(map(len, told.splitlines())) < 100


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("c3", "c3.safetensors"),
        ("style-v1.2", "style-v1.2.safetensors"),
        ("d.safetensors", "d.safetensors"),
        ("deep/new/c", "deep/new/c.safetensors"),
        ("there", "there/a.safetensors"),
        ("new/", "new/a.safetensors"),
    ],
)
def test_where_one_conversion_goes(output: str, expected: str, three: Path):
    (three / "there").mkdir()
    before = made(three)
    assert main(["convert", "a.safetensors", "-o", output, "--to", "comfyui"]) == 0
    assert made(three) - before == {os.path.normpath(expected)}


@pytest.mark.parametrize("output", ["one.safetensors", "ONE.SafeTensors", "b.safetensors"])
@pytest.mark.parametrize("several", [["a.safetensors", "b.safetensors"], ["."]])
def test_several_conversions_are_no_file(
    output: str, several: list[str], three: Path, capsys: pytest.CaptureFixture[str]
):
    before = {path: (three / path).read_bytes() for path in made(three)}
    assert main(["convert", *several, "-o", output, "--to", "comfyui", "--overwrite"]) == 1
    assert f"{output}: is a file's name, and several adapters go into a folder" in capsys.readouterr().err
    assert {path: (three / path).read_bytes() for path in made(three)} == before


def test_two_files_of_one_name_do_not_replace_each_other(three: Path, capsys: pytest.CaptureFixture[str]):
    (three / "other").mkdir()
    adapter(three / "other" / "a.safetensors", 2)
    command = ["convert", "a.safetensors", "other/a.safetensors", "-o", "out", "--to", "comfyui", "--overwrite"]
    assert main(command) == 1
    assert "a.safetensors and other/a.safetensors would both become " in capsys.readouterr().err
    assert not (three / "out").exists()


NOTE = "日本語 é ł 🎨 \u202e"


@pytest.mark.parametrize("encoding", ["cp1252", "cp932"])
def test_what_a_program_reads_is_json_in_any_code_page(encoding: str, three: Path):
    save_file(load_file("a.safetensors"), "é日.safetensors", {"note": NOTE})
    failed, out, err = on_terminal(encoding, ["inspect", "é日.safetensors", "--json"])
    assert (failed, err) == (0, b"")
    found = json.loads(out.decode(encoding))
    assert found["file"] == "é日.safetensors"
    assert found["metadata"]["note"] == NOTE


@pytest.mark.parametrize("encoding", ["cp1252", "cp932"])
def test_any_code_page_gets_every_line(encoding: str, three: Path):
    """Names of files and modules are strangers' text wherever they are printed."""
    name = "é日🎨.safetensors"
    save_file(load_file("a.safetensors") | {"bundle_emb.日é🎨.clip_l": torch.ones(1, 768)}, name, {"note": NOTE})
    base(three / "base.safetensors")
    commands = [
        ["inspect", name],
        ["delta", name, "-o", f"d{name}"],
        ["convert", name, "-o", f"c{name}", "--to", "comfyui"],
        ["resize", name, "-o", f"r{name}", "--rank", "1"],
        ["merge", "--base", "base.safetensors", "--adapter", name, "-o", f"m{name}"],
        ["delta", name, "-o", f"d{name}"],
        ["inspect", f"x{name}"],
    ]
    failed, out, err = on_terminal(encoding, *commands)
    assert failed == 2  # the last two are wrong
    assert err.count(b"lyco: error: ") == 2
    assert out.count(b".clip_l): an embedding bundled with the adapter") == 4


WRITING = {
    "convert": ["convert", "{}", "-o", "{out}", "--to", "diffusers"],
    "delta": ["delta", "{}", "-o", "{out}"],
    "resize": ["resize", "{}", "-o", "{out}", "--rank", "1"],
    "merge": ["merge", "--base", "base.safetensors", "--adapter", "{}", "-o", "{out}"],
    "merge into": ["merge", "--base", "{}", "--adapter", "a.safetensors", "-o", "{out}"],
    "extract from": ["extract", "--base", "{}", "--tuned", "base.safetensors", "-o", "{out}", "--rank", "1"],
    "extract": ["extract", "--base", "base.safetensors", "--tuned", "{}", "-o", "{out}", "--rank", "1"],
    "inspect": ["inspect", "{}"],
    "inspect for": ["inspect", "a.safetensors", "--model", "{}"],
}


def damaged(folder: Path) -> dict[str, str]:
    """Kind -> path of what is there and is no adapter, or is not there."""
    good = (folder / "a.safetensors").read_bytes()
    header = int.from_bytes(good[:8], "little")
    table = json.loads(good[8 : 8 + header])

    def packed(text: bytes, data: bytes = good[8 + header :]) -> bytes:
        return len(text).to_bytes(8, "little") + text + data

    def noted(notes: object) -> bytes:
        return packed(json.dumps(table | {"__metadata__": notes}).encode())

    kinds = {
        "empty": b"",
        "seven bytes": good[:7],
        "half a header": good[: header // 2],
        "half its data": good[:-9],
        "no UTF-8": packed(good[8 : 8 + header].replace(b"lora", b"\xff\xfera")),
        "a note that is a number": noted({"a": 1}),
        "notes in a list": noted(["a"]),
        "a note of half a character": packed(json.dumps(table | {"__metadata__": {"a": "\ud800"}}).encode()),
        "a dtype that torch lacks": packed(good[8 : 8 + header].replace(b'"F32"', b'"Q32"')),
        "a pickle": b"\x80\x02}q\x00." + bytes(200),
        "a web page": b"<!DOCTYPE html>" + b" " * 200,
    }
    paths: dict[str, str] = {}
    for number, (kind, data) in enumerate(kinds.items()):
        paths[kind] = f"damaged{number}.safetensors"
        (folder / paths[kind]).write_bytes(data)
    (folder / "empty folder.safetensors").mkdir()
    return paths | {
        "nothing": "nowhere.safetensors",
        "below a file": "a.safetensors/b.safetensors",
        "an empty folder": "empty folder.safetensors",
        "too long a name": "x" * 300,
    }


@pytest.mark.parametrize("command", WRITING)
@pytest.mark.parametrize("there", [False, True], ids=["new", "overwriting"])
def test_what_is_damaged_is_one_line_and_leaves_everything(
    command: str, there: bool, three: Path, capsys: pytest.CaptureFixture[str]
):
    base(three / "base.safetensors")
    kinds = damaged(three)
    if there:
        (three / "out.safetensors").write_bytes(b"precious")
    before = {path: (three / path).read_bytes() for path in made(three)}
    overwrite = ["--overwrite"] if there and "-o" in WRITING[command] else []
    for kind, path in kinds.items():
        arguments = [argument.format(path, out="out.safetensors") for argument in WRITING[command]]
        assert main([*arguments, *overwrite]) == 1, kind
        error = capsys.readouterr().err
        assert error.startswith("lyco: error: "), kind
        assert error.count("\n") == 1, kind
        assert os.path.basename(path)[:50] in error or "give the checkpoint that it was tuned from" in error, kind
        assert {path: (three / path).read_bytes() for path in made(three)} == before, kind


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of files are POSIX's")
def test_an_adapter_that_goes_away_meanwhile_is_one_line(three: Path, monkeypatch: pytest.MonkeyPatch):
    from lyco_core.errors import FileError
    from lyco_core.io.hashes import auto_v1, sha256

    for read in (auto_v1, sha256):
        with pytest.raises(FileError, match=r"^gone\.safetensors: cannot be read: "):
            read(three / "gone.safetensors")
    assert len(sha256(three / "a.safetensors")) == 64
    assert read_header(three / "a.safetensors").tensors
