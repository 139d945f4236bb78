"""The command line as a stranger uses it: output, exit status, and one line for everything bad."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lyco_testing.tables import GOLDEN, dotted_file, lokr, musubi_file, random, targets
from lyco_testing.terminals import on_terminal
from safetensors.torch import save_file

from lyco_core.cli import main

LOKR = GOLDEN / "z_image" / "lokr.safetensors"
ROOT = Path(__file__).parents[1]
LYCO = str(ROOT / "lyco_core")
"""Runs as a folder in any Python; that of ComfyUI's portable build finds no module of this name, whatever is set."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A checkpoint with the weights that the golden Z-Image files change."""
    shapes = {"attention.qkv": (192, 64), "attention.out": (64, 64), "feed_forward.w2": (64, 170)}
    shapes |= {"feed_forward.w1": (170, 64), "feed_forward.w3": (170, 64)}
    path = tmp_path / "model.safetensors"
    save_file({f"layers.{n}.{name}.weight": torch.zeros(s) for n in range(2) for name, s in shapes.items()}, path)
    return path


def test_inspect_for_a_person(capsys: pytest.CaptureFixture[str], model: Path):
    assert main(["inspect", str(LOKR), "--model", str(model)]) == 0
    out = capsys.readouterr().out
    assert "architecture  Z-Image" in out
    assert "modules       14: 14 LoKr" in out
    assert "model         14 of 14 modules on 10 weights" in out


def test_inspect_for_a_program(capsys: pytest.CaptureFixture[str], model: Path):
    assert main(["inspect", str(LOKR), "--json", "--model", str(model)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["modules"] == 14
    assert found["ranks"] == [4]
    assert found["model"] == {"matched": 14, "weights": 10, "homeless": [], "misfits": []}


def test_inspect_says_what_a_model_lacks(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path):
    file = tmp_path / "a.safetensors"
    save_file(
        musubi_file({"layers.0.attention.to_q": (64, 64), "layers.7.attention.to_q": (64, 64)}, tensor=random), file
    )
    assert main(["inspect", str(file), "--model", str(model)]) == 0
    out = capsys.readouterr().out
    assert "1 of 2 modules on 1 weight" in out
    assert "left out: 1 of 2 modules are not in the model (lora_unet_layers_7_attention_to_q)" in out


def test_inspect_of_a_checkpoint(capsys: pytest.CaptureFixture[str], model: Path):
    assert main(["inspect", str(model), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["architecture"], found["modules"]) == ("checkpoint", "z_image", 0)


def test_inspect_tells_all_families_that_a_file_may_be_for(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Rather than what it could not do."""
    names = [f"transformer_blocks.{n}.attn.{part}" for n in range(2) for part in ("to_q", "to_k", "to_v", "to_out.0")]
    tensors = [lokr(f"transformer.{name}", 3072, 3072, random) for name in names]
    save_file(dict(item for module in tensors for item in module.items()), tmp_path / "a.safetensors")
    assert main(["inspect", str(tmp_path / "a.safetensors")]) == 0
    out = capsys.readouterr().out
    assert re.search(
        r"architecture  unknown: its modules are those of several families \(chroma, flux1, .*qwen_image", out
    )
    assert "say which architecture is meant, or load it onto a model" in out
    assert "8: 8 LoKr" in out
    assert main(["inspect", str(tmp_path / "a.safetensors"), "--json"]) == 0
    assert "several families" in json.loads(capsys.readouterr().out)["doubt"]


def test_delta_writes_whole_or_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    out = tmp_path / "delta.safetensors"
    assert main(["delta", str(LOKR), "-o", str(out)]) == 0
    assert "10 delta weights" in capsys.readouterr().out
    before = out.read_bytes()
    assert main(["delta", str(LOKR), "-o", str(out)]) == 1
    assert "delta.safetensors: is there already" in capsys.readouterr().err
    assert main(["delta", str(LOKR), "-o", str(out), "--overwrite"]) == 0
    assert out.read_bytes() == before


def test_demo_tells_what_happened(capsys: pytest.CaptureFixture[str]):
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    assert "14 of 14 modules on 10 weights" in out
    assert "rows  64-128" in out


def part(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """A two-module Wan LoKr whose first module has some tensors changed or left out."""
    torch.manual_seed(0)
    tensors = musubi_file({"blocks.0.self_attn.q": (64, 64), "blocks.0.ffn.0": (128, 64)}, tensor=random)
    for name, tensor in changes.items():
        key = f"lora_unet_blocks_0_self_attn_q.{name}"
        del tensors[key]
        if tensor is not None:
            tensors[key] = tensor
    return tensors


NAN = torch.full((4, 4), float("nan"))
BAD_ADAPTERS = {
    "missing tensor": (part(lokr_w2_b=None), "lora_unet_blocks_0_self_attn_q: w2_b missing; a LoKr needs"),
    "cannot multiply": (part(lokr_w2_b=torch.ones(3, 16)), "lora_unet_blocks_0_self_attn_q: w2_a [16, 2] and w2_b [3"),
    "nan": (part(lokr_w1=NAN), "lora_unet_blocks_0_self_attn_q.lokr_w1: 16 of its 16 numbers are NaN"),
    "inf": (part(lokr_w1=torch.full((4, 4), float("inf"))), "lokr_w1: 16 of its 16 numbers are NaN or infinite"),
    "nan alpha": (part(alpha=torch.tensor(float("nan"))), "lora_unet_blocks_0_self_attn_q: alpha is nan"),
    "inf alpha": (part(alpha=torch.tensor(float("inf"))), "lora_unet_blocks_0_self_attn_q: alpha is inf"),
    "overflow": (part(lokr_w1=torch.full((4, 4), 3e38)), "numbers are NaN or infinite"),
    "double that overflows": (part(lokr_w1=torch.full((4, 4), 1e300, dtype=torch.float64)), "are NaN or infinite"),
    "integers": (part(lokr_w1=torch.ones(4, 4, dtype=torch.int8)), "lokr_w1: its dtype is int8"),
    "two of one module": (part() | lokr("diffusion_model.blocks_0_ffn_0", 8, 8, random), "is there twice"),
    "all of it off": (
        lokr("lora_unet_blocks_0_ffn_0", 8, 8, random) | {"lora_unet_blocks_0_ffn_0.alpha": torch.tensor(0.0)},
        "holds nothing that changes a model: 1 module (lora_unet_blocks_0_ffn_0): off, by an alpha of 0",
    ),
    "off beside a magnitude": (
        part(alpha=torch.tensor(0.0)) | {"lora_unet_blocks_0_self_attn_q.dora_scale": torch.ones(64, 1)},
        "lora_unet_blocks_0_self_attn_q: its scale is 0 beside a DoRA magnitude",
    ),
    "unknown format": (
        {"something.lora_up.weight": torch.ones(4, 2), "something.lora_down.weight": torch.ones(2, 4)},
        "spelled in an unknown way (something)",
    ),
    "no adapter": ({"foo": torch.ones(2)}, "holds no adapter; found keys like foo"),
    "nothing": ({}, "holds no adapter; found no tensors"),
    "unknown family": (lokr("lora_unet_nowhere_0", 8, 8, random), "of no known architecture (lora_unet_nowhere_0)"),
    "stray key": (part() | {"lora_unet_blocks_0_ffn_0.set_weight": torch.ones(128, 1)}, "keys belong to no adapter"),
    "module of no family": (
        part() | lokr("lora_unet_blocks_0_nothing", 8, 8, random),
        "Wan 2.1/2.2 comes nearest, but it has blocks_0_nothing, which Wan 2.1/2.2 has not",
    ),
}


@pytest.mark.parametrize("name", BAD_ADAPTERS)
def test_a_bad_adapter_is_one_line_and_writes_nothing(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tensors, message = BAD_ADAPTERS[name]
    file, out = tmp_path / "bad.safetensors", tmp_path / "out.safetensors"
    save_file(tensors, file)
    assert main(["delta", str(file), "-o", str(out)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("lyco: error: bad.safetensors: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("command", ["inspect", "delta"])
def test_hostile_names_cannot_break_the_line(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "bad.safetensors"
    save_file({"evil\n\x1b[31mkey\u202e.lokr_w1": torch.ones(2, 2)}, file)
    assert main([command, str(file), *(["-o", str(tmp_path / "o")] if command == "delta" else [])]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "\x1b" not in err
    assert "\u202e" not in err
    assert r"evil\n\x1b[31mkey" in err


def test_inspect_prints_metadata_without_its_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "a.safetensors"
    save_file(part(), file, {"ss_note": "red \x1b[31m and\nlines"})
    assert main(["inspect", str(file)]) == 0
    assert r"ss_note = red \x1b[31m and\nlines" in capsys.readouterr().out


def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    if arguments[0] == "-c":
        arguments = "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{arguments[1]}"
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, **options)


def test_it_runs_as_a_folder_of_an_isolated_python(tmp_path: Path):
    """`-I` is how Python starts in ComfyUI's portable build."""
    done = run("-I", LYCO, "inspect", str(LOKR), cwd=tmp_path)
    assert done.stdout.startswith("file")
    assert "LoKr" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.flags.isolated, reason="an isolated Python looks for modules in no folder")
def test_it_runs_as_a_module():
    assert run("-m", "lyco_core", "--help").stdout.startswith("usage: lyco")


def test_help_needs_no_torch():
    program = "import sys; from lyco_core.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    done = run("-c", program + "print('torch' in sys.modules)")
    assert done.stdout.endswith("False\n")
    start = time.perf_counter()
    assert "inspect" in run(LYCO, "--help").stdout
    assert time.perf_counter() - start < 5


def test_the_core_never_imports_comfyui():
    program = (
        "import sys, pkgutil, importlib, lyco_core\n"
        "without = '__main__', 'fused.kernels'  # which needs triton, that Windows and macOS have not\n"
        "for m in pkgutil.walk_packages(lyco_core.__path__, 'lyco_core.'):\n"
        "    if not m.name.endswith(without): importlib.import_module(m.name)\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('comfy', 'comfy_api', 'folder_paths', 'safetensors')])"
    )
    assert run("-c", program).stdout == "[]\n"


def test_the_packs_folder_imports_without_comfyui():
    program = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('pack', {str(ROOT / '__init__.py')!r})\n"
        "pack = importlib.util.module_from_spec(spec); spec.loader.exec_module(pack)\n"
        "print(pack.__all__, 'torch' in sys.modules)"
    )
    assert run("-c", program).stdout == "['WEB_DIRECTORY', 'comfy_entrypoint'] False\n"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no head, and no such signal")
def test_a_closed_pipe_is_no_traceback():
    done = subprocess.run(
        f"{sys.executable} {LYCO} inspect {LOKR} | head -n 1",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("file")
    assert "Traceback" not in done.stderr


def test_detection_and_placement_of_756_modules_is_quick():
    """Measured in benchmarks/; here only that nothing is quadratic."""
    from lyco_core.architectures import identify
    from lyco_core.formats import parse
    from lyco_core.placement import place

    tensors = musubi_file(targets("hunyuan_video_1_5"))
    start = time.perf_counter()
    assert place(identify(parse(tensors, {}))).modules == 756
    assert time.perf_counter() - start < 3


def test_dotted_files_are_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    modules = {"blocks.0.self_attn.q": (64, 64)}
    torch.manual_seed(0)
    save_file(musubi_file(modules, tensor=random), tmp_path / "a")
    torch.manual_seed(0)
    save_file(dotted_file(modules, tensor=random), tmp_path / "b")
    for name in "ab":
        assert main(["delta", str(tmp_path / name), "-o", str(tmp_path / f"{name}.delta_1.5")]) == 0
    assert (tmp_path / "a.delta_1.5.safetensors").read_bytes() == (tmp_path / "b.delta_1.5.safetensors").read_bytes()


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["for a person", "for a program"])
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_any_terminal_can_print_any_metadata(encoding: str, flags: list[str], tmp_path: Path):
    file = tmp_path / "a.safetensors"
    save_file(part(), file, {"ss_note": "日本語"})
    status, out, err = on_terminal(encoding, ["inspect", str(file), *flags])
    assert (status, err) == (0, b"")
    assert b"ss_note" in out


def test_a_terminal_of_a_process_is_no_other(tmp_path: Path):
    """What `on_terminal` says of terminals holds for the one that Python opens; it runs a folder, which would hide
    Python's own `inspect` and others."""
    file = tmp_path / "a.safetensors"
    save_file(part(), file, {"ss_note": "日本語"})
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, LYCO, "inspect", str(file)], env=environment, capture_output=True)
    here = on_terminal("ascii", ["inspect", str(file)])
    assert (done.returncode, done.stdout.replace(b"\r\n", b"\n"), done.stderr) == here


@pytest.mark.parametrize("arguments", [["delta", "x"], ["nonsense"], ["delta", str(LOKR), "-o", ""]])
def test_bad_arguments_are_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    try:
        status = main(arguments)
    except SystemExit as exit:  # argparse's way
        status = exit.code
    err = capsys.readouterr().err
    assert status == 1
    assert err.startswith("lyco: error: ")
    assert err.count("\n") == 1


def test_inspect_of_a_full_lokr_whose_alpha_is_infinite(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """ai-toolkit's 9999999999 in float16."""
    tensors = {
        "lora_unet_blocks_0_ffn_0.lokr_w1": torch.ones(4, 4),
        "lora_unet_blocks_0_ffn_0.lokr_w2": torch.ones(8, 8),
    }
    save_file(tensors | {"lora_unet_blocks_0_ffn_0.alpha": torch.tensor(float("inf"))}, tmp_path / "a")
    assert main(["inspect", str(tmp_path / "a"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["alphas"] == []


def test_inspect_tells_what_it_does_not_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_file(lokr("lora_unet_input_blocks_1_0", 8, 8, random), tmp_path / "sd15")
    assert main(["inspect", str(tmp_path / "sd15"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["architecture"], found["modules"], found["algorithms"]) == (None, 1, {"lokr": 1})


def test_another_architecture_than_the_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_file(part(), tmp_path / "a.safetensors")
    assert main(["inspect", str(tmp_path / "a.safetensors"), "--architecture", "flux1"]) == 1
    assert "a.safetensors: is no adapter for FLUX.1: its modules are lora_unet_blocks_0" in capsys.readouterr().err


def test_convert_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out.safetensors"
    assert main(["convert", str(LOKR), "-o", str(out), "--to", "comfyui"]) == 0
    assert f"{out}: 14 renamed; 9.4 kB -> " in capsys.readouterr().out
    assert main(["convert", str(LOKR), "-o", str(out), "--to", "comfyui"]) == 1
    assert capsys.readouterr().err.startswith("lyco: error: out.safetensors: is there already")
    assert main(["convert", str(LOKR), "-o", str(out), "--to", "musubi", "--as", "lora", "--overwrite"]) == 0
    assert "14 as LoRA" in capsys.readouterr().out


def test_convert_of_a_folder_goes_on_after_a_bad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = tmp_path / "in" / "deep"
    source.mkdir(parents=True)
    (source / "good.safetensors").write_bytes(LOKR.read_bytes())
    (tmp_path / "in" / "bad.safetensors").write_bytes(b"")
    assert main(["convert", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--to", "diffusers"]) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "lyco: error: bad.safetensors: is empty (0 bytes); expected a safetensors file; save or download it again",
        "lyco: error: 1 of 2 files were not converted",
    ]
    assert [p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.*")] == [Path("deep/good.safetensors")]


def test_convert_prints_the_error_that_it_was_asked_to_make(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = str(tmp_path / "out")
    assert main(["convert", str(LOKR), "-o", out, "--to", "comfyui", "--as", "lora", "--max-error", "0.1"]) == 0
    printed = capsys.readouterr().out
    assert "14 approximated; relative error " in printed
    assert float(printed.split("relative error ")[1].split(",")[0]) < 0.1


def test_convert_by_energy_keeps_that_share_of_the_squared_norm(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = str(tmp_path / "out")
    assert main(["convert", str(LOKR), "-o", out, "--to", "comfyui", "--energy", "0.91"]) == 0
    assert 0.1 < float(capsys.readouterr().out.split("relative error ")[1].split(",")[0]) <= 0.3
    assert main(["convert", str(LOKR), "-o", out, "--to", "comfyui", "--energy", "1.5"]) == 1
    assert "energy is 1.5, expected a number between 0 and 1" in capsys.readouterr().err


@pytest.mark.parametrize("name", BAD_ADAPTERS)
def test_convert_refuses_what_loading_refuses(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    if "overflow" in name and "double" not in name:
        pytest.skip("its own numbers are finite; only what they would be multiplied to is not")
    tensors, message = BAD_ADAPTERS[name]
    file = tmp_path / "bad.safetensors"
    save_file(tensors, file)
    assert main(["convert", str(file), "-o", str(tmp_path / "out"), "--to", "comfyui"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("lyco: error: bad.safetensors: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert list(tmp_path.iterdir()) == [file]


def test_extract_and_resize(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.manual_seed(7)
    base = {f"blocks.{n}.ffn.0.weight": torch.randn(32, 24) for n in range(3)}
    paths = {name: str(tmp_path / f"{name}.safetensors") for name in ("base", "tuned", "out", "less")}
    paths["report.json"] = str(tmp_path / "report.json")
    save_file(base, paths["base"])
    save_file({k: v + torch.randn(32, 24) / 9 for k, v in base.items()}, paths["tuned"])
    extract = ["extract", "--base", paths["base"], "--tuned", paths["tuned"], "-o", paths["out"]]
    assert main([*extract, "--rank", "8", "--report", paths["report.json"]]) == 0
    assert "3 LoRA, rank 8; relative error 0." in capsys.readouterr().out
    report = json.loads(Path(paths["report.json"]).read_text())
    assert report["modules"].keys() == {key.removesuffix(".weight") for key in base}
    assert main(["resize", paths["out"], "-o", paths["less"], "--energy", "0.5"]) == 0
    assert "3 LoRA, rank" in capsys.readouterr().out
    assert main(extract) == 1
    assert "say how small" in capsys.readouterr().err
    assert main([*extract, "--rank", "8"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main([*extract, "--as", "lokr", "--overwrite"]) == 0
    assert "3 LoKr; relative error" in capsys.readouterr().out
    assert main(["resize", paths["out"], "-o", paths["less"], "--rank", "1", "--overwrite"]) == 0
