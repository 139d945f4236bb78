"""The command: every part in a process of its own, then the page; 1 if something is wrong."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gpu import report
from gpu.asked import asked, words_of
from gpu.results import Check, Item, Line, Results, failure, read


@dataclasses.dataclass(frozen=True)
class Part:
    """What is done in one process: a fault of the device, which nothing in that process survives, ends only this."""

    name: str
    half: str
    """`checks` or `table`."""
    modules: tuple[str, ...]
    """Whose `run` is called, in order."""
    comfyui: str = ""
    """`needed`, or `welcome`: without it there is less to do."""
    dynamic: bool = False
    """Whether that ComfyUI is to manage memory by dynamic VRAM."""

    @property
    def file(self) -> str:
        """What its files are called."""
        return self.name.replace(" ", "-")


LIBRARY = ("check_patching", "check_beside", "check_files", "check_training")
IN_COMFYUI = ("check_formats", "check_memory", "check_swapping")
SHARE = 0.6
"""Of the time, after which no check begins: the table is to have the rest."""
PARTS = (
    Part("checks", "checks", LIBRARY),
    Part("checks in ComfyUI", "checks", IN_COMFYUI, "needed"),
    Part("checks with dynamic VRAM", "checks", IN_COMFYUI, "needed", dynamic=True),
    Part("table", "table", ("table_layers", "table_training", "table_files"), "welcome"),
)


def main(words: Sequence[str]) -> int:
    """Run what is asked for."""
    options = asked(words)
    if options.publish:
        print(f"written: {report.publish(options.publish)}")
        return 0
    options.output = options.output.resolve()
    options.output.mkdir(parents=True, exist_ok=True)
    return one(options) if options.part else every(options)


def every(options: argparse.Namespace) -> int:
    """All parts, one after the other, and what came of them."""
    begun, found = time.time(), list[Item]()
    if options.device == "cpu" and shutil.which("nvidia-smi"):
        found.append(Line(f"nvidia-smi is here, and {sys.executable} has a torch that finds no card: give PYTHON=…"))
        print(found[0].text)
    for part in PARTS:
        if options.only in (None, part.half):
            share = SHARE if part.half == "checks" and not options.only else 1
            found += run(part, options, begun + 60 * options.minutes * share)
    page = report.write(options.output, found, time.time() - begun)
    print(f"\n{report.terminal(found)}\n\nwritten: {page}")
    failed = [item for item in found if isinstance(item, Check) and not item.passed]
    for check in failed:
        print(f"FAILED  {failure(check)}")
    return 1 if failed else 0


def run(part: Part, options: argparse.Namespace, until: float) -> list[Item]:
    """One part in a process of its own; that it broke down is a check that failed."""
    path, log = (options.output / f"{part.file}.{kind}" for kind in ("jsonl", "log"))
    path.unlink(missing_ok=True)
    print(f"\n{part.name}", flush=True)
    words = [sys.executable, os.fspath(Path(__file__).parent), *words_of(options), "--part", part.name]
    with log.open("w", encoding="utf-8") as errors:
        # Products whose sums go in one order, for trainings that must be alike.
        ordered = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if part.half == "checks" else {}
        asked = {"LYCO_TRITON": "1"} | os.environ | ordered
        done = subprocess.run([*words, "--until", str(until)], stderr=errors, env=asked, check=False)
    found = read(path)
    if done.returncode:
        last = (log.read_text(encoding="utf-8", errors="replace").splitlines() or ["no word why"])[-1]
        found.append(Check(part.name, "its process", f"{done.returncode} ({last}; see {log})", "exit code 0", False))
    return found


def one(options: argparse.Namespace) -> int:
    """The part, in this process."""
    part = next(part for part in PARTS if part.name == options.part)
    results, comfyui = Results(options.output / f"{part.file}.jsonl", options.until), None
    if part.comfyui:  # before torch is imported
        from gpu.comfyui import imported, prepare

        missing = "--no-comfyui" if options.no_comfyui else prepare(options.device, dynamic=part.dynamic)
        if missing:
            results.say(f"{part.name}: {'not run' if part.comfyui == 'needed' else 'without ComfyUI'}: {missing}")
        if missing and part.comfyui == "needed":
            return 0
    from gpu.device import Device

    device = Device(options.device, options.size, options.share)
    if part.comfyui and not missing:
        comfyui = imported(device.whole - device.limit, dynamic=part.dynamic)
    results.say(device.title, "device")
    for name in part.modules:
        importlib.import_module(f"gpu.{name}").run(device, results, comfyui)
    return 0
