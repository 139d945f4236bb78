"""The commands of `lyco`, one a file: `add` declares its arguments, and what runs it.

torch takes seconds to import, so commands import what they need when they run.
"""

from . import convert, delta, demo, inspect, merge, train

__all__ = ["COMMANDS"]

COMMANDS = (inspect, delta, convert, merge, train, demo)
"""As `lyco --help` lists them."""
