"""The terminal: colours where it has them, one line of progress that is rewritten, and commands to paste into it."""

from __future__ import annotations

import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Callable, Sequence
from typing import TextIO

__all__ = ["Progress", "clear_line", "clock", "painted", "shell_command", "show_line"]

_STYLES = {"bold": "1", "dim": "2", "red": "1;31", "green": "32", "yellow": "33"}
_WINDOWS_HANDLES = {1: -11, 2: -12}
"""File descriptor -> the console's number of the same stream."""
_ESCAPES = 4
"""ENABLE_VIRTUAL_TERMINAL_PROCESSING: a Windows console understands escape sequences once it is asked to."""


def painted(text: str, style: str, stream: TextIO | None = None) -> str:
    """`text` in a style of a terminal; as it is where `stream`, standard output if None, is none, or none is wanted."""
    if not _has_colours(stream or sys.stdout):
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def _has_colours(stream: TextIO) -> bool:
    """Whether escape sequences are understood, and wanted: https://no-color.org."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return False
    return _takes_escapes(stream)


def _takes_escapes(stream: TextIO) -> bool:
    """Whether a terminal understands escape sequences; a Windows console is asked to."""
    if sys.platform != "win32":
        return True
    import ctypes

    kernel, mode = ctypes.windll.kernel32, ctypes.c_ulong()
    handle = kernel.GetStdHandle(_WINDOWS_HANDLES.get(stream.fileno(), 0))
    return bool(
        kernel.GetConsoleMode(handle, ctypes.byref(mode)) and kernel.SetConsoleMode(handle, mode.value | _ESCAPES)
    )


def show_line(head: str, tail: str, stream: TextIO) -> None:
    """Write both over the line that a terminal is at, less of `head` where they do not fit; elsewhere nothing."""
    if stream.isatty():
        room = _columns(stream) - 1
        text = _fitted(_fitted(head, room - _width(tail)) + tail, room)
        stream.write(f"\r{text}{' ' * (room - _width(text))}")
        stream.flush()


def clear_line(stream: TextIO) -> None:
    """Leave nothing of what `show_line` wrote, so that what comes next has the line to itself."""
    if stream.isatty():
        stream.write(f"\r{' ' * (_columns(stream) - 1)}\r")
        stream.flush()


def _columns(stream: TextIO) -> int:
    """How wide a terminal is; `shutil` asks standard output, which may be a file meanwhile."""
    try:
        asked = os.get_terminal_size(stream.fileno()).columns
    except OSError:
        asked = 0
    return asked or shutil.get_terminal_size().columns


def _fitted(text: str, columns: int) -> str:
    """As much of `text` as fits: a line that wraps cannot be written over."""
    while text and _width(text) > columns:
        text = text[:-1]
    return text


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


class Progress:
    """How far some work is and how long it still takes, in a line that is rewritten; quick work has none.

    Args:
        name: what is worked on.
        unit: what is counted, `modules` say.
        size: of one of them.
        now: a clock in seconds.
    """

    QUIET = 0.5
    """Seconds that pass before it says anything."""
    PAUSE = 0.1
    """Seconds between two lines."""

    def __init__(
        self,
        name: str,
        unit: str,
        size: int = 1,
        stream: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._unit, self._size = name, unit, size
        self._stream, self._now = stream or sys.stderr, now
        self._begun, self._shown = now(), 0.0
        self._visible = False

    def __call__(self, done: int, total: int) -> None:
        """Tell what is done, of all there is."""
        passed = self._now() - self._begun
        if done >= total:
            if self._visible:
                clear_line(self._stream)
                self._visible = False
        elif passed >= self.QUIET and passed - self._shown >= self.PAUSE:
            self._shown, self._visible = passed, True
            left = f", {clock(passed / done * (total - done))} left" if done else ""
            of = f"{done // self._size} of {total // self._size} {self._unit}"
            show_line(self._name, f": {100 * done // total}%, {of}{left}", self._stream)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def shell_command(words: Sequence[str]) -> str:
    """A command as a person pastes it into the shell of this system."""
    import shlex
    import subprocess

    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
