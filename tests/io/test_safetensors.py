"""Reading and writing beside the safetensors library, and every way a file can be broken."""

import json
import os
import pickle
import signal
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lyco_core.errors import FileError
from lyco_core.io import SafetensorsFile, TensorSpec, read_header, write_safetensors
from lyco_core.io.reader import TORCH_DTYPES

DTYPES = [d for d in TORCH_DTYPES.values() if d != torch.bool]


def write(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None, **options: bool):
    specs = [TensorSpec(key, tuple(t.shape), t.dtype) for key, t in tensors.items()]
    write_safetensors(path, specs, iter(tensors.values()), metadata, **options)


def read(path: Path) -> dict[str, torch.Tensor]:
    with SafetensorsFile(path) as file:
        return {key: file.tensor(key) for key in file.header.tensors}


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (
        a.dtype == b.dtype and a.shape == b.shape and a.flatten().view(torch.uint8).equal(b.flatten().view(torch.uint8))
    )


tensors = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=3)),
    max_size=6,
)


@settings(max_examples=80, deadline=None)
@given(tensors, st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3))
def test_round_trips_with_the_library(tmp_path_factory: pytest.TempPathFactory, shapes, metadata):
    made = {k: torch.randint(0, 99, shape).to(dtype) for k, (dtype, shape) in shapes.items()}
    ours, theirs = (tmp_path_factory.mktemp("io") / name for name in ("ours", "theirs"))
    write(ours, made, metadata)
    save_file(made, theirs, metadata or None)
    # Of no tensors the library writes no JSON before 0.4.4.
    for path in (ours, theirs) if made else (ours,):
        assert all(equal(made[k], t) for k, t in read(path).items())
        assert all(equal(made[k], t) for k, t in load_file(path).items())
        assert dict(read_header(path).metadata) == metadata
        with safe_open(path, "pt") as file:
            assert (file.metadata() or {}) == metadata


def test_outline_reads_no_data(tmp_path: Path):
    write(tmp_path / "a", {"w": torch.ones(3, 4, dtype=torch.bfloat16)})
    with SafetensorsFile(tmp_path / "a") as file:
        outline = file.outline("w")
    assert outline.is_meta
    assert (tuple(outline.shape), outline.dtype) == ((3, 4), torch.bfloat16)


def test_header_of_a_5_gb_file_is_read_alone(tmp_path: Path):
    """A sparse file: reading its 5 GB would take seconds and memory."""
    table = {"w": {"dtype": "BF16", "shape": [5 * 2**29], "data_offsets": [0, 5 * 2**30]}}
    path = tmp_path / "big"
    raw(path, table, b"")
    os.truncate(path, path.stat().st_size + 5 * 2**30)
    assert read_header(path).tensors["w"].bytes == 5 * 2**30


def raw(path: Path, table: object, data: bytes) -> Path:
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(start: int, stop: int, shape: tuple[int, ...] = (1,), dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


BROKEN = {
    "empty": (b"", "is empty"),
    "three bytes": (b"\0\0\0", "cut off or not a safetensors file"),
    "header longer than the file": (struct.pack("<Q", 1000) + b"{}", "header should be 1000 bytes, the file has 2"),
    "absurd length": (b"\xff" * 16, "header should be"),
    "small pickle": (pickle.dumps({"a": 1}, protocol=2), "is a pickle"),
    "pickle of protocol 4": (pickle.dumps(["a" * 100], protocol=4), "is a pickle"),
    "pickle": (b"\x80\x02}q\x00.aaaaaaaaaaaa", "is a pickle"),
    "zip": (b"PK\x03\x04aaaaaaaaaaaaaaaa", "a zip archive, expected safetensors; unpack it"),
    "gguf": (b"GGUF\x03\x00\x00\x01aaaaaaa", "a GGUF file"),
    "html": (b"<!DOCTYPE html><html>", "a web page"),
}
CONTRADICTIONS = {
    "not JSON": (b"{nope", "not JSON"),
    "deep JSON": (b"[" * 100_000, "not JSON"),
    "not an object": ([1], "not a JSON object"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, "not a table of strings"),
    "no dtype": ({"w": {"shape": [1], "data_offsets": [0, 4]}}, "w: its entry"),
    "negative shape": ({"w": entry(0, 4, (-1,))}, "w: its entry"),
    "boolean shape": ({"w": entry(0, 4, (True,))}, "w: its entry"),
    "a shape beyond 64 bits": ({"w": entry(0, 0, (0, 2**62, 2**40))}, "w: its entry"),
    "one offset": ({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, "w: its entry"),
    "an entry that is a list": ({"w": [1, 2]}, "w: its entry"),
    "wrong size": ({"w": entry(0, 4, (2,))}, r"w: F32 \[2\] takes 8 bytes, the header gives it 4"),
    "overlap": ({"a": entry(0, 4), "b": entry(2, 6)}, "b: its data begins at byte"),
    "hole": ({"a": entry(0, 4), "b": entry(8, 12)}, "leave a hole"),
    "backwards": ({"a": entry(4, 0, (0,))}, "a: "),
    "cut off": ({"a": entry(0, 400, (100,))}, "is cut off"),
    "more after it": ({"a": entry(0, 4)}, "has something after its last tensor"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(name: str, tmp_path: Path):
    content, message = BROKEN[name]
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(content)
    with pytest.raises(FileError, match=f"^adapter.safetensors: .*{message}"):
        read_header(path)


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_headers_that_contradict_themselves(name: str, tmp_path: Path):
    table, message = CONTRADICTIONS[name]
    path = raw(tmp_path / "adapter.safetensors", table, b"\0" * 12)
    with pytest.raises(FileError, match=f"^adapter.safetensors: .*{message}") as caught:
        SafetensorsFile(path)
    assert "\n" not in str(caught.value)


def test_a_header_beyond_the_formats_limit_is_not_read(tmp_path: Path):
    path = raw(tmp_path / "a", {}, b"")
    path.write_bytes(struct.pack("<Q", 100_000_001) + b"{}")
    os.truncate(path, 200_000_000)
    with pytest.raises(FileError, match="the format allows 100000000"):
        read_header(path)


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path):
    path = tmp_path / "a"
    write(path, {"w": torch.ones(100)})
    with SafetensorsFile(path) as file:
        os.truncate(path, path.stat().st_size - 8)
        with pytest.raises(FileError, match="w: 392 of 400 bytes are left"):
            file.tensor("w")


@pytest.mark.skipif(os.name == "nt", reason="Windows lets nobody replace a file that is open")
def test_a_file_that_is_replaced_while_it_is_read(tmp_path: Path):
    path = tmp_path / "a"
    write(path, {"w": torch.ones(100)})
    with SafetensorsFile(path) as file:
        write(path, {"w": torch.zeros(100)}, overwrite=True)
        assert file.tensor("w").eq(1).all()


def test_a_header_whose_length_looks_like_a_pickle(tmp_path: Path):
    """0x80, with which pickles begin, is a good low byte for a length."""
    path = raw(tmp_path / "a", b"{}" + b" " * 126, b"")
    assert path.read_bytes()[0] == 0x80
    assert read_header(path).tensors == {}


def test_unreadable_dtype_is_named(tmp_path: Path):
    path = raw(tmp_path / "a", {"w": entry(0, 2, (4,), "F4")}, b"\0\0")
    with SafetensorsFile(path) as file, pytest.raises(FileError, match="a: w: dtype F4"):
        file.tensor("w")


def test_missing_file_and_folder(tmp_path: Path):
    with pytest.raises(FileError, match=r"none\.safetensors: cannot be read: No such file"):
        read_header(tmp_path / "none.safetensors")
    with pytest.raises(FileError, match="is a folder; name a file"):
        read_header(tmp_path)


def test_nothing_is_overwritten_unasked(tmp_path: Path):
    path = tmp_path / "a"
    path.write_text("mine")
    with pytest.raises(FileError, match="a: is there already"):
        write(path, {"w": torch.ones(1)})
    assert path.read_text() == "mine"
    write(path, {"w": torch.ones(1)}, overwrite=True)
    assert list(read(path)) == ["w"]


def test_a_folder_is_not_a_name(tmp_path: Path):
    with pytest.raises(FileError, match="is a folder"):
        write(tmp_path, {}, overwrite=True)


@pytest.mark.parametrize("fault", [RuntimeError("broke"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_write_that_fails(fault: BaseException, tmp_path: Path):
    def tensors():
        yield torch.ones(4)
        raise fault

    specs = [TensorSpec("a", (4,), torch.float32), TensorSpec("b", (4,), torch.float32)]
    with pytest.raises(type(fault)):
        write_safetensors(tmp_path / "out", specs, tensors())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path):
    resource = pytest.importorskip("resource", reason="this system knows no limits")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    program = (
        "import torch; from lyco_core.io import *; "
        "write_safetensors('out', [TensorSpec('w', (2**20,), torch.float32)], [torch.ones(2**20)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        preexec_fn=limit,
        capture_output=True,
        text=True,
    )
    assert "FileError: out: cannot be written: File too large; nothing is left of it" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_permissions_are_those_of_any_new_file(tmp_path: Path):
    write(tmp_path / "a", {"w": torch.ones(1)})
    (tmp_path / "b").touch()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)


def test_an_announced_tensor_must_come(tmp_path: Path):
    with pytest.raises(ValueError, match="announced"):
        write_safetensors(tmp_path / "a", [TensorSpec("w", (2,), torch.float32)], [torch.ones(3)])
    assert list(tmp_path.iterdir()) == []
