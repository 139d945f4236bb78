"""Regular expressions that people write, over names that strangers wrote: matched whole, in bounded time.

Python's `re` can take years for a pattern such as `(a+)+b`, holds the interpreter's lock meanwhile and
cannot be stopped. So patterns are compiled and matched in a small process of their own (20 ms).
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

__all__ = ["PatternError", "matches", "require_patterns"]

SECONDS = 5.0
"""All the time that the patterns of one call get, from when Python has started; real ones take a few milliseconds."""

START_SECONDS = 60.0
"""For Python to start, which a virus scanner or a busy disk can hold up."""

_OVER = b"Timeout ("
"""What faulthandler begins with where it ends a process."""

_WORKER = Path(__file__).with_name("pattern_worker.py")


class PatternError(ValueError):
    """A text that is no regular expression, or one that takes too long; the message names it."""


def require_patterns(patterns: Iterable[str]) -> None:
    """Raise `PatternError` if one is no regular expression."""
    matches(patterns, ())


def matches(patterns: Iterable[str], names: Collection[str]) -> dict[str, frozenset[str]]:
    """Pattern -> which of `names` it matches from beginning to end.

    Raises:
        PatternError: one is no regular expression, or takes too long.
    """
    wanted, among = tuple(dict.fromkeys(patterns)), tuple(names)
    if not wanted:
        return {}
    found: dict[str, frozenset[str]] = {}
    for pattern, answer in zip(wanted, _ask(wanted, among), strict=True):
        if isinstance(answer, str):
            raise PatternError(f"'{pattern}' is no regular expression: {answer}")
        found[pattern] = frozenset(among[number] for number in answer)
    return found


@functools.lru_cache(maxsize=8)  # one command asks the same of the same names again, and a process is 20 ms
def _ask(patterns: tuple[str, ...], names: tuple[str, ...]) -> list[list[int] | str]:
    question = json.dumps([SECONDS, patterns, names]).encode()
    if not sys.executable:
        raise PatternError("patterns are matched by a Python of their own, and this one does not know its program")
    command = [sys.executable, "-I", "-S", str(_WORKER)]
    no_window = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # Windows
    try:
        done = subprocess.run(
            command, input=question, capture_output=True, timeout=START_SECONDS + SECONDS, creationflags=no_window
        )
    except OSError as error:
        raise PatternError(f"the process that matches patterns failed: {error}") from None
    except subprocess.TimeoutExpired:
        raise PatternError(
            f"the process that matches patterns did not start within {START_SECONDS:g} s; is the computer overloaded?"
        ) from None
    if done.returncode and _OVER in done.stderr:
        slow = patterns[min(done.stdout.count(b"\n"), len(patterns) - 1)]
        raise PatternError(
            f"'{slow}' takes over {SECONDS:g} s to match {len(names)} names; write it without repeats inside of "
            "repeats, such as (a+)+"
        )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise PatternError(f"the process that matches patterns failed: {reason or f'it ended with {done.returncode}'}")
    return [json.loads(line) for line in done.stdout.splitlines()]
