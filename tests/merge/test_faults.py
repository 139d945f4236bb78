"""What goes wrong, by doing it: nothing under the final name unless it is whole, and one line that says why."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lyco_testing.checkpoints import shard, weights
from lyco_testing.disks import mounted
from lyco_testing.links import symlink
from lyco_testing.tables import GOLDEN
from safetensors.torch import load_file, save_file

from lyco_core.cli import main
from lyco_core.errors import LycoError, PlacementError
from lyco_core.merging import Source, merge_checkpoint

ROOT = Path(__file__).parents[2]
ADAPTER = GOLDEN / "wan_t2v" / "lora.safetensors"
PADDING = 100_000_000
"""Bytes beside the weights, so that writing takes long enough to be stopped."""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    torch.manual_seed(0)
    shapes = {k: t.shape for k, t in load_file(ADAPTER.with_suffix(".expected.safetensors")).items()}
    tensors = {key: torch.randn(shape) for key, shape in shapes.items()}
    return checkpoint(folder / "base.safetensors", tensors)


def checkpoint(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """Of `tensors` and, behind them, as many zeros as `PADDING` says, which no disk has to hold."""
    save_file(tensors, path)
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    large = {"dtype": "U8", "shape": [PADDING], "data_offsets": [len(data), len(data) + PADDING]}
    text = json.dumps(header | {"vae.large": large}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    os.truncate(path, path.stat().st_size + PADDING)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "merged.safetensors"


def command(base: Path, out: Path) -> list[str]:
    words = [sys.executable, str(ROOT / "lyco_core"), "merge", "--base", str(base), "--adapter", str(ADAPTER)]
    return [*words, "-o", str(out)]


def written_by(process: "subprocess.Popen[bytes]") -> int:
    """Bytes that a process has written so far."""
    try:
        lines = Path(f"/proc/{process.pid}/io").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs Linux's /proc to see how far a process is")
@pytest.mark.parametrize(("name", "after"), [("SIGKILL", 1), ("SIGKILL", PADDING // 2), ("SIGINT", PADDING // 4)])
def test_killed_while_it_writes(name: str, after: int, base: Path, out: Path):
    kind = signal.Signals[name]  # Windows has no SIGKILL
    process = subprocess.Popen(command(base, out), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    while written_by(process) < after and process.poll() is None:
        time.sleep(0.0005)
    process.send_signal(kind)
    _, errors = process.communicate(timeout=60)
    if process.returncode == 0:  # it was faster than the signal
        assert load_file(out).keys() == load_file(base).keys()
        return
    assert list(out.parent.iterdir()) == []
    if kind == signal.SIGINT and errors:
        assert errors.decode() == "lyco: interrupted; no file is left half written\n"


def test_a_full_disk(base: Path, out: Path):
    """A limit on the size of files stands in for it: the write fails in the middle in the same way."""
    resource = pytest.importorskip("resource", reason="this system knows no limits")
    limit = PADDING // 2

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(command(base, out), preexec_fn=limited, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"lyco: error: {out.name}: cannot be written: File too large; nothing is left of it\n"
    assert list(out.parent.iterdir()) == []


def test_a_disk_that_is_really_full(base: Path, out: Path, capsys: pytest.CaptureFixture[str]):
    with mounted(out.parent, f'mount -t tmpfs -o size={PADDING // 2} tmpfs "$0"') as disk:
        there = disk / out.name
        words = command(base, there)[2:]
        assert main(words) == 1
        assert "MB, the disk has 50.00 MB left; free some, or write elsewhere" in capsys.readouterr().err
        there.write_bytes(b"old")
        assert main([*words, "--overwrite"]) == 1
        assert there.read_bytes() == b"old"
        assert list(disk.iterdir()) == [there]
    assert list(out.parent.iterdir()) == []


def replaced(base: Path) -> None:
    other = base.with_name("other")
    other.write_bytes(base.read_bytes())
    other.replace(base)


def rewritten(base: Path) -> None:
    with base.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"\1" * 100)


def removed(base: Path) -> None:
    base.unlink()


def cut(base: Path) -> None:
    os.truncate(base, base.stat().st_size // 2)


no_windows = pytest.mark.skipif(os.name == "nt", reason="Windows lets nobody replace or remove a file that is open")


@pytest.mark.parametrize(
    "change", [pytest.param(replaced, marks=no_windows), rewritten, pytest.param(removed, marks=no_windows), cut]
)
def test_a_base_that_changes_underneath(change: Callable[[Path], None], base: Path, out: Path):
    changed: list[bool] = []

    def progress(done: int, total: int) -> None:
        if not changed:
            changed.append(True)
            change(base)

    with pytest.raises(LycoError, match=r"base\.safetensors: .*(changed|went away|replaced)"):
        merge_checkpoint(base, [Source(ADAPTER)], out, progress=progress)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "1 of its 2 shards are missing: model-00002-of-00002.safetensors"),
        (cut, "model-00002-of-00002.safetensors: is cut off"),
        (lambda path: path.write_bytes(b""), "model-00002-of-00002.safetensors: is empty"),
    ],
)
def test_a_shard_that_cannot_be_read(damage: Callable[[Path], None], reason: str, tmp_path: Path, out: Path):
    shard(weights(), tmp_path / "base", 2)
    damage(tmp_path / "base" / "model-00002-of-00002.safetensors")
    with pytest.raises(LycoError) as caught:
        merge_checkpoint(tmp_path / "base", [Source(ADAPTER)], out)
    assert reason in str(caught.value)
    assert list(out.parent.iterdir()) == []


def test_outputs_that_would_hurt(base: Path, out: Path):
    symlink(base, out.parent / "link.safetensors")
    os.link(base, out.parent / "hard.safetensors")
    before = base.stat().st_mtime_ns, base.stat().st_size
    for name in ("link.safetensors", "hard.safetensors"):
        with pytest.raises(LycoError, match=rf"{name}: is base\.safetensors, which is read; choose another name"):
            merge_checkpoint(base, [Source(ADAPTER)], out.parent / name, overwrite=True)
    with pytest.raises(LycoError, match="out: is a folder; give the name of a file"):
        merge_checkpoint(base, [Source(ADAPTER)], out.parent, overwrite=True)
    with pytest.raises(LycoError, match=r"lora\.safetensors: is lora\.safetensors, which is read"):
        merge_checkpoint(base, [Source(ADAPTER)], ADAPTER, overwrite=True)
    out.write_bytes(b"old")
    with pytest.raises(LycoError, match=r"merged\.safetensors: is there already; choose another name"):
        merge_checkpoint(base, [Source(ADAPTER)], out)
    assert out.read_bytes() == b"old"
    assert (base.stat().st_mtime_ns, base.stat().st_size) == before


def test_an_adapter_that_does_not_fit(base: Path, out: Path):
    tensors = load_file(ADAPTER)
    renamed = {key.replace("blocks_1_", "blocks_7_"): tensor for key, tensor in tensors.items()}
    save_file(renamed, out.parent / "half.safetensors")
    with pytest.raises(
        PlacementError, match=r"half\.safetensors: \d+ of \d+ modules are not in the model \(lora_unet_"
    ):
        merge_checkpoint(base, [Source(out.parent / "half.safetensors")], out)
    with pytest.raises(PlacementError, match=r"lokr\.safetensors: is an adapter for Z-Image, the base is Wan"):
        merge_checkpoint(base, [Source(GOLDEN / "z_image" / "lokr.safetensors")], out)
    assert not out.exists()
