"""The terminal: what is written to one, and that nothing is where there is none."""

import io
import os
import shlex

import pytest

from lyco_core.console import Progress, clear_line, painted, shell_command


class Terminal(io.StringIO):
    """A terminal of 40 columns, as far as a stream tells."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> str:
        """What stands in the line that the cursor is at."""
        line = ""
        for part in self.getvalue().split("\r"):
            line = part + line[len(part) :]
        return line.rstrip()


@pytest.fixture(autouse=True)
def forty_columns(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_counts_down_in_one_line_and_leaves_none():
    terminal, clock = Terminal(), Clock()
    show = Progress("a.safetensors", "MB", 1000, terminal, clock)
    show(1000, 400_000)
    assert terminal.getvalue() == ""  # what is quick says nothing
    clock.now = 30
    show(100_000, 400_000)
    assert terminal.screen() == "a.safete: 25%, 100 of 400 MB, 1:30 left"  # as wide as the terminal
    clock.now = 30.01
    show(101_000, 400_000)
    assert "101" not in terminal.getvalue()
    clock.now = 60
    show(200_000, 400_000)
    assert "\n" not in terminal.getvalue()
    assert terminal.screen() == "a.safete: 50%, 200 of 400 MB, 1:00 left"
    show(400_000, 400_000)
    assert terminal.screen() == ""


def test_progress_says_how_long_it_still_takes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    terminal, clock = Terminal(), Clock()
    show = Progress("x", "modules", 1, terminal, clock)
    clock.now = 1800
    show(1, 5)
    assert terminal.screen() == "x: 20%, 1 of 5 modules, 2:00:00 left"


def test_the_width_is_that_of_the_terminal_that_is_written_to(monkeypatch: pytest.MonkeyPatch):
    terminal, clock = Terminal(), Clock()
    monkeypatch.setattr(terminal, "fileno", lambda: 2)
    monkeypatch.setattr("lyco_core.console.os.get_terminal_size", lambda _: os.terminal_size((25, 24)))
    show = Progress("adapter", "files", 1, terminal, clock)
    clock.now = 1
    show(1, 2)
    assert terminal.screen() == ": 50%, 1 of 2 files, 0:0"  # 24 columns
    clear_line(terminal)
    assert terminal.screen() == ""


def test_wide_letters_do_not_wrap():
    terminal, clock = Terminal(), Clock()
    show = Progress("日本語" * 10, "files", 1, terminal, clock)
    clock.now = 1
    show(1, 2)
    assert terminal.screen() == "日本語日: 50%, 1 of 2 files, 0:01 left"  # 39 columns


def test_where_there_is_no_terminal_nothing_is_written():
    stream, clock = io.StringIO(), Clock()
    show = Progress("x", "files", 1, stream, clock)
    clock.now = 9
    show(1, 2)
    show(2, 2)
    clear_line(stream)
    assert stream.getvalue() == ""
    assert painted("x", "red", stream) == "x"


@pytest.mark.skipif(os.name == "nt", reason="Windows asks the console itself, which this stream is not")
def test_colours_are_a_terminals_that_wants_them(monkeypatch: pytest.MonkeyPatch):
    assert painted("x", "red", Terminal()) == "\x1b[1;31mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "")  # which says nothing: https://no-color.org
    assert painted("x", "red", Terminal()) != "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert painted("x", "red", Terminal()) == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert painted("x", "red", Terminal()) == "x"


def test_a_command_can_be_pasted(monkeypatch: pytest.MonkeyPatch):
    words = ["lyco", "train", "my files/it's.toml"]
    assert shlex.split(shell_command(words)) == words
    monkeypatch.setattr("lyco_core.console.os.name", "nt")
    assert shell_command(["lyco", r"C:\my files\a.toml"]) == r'lyco "C:\my files\a.toml"'
