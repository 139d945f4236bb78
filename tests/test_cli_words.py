"""What the command line says to who does not know it: help, versions, and errors that name what to type."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lyco_testing.tables import GOLDEN, musubi_file, random
from safetensors.torch import save_file

import lyco_core
from lyco_core.cli import main
from lyco_core.commands import train, version

ROOT = Path(__file__).parents[1]
LOKR = str(GOLDEN / "z_image" / "lokr.safetensors")


def said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 1) -> str:
    """What a command writes: on standard error if it fails, else on standard output; nothing on the other."""
    try:
        ended = main(arguments)
    except SystemExit as end:  # argparse's way
        ended = end.code or 0
    told = capsys.readouterr()
    assert ended == status, told
    if status:
        assert told.out == ""
        assert told.err.startswith("lyco: error: ")
        assert told.err.count("\n") == 1
        return told.err.removeprefix("lyco: error: ").rstrip("\n")
    assert told.err == ""
    return told.out


def test_without_a_command_it_is_its_help(capsys: pytest.CaptureFixture[str]):
    assert said(capsys, status=0) == said(capsys, "--help", status=0)


def test_the_version_is_told_without_torch(capsys: pytest.CaptureFixture[str]):
    lines = said(capsys, "--version", status=0).splitlines()
    assert lines[0] == f"lyco {lyco_core.__version__}"
    assert lines[1] == f"torch {torch.__version__.partition('+')[0]}" or lines[1] == f"torch {torch.__version__}"
    assert f"folder {ROOT}" in lines
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom lyco_core.cli import main\n"
    program += "try: main(['--version'])\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.endswith("False\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["isnpect"], "there is no command isnpect; do you mean inspect?; see lyco --help"),
        (["nonsense"], "there is no command nonsense; expected inspect, delta, compare, convert"),
        (["delta", "x", "-o", "y", "--bla"], "--bla: there is no such option; see lyco delta --help"),
        (["delta", "x", "y", "-o", "z"], "y: one argument too many; see lyco delta --help"),
        (["train"], "there is nothing to train; name a configuration, lyco train CONFIG.toml, or type Musubi Tuner's"),
        (["--bla"], "--bla: there is no such option; see lyco --help"),
        (["merge"], "the following arguments are required: --base, --adapter, -o/--output; see lyco merge --help"),
    ],
)
def test_arguments_that_are_wrong(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert said(capsys, *arguments).startswith(message)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an adapter and a base for it, an IA3, and a file that is in the way."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_file(musubi_file({f"blocks.{n}.ffn.0": (128, 64) for n in range(3)}, tensor=random), "wan.safetensors")
    save_file({f"blocks.{n}.ffn.0.weight": torch.zeros(128, 64) for n in range(3)}, "base.safetensors")
    save_file({f"layers.{n}.attention.out.weight": torch.zeros(64, 64) for n in range(2)}, "other.safetensors")
    save_file({"lora_unet_blocks_0_ffn_0.weight": torch.ones(128, 1)} | ON_INPUT, "ia3.safetensors")
    Path("there.safetensors").write_bytes(b"precious")
    return tmp_path


ON_INPUT = {"lora_unet_blocks_0_ffn_0.on_input": torch.tensor(False)}
MERGE = ["merge", "--base", "base.safetensors", "--adapter", "wan.safetensors"]
EXTRACT = ["extract", "--base", "base.safetensors", "--tuned", "base.safetensors"]
TO = ["--to", "comfyui"]


@pytest.mark.parametrize(
    "command",
    [
        ["delta", "wan.safetensors"],
        ["convert", "wan.safetensors", *TO],
        ["resize", "wan.safetensors", "--rank", "1"],
        [*EXTRACT, "--rank", "1"],
        MERGE,
    ],
    ids=lambda command: command[0],
)
def test_a_file_that_is_there_is_kept_and_the_flag_named(
    command: list[str], here: Path, capsys: pytest.CaptureFixture[str]
):
    message = said(capsys, *command, "-o", "there.safetensors")
    assert message == "there.safetensors: is there already; choose another name, or replace it with --overwrite"
    assert (here / "there.safetensors").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["resize", "wan.safetensors"], "say how small it is to be; give --rank, --energy or --max-error"),
        (EXTRACT, "say how small it is to be; give --rank, --energy or --max-error"),
        (
            [*EXTRACT, "--as", "loha", "--energy", "0.9"],
            "an energy or an error chooses the rank of a LoRA, not of a LoHa; give a --rank",
        ),
        (
            ["convert", "ia3.safetensors", *TO, "--dtype", "bfloat16"],
            "ia3.safetensors: blocks.0.ffn.0: is IA3, whose change depends on the weight, so the error of another "
            "dtype cannot be measured; leave --dtype out to keep its numbers as they are",
        ),
        (
            [*MERGE, "--include", r"blocks\.9\..*"],
            r"wan.safetensors: the pattern 'blocks\.9\..*' matches no module; it must match a whole name, such as "
            "blocks.0.ffn.0, blocks.1.ffn.0, blocks.2.ffn.0; end it with .* to match what begins so",
        ),
        ([*MERGE, "--exclude", r"\d["], r"'\d[' is no regular expression: "),
    ],
)
def test_errors_name_the_options_and_what_was_typed(
    command: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
):
    assert said(capsys, *command, "-o", "new.safetensors").startswith(message)
    assert not (here / "new.safetensors").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals for this")
@pytest.mark.parametrize("no_color", ["", "1"])
def test_errors_are_coloured_on_a_terminal_alone(no_color: str):
    import pty

    main_end, terminal = pty.openpty()
    environment = os.environ | {"NO_COLOR": no_color, "TERM": "xterm"}
    command = [sys.executable, str(ROOT / "lyco_core"), "nonsense"]
    subprocess.run(command, stderr=terminal, env=environment, check=False)
    os.close(terminal)
    told = os.read(main_end, 10000)
    os.close(main_end)
    assert (b"\x1b[" in told) == (no_color == "")
    assert b"lyco: error:" in told


@pytest.mark.skipif(os.name == "nt", reason="quoted as POSIX's shells read it")
def test_the_command_to_go_on_with_is_what_was_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def again(*more: str) -> str:
        return train._command(["my files/a.toml", *more])

    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "lyco"), "train"])
    monkeypatch.setattr(sys, "orig_argv", ["/my python", "-m", "lyco_core", "train", "my files/a.toml"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert again() == "'/my python' -m lyco_core train 'my files/a.toml'"
    (tmp_path / "lyco").touch(0o755)
    assert again("--resume", "a.pt", "--comfyui", "/comfy") == "lyco train 'my files/a.toml' --comfyui /comfy"
    assert again("--resume=a.pt", "--seed", "3") == "lyco train 'my files/a.toml' --seed 3"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert again() == "torchrun --nproc-per-node=2 -m lyco_core train 'my files/a.toml'"


def test_a_folder_that_comfyui_serves_nothing_of_is_told_with_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "custom_nodes" / "my lyco"
    monkeypatch.setattr(version, "__file__", str(folder / "lyco_core" / "commands" / "version.py"))
    assert version.version_lines()[-1].startswith(f"{folder}: ComfyUI's server finds no files in a folder with a space")
