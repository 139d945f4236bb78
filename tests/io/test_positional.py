"""Reading at a place from several threads, with preadv and as on Windows, which has none."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lyco_core.io import positional
from lyco_core.io.positional import SharedFile

DATA = bytes(range(251)) * 40


@pytest.fixture(params=["preadv", "turns"])
def file(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if request.param == "turns":
        monkeypatch.delattr(os, "preadv", raising=False)
    monkeypatch.setattr(positional, "READ_BYTES", 97)
    (tmp_path / "a").write_bytes(DATA)
    with SharedFile(tmp_path / "a") as opened:
        yield opened


def read(file: SharedFile, offset: int, size: int) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: file.read_at(memoryview(buffer), offset)])


def test_threads_read_each_their_own(file: SharedFile):
    places = [(start, size) for start in range(0, len(DATA), 211) for size in (1, 96, 97, 98, 1000)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda place: read(file, *place), places * 4))
    assert found == [DATA[start : start + size] for start, size in places * 4]


def test_the_end_of_the_file(file: SharedFile):
    assert read(file, len(DATA) - 3, 10) == DATA[-3:]
    assert read(file, len(DATA) + 3, 10) == b""


def test_a_turn_at_one_file_is_none_at_another(file: SharedFile, tmp_path: Path):
    (tmp_path / "b").write_bytes(b"other")
    with file._turn, SharedFile(tmp_path / "b") as other:
        assert read(other, 1, 4) == b"ther"
