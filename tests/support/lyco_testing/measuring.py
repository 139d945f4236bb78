"""Time, peak memory and longest standstill of reading a file, each in a process of its own."""

import dataclasses
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[3]


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one step took."""

    seconds: float
    megabytes: float
    """Of memory, at the peak, beyond what the process had before."""
    stall: float
    """Seconds for which another thread could not run."""
    said: str
    """Why the file was refused, or what was found."""


def measure(jobs: Mapping[str, tuple[str, Path]]) -> dict[str, Measured]:
    """Name -> (a step of `STEPS`, a file): all of them one after the other, in one other Python."""
    asked = json.dumps({name: (step, str(path)) for name, (step, path) in jobs.items()})
    places = os.pathsep.join((str(ROOT), str(ROOT / "tests" / "support")))
    done = subprocess.run(
        [sys.executable, "-m", "lyco_testing.measuring"],
        input=asked,
        env=os.environ | {"PYTHONPATH": places},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: Measured(*found) for name, found in json.loads(done.stdout).items()}


def _steps() -> dict[str, Callable[[str], object]]:
    from lyco_core.adapter_reader import load_adapter_set
    from lyco_core.card import card
    from lyco_core.inspection import inspect_file
    from lyco_core.io import read_header

    return {
        "header": lambda path: f"{len(read_header(path).tensors)} tensors",
        "card": lambda path: f"{len(json.dumps(card(inspect_file(path))))} characters",
        "load": lambda path: f"{len(load_adapter_set(path).adapters)} modules",
    }


def _forked(step: Callable[[str], object], path: str) -> tuple[float, float, float, str]:
    """Peak memory never falls, so each step has a child of this process."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.close(reading)
        with os.fdopen(writing, "w") as out:
            json.dump(_timed(step, path), out)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text)


def _timed(step: Callable[[str], object], path: str) -> tuple[float, float, float, str]:
    stalls, done = [0.0], threading.Event()

    def tick() -> None:
        last = time.monotonic()
        while not done.wait(0.005):
            now = time.monotonic()
            stalls[0], last = max(stalls[0], now - last), now

    other = threading.Thread(target=tick)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    other.start()
    started = time.monotonic()
    try:
        said = str(step(path))
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - started
    done.set()
    other.join()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return seconds, (after - before) * (1 if sys.platform == "darwin" else 1024) / 1e6, stalls[0], said


if __name__ == "__main__":
    steps = _steps()
    asked = json.load(sys.stdin)
    print(json.dumps({name: _forked(steps[step], path) for name, (step, path) in asked.items()}))
