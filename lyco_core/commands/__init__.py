"""The commands of `lyco`, one a file: `add` declares its arguments, and what runs it.

torch takes seconds to import, so commands import what they need when they run.
"""

from . import combine, convert, delta, demo, extract, inspect, merge, resize, train

__all__ = ["COMMANDS"]

COMMANDS = (inspect, delta, convert, combine, merge, extract, resize, train, demo)
"""The commands in the order in which `lyco --help` lists them."""
