"""What is found: checks, rows of the table, and lines to say; kept in a file, for processes to hand on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
TIMING = "timing"
"""The section of what goes wrong while something is timed."""


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that must be right."""

    section: str
    case: str
    found: str
    expected: str
    passed: bool


@dataclasses.dataclass(frozen=True)
class Row:
    """One thing done by several."""

    table: str
    what: str
    times: dict[str, float | None]
    """Who -> milliseconds; None: out of memory. The first is ours."""
    megabytes: dict[str, float] = dataclasses.field(default_factory=dict)
    """Who -> the peak of memory beside what was there before."""
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Line:
    """Something to say: what cannot run here and why, or what the device is able to."""

    text: str
    about: str = ""
    """Empty, or `device`."""


Item = Check | Row | Line
KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Check, Row, Line)}


def read(path: Path) -> list[Item]:
    """What a process has found."""
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return [KINDS[one.pop("kind")](**one) for one in found]


class Results:
    """Where a process puts what it finds, as soon as it finds it."""

    def __init__(self, path: Path, until: float = math.inf) -> None:
        self.path, self.until = path, until

    def add(self, item: Item) -> None:
        """Keep an item, and say it on the terminal if a person should not wait for it."""
        with self.path.open("a", encoding="utf-8") as file:
            print(json.dumps({"kind": type(item).__name__, **dataclasses.asdict(item)}), file=file)
        if isinstance(item, Check) and not item.passed:
            print(f"FAILED  {failure(item)}", flush=True)
        elif isinstance(item, Line):
            print(f"{item.text}", flush=True)

    def at_most(self, section: str, case: str, found: float, limit: float, what: str) -> None:
        """A check that a number is at most `limit`; not a number is too large. `what` names what is measured."""
        self.add(Check(section, case, f"{found:.3g}", f"at most {limit:.3g} {what}", found <= limit))

    def holds(self, section: str, case: str, passed: bool, expected: str, found: str) -> None:
        """A check of anything else."""
        self.add(Check(section, case, "as expected" if passed else found, expected, passed))

    def say(self, text: str, about: str = "") -> None:
        """A line for a person."""
        self.add(Line(text, about))

    @contextlib.contextmanager
    def case(self, section: str, case: str) -> Iterator[None]:
        """Whatever goes wrong inside is a check that failed, unless a card is too small to time; the next goes on."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            if section == TIMING and _no_memory(error):
                self.say(f"not timed: {case}: out of memory")
            else:
                self.add(Check(section, case, _words(error), "no error", False))

    def works(self, case: str, run: Callable[[], object]) -> bool:
        """Whether what others have made runs here; that it does not is said, and no fault of ours."""
        try:
            run()
        except Exception as error:
            if not _no_memory(error):
                traceback.print_exc()
                self.say(f"not compared: {case}: {_words(error)}")
                return False
        return True

    def in_time(self, section: str, cases: Mapping[str, T]) -> Iterator[tuple[str, T]]:
        """The cases, until the time is over; how many are left out then is said."""
        for number, (name, case) in enumerate(cases.items()):
            if time.time() > self.until:
                self.say(f"{section}: {len(cases) - number} of {len(cases)} left out, the time is over")
                return
            yield name, case


def _no_memory(error: Exception) -> bool:
    """Whether the device's is full; by name, since this module comes before torch."""
    return type(error).__name__ == "OutOfMemoryError"


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:600]


def failure(check: Check) -> str:
    """A failed check in a line."""
    return f"{check.section}: {check.case}: expected {check.expected}, found {check.found}"


def sections(items: Sequence[Item]) -> dict[str, list[Check]]:
    """The checks by section, in the order in which they came."""
    found: dict[str, list[Check]] = {}
    for item in items:
        if isinstance(item, Check):
            found.setdefault(item.section, []).append(item)
    return found
