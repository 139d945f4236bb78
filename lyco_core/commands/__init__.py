"""The commands of `lyco`, one a file: `add` declares its arguments, and what runs it.

torch takes seconds to import, so commands import what they need when they run.
"""

from . import combine, compare, convert, delta, demo, extract, inspect, merge, resize, train

__all__ = ["AS_TYPED", "COMMANDS"]

COMMANDS = (inspect, delta, compare, convert, combine, merge, extract, resize, train, demo)
"""The commands in the order in which `lyco --help` lists them."""

AS_TYPED = ("train",)
"""The commands that read what is typed behind their names by themselves."""
