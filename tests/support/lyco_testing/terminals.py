"""The command line on a terminal of any code page, in this process: a process of its own costs torch's import."""

import contextlib
import io

from lyco_core.cli import main

__all__ = ["on_terminal"]


def on_terminal(encoding: str, *commands: list[str]) -> tuple[int, bytes, bytes]:
    """(how many of the commands failed, what went to standard output, to standard error), as Python opens the two."""
    streams = [
        io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors, newline="\n", write_through=True)
        for errors in ("strict", "backslashreplace")
    ]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        failed = sum(main(command) for command in commands)
    out, err = (stream.buffer.getvalue() for stream in streams)  # pyright: ignore[reportAttributeAccessIssue]
    return failed, out, err
