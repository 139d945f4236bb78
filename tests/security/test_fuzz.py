"""Whatever the bytes: success, or one good line. `fuzz.py` does the same for as long as one likes."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lyco_testing import hostile_files
from lyco_testing.hostile import examine, file_of, within

EXAMPLES = int(os.environ.get("LYCO_FUZZ_EXAMPLES", "100"))
"""By hand, as many as one has time for."""

bounded = settings(
    max_examples=EXAMPLES,
    derandomize=EXAMPLES == 100,  # the same ones each time, so that nothing fails by chance
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "a.safetensors"


def examined(path: Path, data: bytes, config: str | None = None) -> None:
    path.write_bytes(data)
    beside = path.with_name("adapter_config.json")
    beside.unlink(missing_ok=True)
    if config is not None:
        beside.write_text(config)
    with within(10):
        examine(path)


@bounded
@given(st.binary(max_size=300))
def test_any_bytes(path: Path, data: bytes):
    examined(path, data)


@bounded
@given(hostile_files.damaged())
def test_good_files_that_were_damaged(path: Path, data: bytes):
    examined(path, data)


@bounded
@given(hostile_files.headers)
def test_headers(path: Path, data: bytes):
    examined(path, data)


@settings(bounded, max_examples=3 * EXAMPLES)
@given(hostile_files.adapter_files)
def test_adapters(path: Path, data: bytes):
    examined(path, data)


@settings(bounded, max_examples=2 * EXAMPLES)
@given(hostile_files.notes, st.none() | hostile_files.configs, st.sampled_from(["lora", "lokr"]))
def test_notes_and_configurations(path: Path, notes: dict[str, str], config: str | None, algorithm: str):
    examined(path, file_of(hostile_files.PEFT[algorithm].items(), notes), config)
