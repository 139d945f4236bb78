"""Memory holds a few modules of the files, and some megabytes of the result; whatever happens meanwhile is noticed."""

import os
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lyco_testing.disks import mounted
from lyco_testing.tables import lokr, musubi_file, random
from safetensors.torch import load_file, save_file

import lyco_core as lyco
from lyco_core.combining import Average, made
from lyco_core.errors import FileError, LycoError
from lyco_core.io import SafetensorsFile

MODULES = {f"blocks.{n}.self_attn.{x}": (64, 64) for n in range(10) for x in "qkvo"}


def files(folder: Path, *algorithms: str) -> list[Path]:
    """One each, of one training by what they say."""
    torch.manual_seed(0)
    paths = [folder / f"{n}.safetensors" for n in range(len(algorithms))]
    for path, algorithm in zip(paths, algorithms, strict=True):
        save_file(musubi_file(MODULES, algorithm, random), path, {"ss_session_id": "1"})
    return paths


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every module goes to the disk as soon as it is made."""
    monkeypatch.setattr(made, "IN_MEMORY", 0)


@pytest.mark.usefixtures("on_disk")
@pytest.mark.parametrize("names", [("lora", "lora"), ("lora", "lokr")])
def test_a_few_modules_are_in_memory_at_once(names: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of those that are read, whether they become others or stay what they are (the second file has one in four)."""
    one, two = files(tmp_path, *names)
    save_file({key: t for key, t in load_file(two).items() if "self_attn_q" in key}, two)
    read: list[weakref.ref[torch.Tensor]] = []
    tensor = SafetensorsFile.tensor

    def seen(file: SafetensorsFile, key: str) -> torch.Tensor:
        found = tensor(file, key)
        if found.dim():
            read.append(weakref.ref(found))
        return found

    monkeypatch.setattr(SafetensorsFile, "tensor", seen)
    alive: list[int] = []
    lyco.combine(
        {one: 0.5, two: 1.0},
        tmp_path / "out.safetensors",
        progress=lambda done, total: alive.append(sum(ref() is not None for ref in read)),
    )
    assert len(read) == len(MODULES) * 2 + len(MODULES) // 4 * (2 if names[1] == "lora" else 3), "each once"
    assert max(alive) <= 24, "four modules of each file, of two or three tensors"


CASES = {
    "sum": {},
    "lora to comfyui": {"algorithm": "lora", "to": "comfyui"},
    "to musubi": {"to": "musubi"},
    "to diffusers": {"to": "diffusers"},
    "ties": {"method": "ties", "rank": 4},
    "average": {"average": Average()},
    "bfloat16": {"dtype": torch.bfloat16},
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_what_waited_on_the_disk_is_what_was_in_memory(options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one, two = files(tmp_path, "lora", "lora" if "average" in options else "lokr")
    given = [one, two] if "average" in options else {one: 0.8, two: -0.5}
    plain, moved = tmp_path / "plain.safetensors", tmp_path / "moved.safetensors"
    lyco.combine(given, plain, **options)
    monkeypatch.setattr(made, "IN_MEMORY", 1000)
    before, seen = sorted(os.listdir(tmp_path)), set()
    found = lyco.combine(given, moved, progress=lambda done, total: seen.add(len(os.listdir(tmp_path))), **options)
    if os.name != "nt":
        assert seen == {len(before)}, "the file that it waits in has no name"
    assert moved.read_bytes() == plain.read_bytes()
    assert sorted(os.listdir(tmp_path)) == sorted([*before, moved.name])
    for path, adapter in lyco.load(moved).adapters.items():  # what is returned still has its numbers
        theirs = found.adapter_set.adapters[path].tensors
        assert all(torch.equal(theirs[name], tensor) for name, tensor in adapter.tensors.items())


def _written_over(path: Path, other: bytes) -> None:
    path.write_bytes(other)


def _replaced(path: Path, other: bytes) -> None:
    path.with_suffix(".new").write_bytes(other)
    path.with_suffix(".new").replace(path)


def _cut_off(path: Path, other: bytes) -> None:
    os.truncate(path, path.stat().st_size - 100)


@pytest.mark.usefixtures("on_disk")
@pytest.mark.parametrize("change", [_written_over, _replaced, _cut_off])
@pytest.mark.parametrize("at", [0, 7, len(MODULES)])
def test_a_file_that_changes_meanwhile_is_refused(change: Callable[[Path, bytes], None], at: int, tmp_path: Path):
    """Before its first module, between two, and after its last."""
    one, two, other = files(tmp_path, "lora", "lora", "lora")
    numbers = other.read_bytes()
    other.unlink()
    with pytest.raises(FileError, match=r"^1\.safetensors: changed while it was read; try again") as caught:
        lyco.combine(
            [one, two],
            tmp_path / "out.safetensors",
            progress=lambda done, total: change(two, numbers) if done == at else None,
        )
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["0.safetensors", "1.safetensors"]


def test_a_number_that_is_none_is_seen_before_the_work(tmp_path: Path):
    one, two = files(tmp_path, "lora", "lokr")
    tensors = load_file(two)
    tensors[max(tensors)].view(-1)[-1] = torch.nan
    save_file(tensors, two)
    begun: list[int] = []
    with pytest.raises(LycoError, match=r"^1\.safetensors: .*lokr_w2_b: 1 of its .* are NaN or infinite"):
        lyco.combine([one, two], tmp_path / "out.safetensors", progress=lambda done, total: begun.append(done))
    assert not begun
    assert sorted(os.listdir(tmp_path)) == ["0.safetensors", "1.safetensors"]


@pytest.mark.usefixtures("on_disk")
def test_who_interrupts_leaves_nothing(tmp_path: Path):
    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), torch.inference_mode():
        lyco.combine(files(tmp_path, "lora", "lokr"), tmp_path / "out.safetensors", progress=interrupt)
    assert sorted(os.listdir(tmp_path)) == ["0.safetensors", "1.safetensors"]


@pytest.mark.usefixtures("on_disk")
def test_a_full_disk_is_a_line_that_names_the_folder(tmp_path: Path):
    place = tmp_path / "disk"
    place.mkdir()
    pair = files(tmp_path, "lora", "lora")
    with mounted(place, 'mount -t tmpfs -o size=64k tmpfs "$0"') as there:
        with pytest.raises(
            FileError, match=r"^out\.safetensors: what is made so far cannot be kept in .*disk: the disk is full; free"
        ) as caught:
            lyco.combine(pair, there / "out.safetensors")
        assert "\n" not in str(caught.value)
        assert os.listdir(there) == []


def test_a_sum_that_is_no_adapter_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(made, "MOST_EXACT", 20_000)
    with pytest.raises(LycoError, match=r"the exact sum takes more than .*; say how small it is to be"):
        lyco.combine(files(tmp_path, "lora", "lora"), tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_module_that_is_there_twice_is_read_whole_and_decided_by_numbers(tmp_path: Path):
    """LoKr under two names: the one that is not zero counts; where they contradict each other, neither."""
    one, two = files(tmp_path, "lora", "lokr")
    torch.manual_seed(1)
    again = lokr("diffusion_model.blocks.0.self_attn.q", 64, 64, random)
    tensors = {key: t for key, t in load_file(two).items() if "blocks_0_self_attn_q" not in key}
    zero = {key: torch.zeros_like(t) if "w2" in key else t for key, t in again.items()}
    other = {f"lora_unet_blocks_0_self_attn_q.{key.rpartition('.')[2]}": t.clone() for key, t in again.items()}
    save_file(zero | tensors | other, two)
    out = tmp_path / "out.safetensors"
    lyco.combine([one, two], out)
    key = "diffusion_model.blocks.0.self_attn.q.weight"
    expected = lyco.delta(one)[key].double() + lyco.delta(two)[key]
    assert float((lyco.delta(out)[key] - expected).norm() / expected.norm()) < 2e-6
    save_file(again | tensors | {key: t * 2 for key, t in other.items()}, two)
    with pytest.raises(LycoError, match=r"^1\.safetensors: .*the same module is there twice"):
        lyco.combine([one, two], out, overwrite=True)
