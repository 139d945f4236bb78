"""Two processes with a batch of one each are one process with a batch of two, also if they divide the model's blocks;
which devices they may be on.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from lyco_testing.distributed_training import main

from lyco_core.errors import TrainError
from lyco_core.train.distributed import accelerator, join

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "support" / "lyco_testing" / "distributed_training.py"

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="this torch has no gloo"
)


def start(folder: Path, processes: int, batch_size: int, items: int, *more: str) -> "subprocess.Popen[str]":
    by = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    places = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    return subprocess.Popen(
        [sys.executable, *by, str(SCRIPT), str(folder), str(batch_size), str(items), *more],
        env=os.environ | {"PYTHONPATH": places, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process leaves of 3 items, and what two do, so that in every other batch the second has nothing."""
    folder = tmp_path_factory.mktemp("distributed")
    for name in ("one", "two", "shard"):
        (folder / name).mkdir()
    processes = [start(folder / "two", 2, 1, 3), start(folder / "shard", 2, 1, 3, "shard")]
    main(folder / "one", 2, 3)  # in this one, meanwhile
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
    return folder


def left(place: Path, *names: str) -> list[Any]:
    """What each of some processes has left."""
    return [torch.load(place / f"{name}.pt", weights_only=True) for name in names]


def test_two_processes_are_one_of_twice_the_batch(place: Path):
    one, *two = left(place, "one/0", "two/0", "two/1")
    for found in two:
        for told, expected in zip(found["told"], one["told"], strict=True):
            assert told == pytest.approx(expected, rel=1e-4)
        for key, tensor in one["parameters"].items():
            assert float((found["parameters"][key] - tensor).norm()) <= 1e-4 * float(tensor.norm()), key
            assert torch.equal(found["parameters"][key], two[0]["parameters"][key])
    names = {path.name for path in (place / "two" / "output 0").iterdir()}
    assert names == {f"x{n}{e}" for n in ("", "-step00000005") for e in (".safetensors", "-state.pt")} | {"x.jsonl"}
    assert not list((place / "two" / "output 1").iterdir())


def test_with_the_blocks_divided_they_learn_the_same_bit_for_bit(place: Path):
    """Though the processes have different numbers of passes in a batch, and of items that are only tried."""
    two, *shard = left(place, "two/0", "shard/0", "shard/1")
    for found in shard:
        assert found["told"] == two["told"]
        assert found["parameters"].keys() == two["parameters"].keys()
        assert all(torch.equal(found["parameters"][key], tensor) for key, tensor in two["parameters"].items())
        assert found["copied"] == shard[0]["copied"] > two["copied"]


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    return monkeypatch


class Device:
    """What torch, or a package that adds to it, has for an accelerator that is here."""

    @staticmethod
    def is_available() -> bool:
        return True


@pytest.mark.parametrize("name", ["xpu", "npu", "mlu"])
def test_other_accelerators_are_seen_and_train_in_one_process(name: str, no_gpu: pytest.MonkeyPatch):
    assert accelerator() is None
    no_gpu.setattr(torch, name, Device, raising=False)
    assert accelerator() == name
    with pytest.raises(TrainError, match=f"several processes train on CUDA's GPUs or on the CPU, and here is {name}"):
        join()
    no_gpu.setenv("WORLD_SIZE", "1")
    assert join().processes == 1


@pytest.mark.parametrize(("nccl", "expected"), [(True, "nccl"), (False, "gloo")])
def test_windows_torch_has_no_nccl(nccl: bool, expected: str, no_gpu: pytest.MonkeyPatch):
    begun: list[str] = []
    no_gpu.setattr(torch.cuda, "is_available", lambda: True)
    no_gpu.setattr(torch.cuda, "set_device", lambda number: None)
    no_gpu.setattr(torch.distributed, "is_nccl_available", lambda: nccl)
    no_gpu.setattr(torch.distributed, "init_process_group", lambda backend, timeout: begun.append(backend))
    no_gpu.setattr(torch.distributed, "get_rank", lambda: 1)
    no_gpu.setattr(torch.distributed, "get_world_size", lambda: 2)
    assert join().rank == 1
    assert begun == [expected]
