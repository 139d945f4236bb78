"""A file that is written whole is not lost over its name, and what a killed write leaves is cleared."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lyco_testing.checkpoints import shard, weights
from lyco_testing.tables import GOLDEN
from safetensors.torch import load_file

from lyco_core.errors import FileError, OutputError
from lyco_core.io import TensorSpec, new_file, write_safetensors
from lyco_core.io.hidden import clear_leftovers, hidden_name
from lyco_core.io.output import new_files
from lyco_core.merging import Source, merge_checkpoint

ROOT = Path(__file__).parents[2]
WINDOWS = os.name == "nt"


def write(path: Path, value: float = 1.0, *, overwrite: bool = False) -> None:
    write_safetensors(path, [TensorSpec("w", (4,), torch.float32)], [torch.full((4,), value)], overwrite=overwrite)


@pytest.fixture(params=["nameless", "hidden"], autouse=True)
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Files without a name, or as everywhere but on Linux."""
    if request.param == "hidden":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("this system has no nameless files")
    return request.param


def refused(monkeypatch: pytest.MonkeyPatch, error: OSError, times: float) -> list[float]:
    """Let the system refuse that many renames; the waits that this takes, which are not waited."""
    left, waited, replace = [times], [], os.replace

    def refusing(old: str, new: str) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise error
        replace(old, new)

    monkeypatch.setattr(new_file.os, "replace", refusing)
    monkeypatch.setattr(new_file.time, "sleep", waited.append)
    return waited


DENIED = PermissionError(errno.EACCES, "Access is denied")
MAPPED = OSError(errno.EINVAL, "The requested operation cannot be performed on a file with a user-mapped section open")
MAPPED.winerror = 1224
HELD = [DENIED, PermissionError(errno.EPERM, "Operation not permitted"), OSError(errno.EBUSY, "Device busy"), MAPPED]


@pytest.mark.parametrize("error", HELD, ids=str)
def test_a_refused_rename_is_tried_again(error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    waited = refused(monkeypatch, error, 4)
    write(tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]
    assert load_file(tmp_path / "a")["w"].eq(1).all()
    assert waited == [0.05, 0.1, 0.2, 0.4]


@pytest.mark.parametrize("error", HELD, ids=str)
def test_one_that_stays_refused_keeps_the_file(error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "a")
    waited = refused(monkeypatch, error, float("inf"))
    with pytest.raises(OutputError) as caught:
        write(tmp_path / "a", 2.0, overwrite=True)
    assert 5 < sum(waited) < 10
    kept = caught.value.kept
    assert str(caught.value) == (
        f"a: cannot be given its name ({error.strerror}); does another program have it open? All of it is kept in "
        f"{tmp_path}; rename {kept.name} to a"
    )
    assert sorted(os.listdir(tmp_path)) == sorted([kept.name, "a"])
    assert load_file(tmp_path / "a")["w"].eq(1).all()
    monkeypatch.undo()
    write(tmp_path / "b")  # which clears what is left of killed writes
    kept.replace(tmp_path / "a")
    assert load_file(tmp_path / "a")["w"].eq(2).all()


def test_an_error_that_will_not_pass_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    waited = refused(monkeypatch, OSError(errno.EIO, "Input/output error"), float("inf"))
    with pytest.raises(OutputError, match=r"\(Input/output error\)"):
        write(tmp_path / "a")
    assert waited == []


def test_who_does_not_wait_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    refused(monkeypatch, DENIED, float("inf"))
    monkeypatch.setattr(new_file.time, "sleep", interrupt)
    with pytest.raises(OutputError, match=r"a: cannot be given its name \(interrupted\)") as caught:
        write(tmp_path / "a")
    assert load_file(caught.value.kept)["w"].eq(1).all()


def test_shards_that_are_left_are_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The second cannot be replaced: it, what comes after it and the index wait for their names."""
    shard(weights(), tmp_path / "base", 3)
    source = Source(GOLDEN / "wan_t2v" / "lora.safetensors")
    (tmp_path / "expected").mkdir()
    (tmp_path / "out").mkdir()
    name = "model.safetensors.index.json"
    merge_checkpoint(tmp_path / "base", [source], tmp_path / "expected" / name)
    replace = os.replace
    monkeypatch.setattr(new_file, "WAITS", ())
    monkeypatch.setattr(
        new_file.os, "replace", lambda a, b: held() if b.endswith("00002-of-00003.safetensors") else replace(a, b)
    )

    def held() -> None:
        raise DENIED

    with pytest.raises(OutputError, match=r"model-00002-of-00003\.safetensors: cannot be given its name") as caught:
        merge_checkpoint(tmp_path / "base", [source], tmp_path / "out" / name)
    pairs = [pair.split(" to ") for pair in str(caught.value).partition("; rename ")[2].split(", ")]
    assert [new for _, new in pairs] == ["model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors", name]
    assert caught.value.kept == tmp_path / "out" / pairs[0][0]
    monkeypatch.undo()
    for old, new in pairs:
        os.rename(tmp_path / "out" / old, tmp_path / "out" / new)
    for path in (tmp_path / "expected").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
    assert json.loads((tmp_path / "out" / name).read_text())["weight_map"]


@pytest.mark.parametrize("code", ["EPERM", "EOPNOTSUPP", "ENOSYS", "EMLINK", "EXDEV"])
def test_a_disk_that_names_no_nameless_file(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(getattr(errno, code), "refused")

    monkeypatch.setattr(new_file.os, "link", refuse, raising=False)
    write(tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]
    assert load_file(tmp_path / "a")["w"].eq(1).all()


def test_a_file_begins_with_zeros_until_it_is_whole(tmp_path: Path):
    with new_files([tmp_path / "a"]) as (file,):
        file.write(b"0123456789", 0)
        file.write(b"abc", 10)
        assert os.pread(file.fd, 99, 0) == bytes(8) + b"89abc" if not WINDOWS else True
    assert (tmp_path / "a").read_bytes() == b"0123456789abc"
    with new_files([tmp_path / "b"]) as (file,):
        file.write(b"012", 0)
    assert (tmp_path / "b").read_bytes() == b"012"


BEGUN = """
import os, sys, time
if hasattr(os, "O_TMPFILE"): del os.O_TMPFILE
from lyco_core.io.output import new_files
with new_files(["begun.safetensors"]) as (file,):
    file.write(b"x" * 1000, 0)
    print("written", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def begun(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in the middle of a write into `tmp_path`, with a hidden file."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{BEGUN}"  # Windows' portable Python knows no PYTHONPATH
    process = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=environment, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline().strip() == b"written"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_what_a_killed_write_leaves_is_cleared(begun: "subprocess.Popen[bytes]", tmp_path: Path):
    (hidden,) = os.listdir(tmp_path)
    others = [f".lyco-{'0' * 4}-{'0' * 8}.tmp", ".begun.safetensors.0a1b2c3d.tmp", hidden_name()]
    for name, data in zip(others, (bytes(99), bytes(99), b"whole".ljust(99)), strict=True):
        (tmp_path / name).write_bytes(data)  # another computer's, another program's, and one that is kept
    write(tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == sorted([hidden, *others, "a"])
    begun.kill()
    begun.wait()
    write(tmp_path / "b")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "a", "b"])


def test_what_this_process_writes_is_not_cleared(tmp_path: Path, disk: str):
    with new_files([tmp_path / "a"]) as (file,):
        file.write(b"x" * 100, 0)
        clear_leftovers(str(tmp_path))
        write(tmp_path / "b")
        assert len(os.listdir(tmp_path)) == (2 if disk == "hidden" else 1)
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert (tmp_path / "a").read_bytes() == b"x" * 100


@pytest.mark.skipif(not WINDOWS, reason="only Windows refuses to replace a file that is open")
def test_a_file_that_another_program_has_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(new_file, "WAITS", (0.1, 0.1))
    write(tmp_path / "a")
    with (tmp_path / "a").open("rb"), pytest.raises(OutputError, match="does another program have it open") as caught:
        write(tmp_path / "a", 2.0, overwrite=True)
    caught.value.kept.replace(tmp_path / "a")
    assert load_file(tmp_path / "a")["w"].eq(2).all()


def test_a_write_that_fails_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(new_file.os, "fsync", full)
    with pytest.raises(FileError, match="the disk is full; nothing is left of it") as caught:
        write(tmp_path / "a")
    assert not isinstance(caught.value, OutputError)
    assert os.listdir(tmp_path) == []
