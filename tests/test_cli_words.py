"""What the command line says to who does not know it: help, versions, and errors that name what to type."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lyco_testing.tables import GOLDEN

import lyco_core
from lyco_core.cli import main

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
        (["nonsense"], "there is no command nonsense; expected inspect, delta, convert"),
        (["delta", "x", "-o", "y", "--bla"], "--bla: there is no such option; see lyco delta --help"),
        (["delta", "x", "y", "-o", "z"], "y: one argument too many; see lyco delta --help"),
        (["--bla"], "--bla: there is no such option; see lyco --help"),
        (["merge"], "the following arguments are required: --base, --adapter, -o/--output; see lyco merge --help"),
    ],
)
def test_arguments_that_are_wrong(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert said(capsys, *arguments).startswith(message)


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
