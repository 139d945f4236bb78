"""What `test_fuzz.py` does, led by coverage for as long as one likes; by hand, as it needs atheris.

    pip install atheris hypothesis torch safetensors     # into an environment of its own
    PYTHONPATH=.:tests/support python tests/security/fuzz.py [CORPUS] -max_total_time=600

What it finds is written to `crash-…`, and belongs into `test_found.py` as a plain test.
"""

import sys
import tempfile
from pathlib import Path

import atheris  # pyright: ignore[reportMissingImports]

with atheris.instrument_imports(include=["lyco_core"]):
    from lyco_testing.hostile import examine, file_of, within

from hypothesis import given, settings
from hypothesis import strategies as st
from lyco_testing import hostile_files

PLACE = Path(tempfile.mkdtemp())


def examined(data: bytes, config: str | None = None) -> None:
    path, beside = PLACE / "a.safetensors", PLACE / "adapter_config.json"
    path.write_bytes(data)
    beside.unlink(missing_ok=True)
    if config is not None:
        beside.write_text(config)
    with within(20):
        examine(path)


def structured(strategy: st.SearchStrategy[bytes]):
    """Hypothesis's own way to make what a strategy makes from a fuzzer's bytes."""
    return settings(database=None, deadline=None)(given(strategy)(lambda data: examined(data))).hypothesis


@settings(database=None, deadline=None)
@given(hostile_files.notes, st.none() | hostile_files.configs)
def noted(notes: dict[str, str], config: str | None):
    examined(file_of(hostile_files.PEFT["lokr" if len(notes) % 2 else "lora"].items(), notes), config)


TARGETS = [
    structured(hostile_files.headers).fuzz_one_input,
    structured(hostile_files.damaged()).fuzz_one_input,
    structured(hostile_files.adapter_files).fuzz_one_input,
    noted.hypothesis.fuzz_one_input,
    examined,
]


def one(data: bytes) -> None:
    TARGETS[data[0] % len(TARGETS) if data else -1](data[1:])


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
