"""Regular expressions that people write: the answers of `re`, in bounded time."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lyco_core.patterns
from lyco_core.architectures import ARCHITECTURES
from lyco_core.errors import SelectionError, TrainError
from lyco_core.model import Model
from lyco_core.patterns import PatternError, matches, require_patterns
from lyco_core.selection import Selection
from lyco_core.train.network_options import NetworkOptions
from lyco_core.train.targets import choose_targets

ENDLESS = r"(.+)+x"
NAMES = [f"blocks.{n}.self_attn.q" for n in range(30)]


@pytest.fixture(autouse=True)
def nothing_is_known_yet():
    """Of what a test before this one asked."""
    lyco_core.patterns._ask.cache_clear()


def test_what_was_just_asked_is_not_asked_again(monkeypatch: pytest.MonkeyPatch):
    found = matches([".*q"], NAMES)
    monkeypatch.setattr(lyco_core.patterns.sys, "executable", "")
    assert matches([".*q"], NAMES) == found
    with pytest.raises(PatternError):
        matches([".*q"], NAMES[1:])


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.sampled_from(["blocks", r"\d", r".*", r"\.", "[a-m_]+", "q", "(q|k)?", "日本"]), max_size=5).map(
        "".join
    )
)
def test_it_is_what_re_says(pattern: str):
    names = [*NAMES, "", "日本.1", "a\nb", "blocks", "\ud800"]
    assert matches([pattern], names) == {pattern: {n for n in names if re.fullmatch(pattern, n)}}


def test_nothing_is_asked_for_no_patterns():
    assert matches([], NAMES) == {}


@pytest.mark.parametrize("text", ["(", "*a", "a{2,1}", "(?P<a", "(" * 3000 + ")" * 3000, "a{99999999999999999999}"])
def test_what_is_no_regular_expression(text: str):
    with pytest.raises(PatternError, match="is no regular expression"):
        require_patterns([".*", text])


@pytest.mark.parametrize("pattern", [ENDLESS, r"(a|aa|.)+!", r"(.*)*(.*)*(.*)*x"])
def test_a_pattern_that_never_ends_is_named(pattern: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lyco_core.patterns, "SECONDS", 0.7)
    begun = time.monotonic()
    with pytest.raises(PatternError, match=r"takes over 0\.7 s to match 1 names") as caught:
        matches([".*", pattern, "b"], ["a" * 60])
    assert str(caught.value).startswith(f"'{pattern}' takes")  # its backslashes as they are
    assert time.monotonic() - begun < 5


def test_whoever_takes_patterns_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lyco_core.patterns, "SECONDS", 0.25)
    names = {0: ("blocks.0." + "a" * 60,)}
    with pytest.raises(SelectionError, match="takes over"):
        Selection.of([ENDLESS]).choose(names)
    with pytest.raises(SelectionError, match="takes over"):
        Selection.of([ENDLESS]).strengths(names)
    shapes = {f"blocks.0.self_attn.{x}.weight": (64, 64) for x in "qkvo"}
    weights = Model(shapes, "", ARCHITECTURES["wan"], "comfyui")
    with pytest.raises(TrainError, match="takes over"):
        choose_targets(weights, NetworkOptions(exclude_patterns=(r"(((.+)+)+)+!",)))


@pytest.mark.parametrize("program", ["/nonexistent/python", "", None])
def test_a_python_that_cannot_start_is_told(program: str | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lyco_core.patterns.sys, "executable", program)
    with pytest.raises(PatternError, match=r"patterns (failed|are matched by a Python)|matches patterns failed"):
        matches([".*"], NAMES)


def test_a_worker_that_nobody_waits_for_ends():
    """As when ComfyUI is killed meanwhile: its ends of the pipes are closed, and nobody stops the process."""
    command = [sys.executable, "-I", "-S", str(lyco_core.patterns._WORKER)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    worker.stdin.write(json.dumps([0.5, [ENDLESS], ["a" * 60]]).encode())
    try:
        for pipe in (worker.stdin, worker.stdout, worker.stderr):
            pipe.close()
        assert worker.wait(timeout=60) == 1
    finally:
        worker.kill()


def test_what_pythons_start_takes_is_not_the_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    slow = tmp_path / "slow.py"
    slow.write_text(
        f"import runpy, time; time.sleep(1.5); runpy.run_path({str(lyco_core.patterns._WORKER)!r})['main']()"
    )
    monkeypatch.setattr(lyco_core.patterns, "SECONDS", 1.0)
    monkeypatch.setattr(lyco_core.patterns, "_WORKER", slow)
    assert matches([r"blocks\.1\..*"], NAMES) == {r"blocks\.1\..*": {"blocks.1.self_attn.q"}}


def test_a_worker_that_never_starts_or_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script = tmp_path / "script.py"
    monkeypatch.setattr(lyco_core.patterns, "_WORKER", script)
    script.write_text("raise SystemExit('no memory')")
    with pytest.raises(PatternError, match="the process that matches patterns failed: no memory"):
        matches([".*"], NAMES)
    monkeypatch.setattr(lyco_core.patterns, "SECONDS", 0.2)
    monkeypatch.setattr(lyco_core.patterns, "START_SECONDS", 0.3)
    script.write_text("import time; time.sleep(60)")
    with pytest.raises(PatternError, match=r"did not start within 0\.3 s"):
        matches([".*"], NAMES)
