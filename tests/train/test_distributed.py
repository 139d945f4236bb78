"""Two processes with a batch of one each are one process with a batch of two; which devices they may be on."""

import os
import subprocess
import sys
from pathlib import Path

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


def start(folder: Path, processes: int, batch_size: int, items: int) -> "subprocess.Popen[str]":
    by = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    places = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    return subprocess.Popen(
        [sys.executable, *by, str(SCRIPT), str(folder), str(batch_size), str(items)],
        env=os.environ | {"PYTHONPATH": places, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_processes_are_one_of_twice_the_batch(tmp_path: Path):
    """Of 3 items, so that in every other batch the second process has nothing."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    process = start(tmp_path / "two", 2, 1, 3)
    main(tmp_path / "one", 2, 3)  # in this one, meanwhile
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    one, *two = (torch.load(tmp_path / name, weights_only=True) for name in ("one/0.pt", "two/0.pt", "two/1.pt"))
    for found in two:
        for told, expected in zip(found["told"], one["told"], strict=True):
            assert told == pytest.approx(expected, rel=1e-4)
        for key, tensor in one["parameters"].items():
            assert float((found["parameters"][key] - tensor).norm()) <= 1e-4 * float(tensor.norm()), key
            assert torch.equal(found["parameters"][key], two[0]["parameters"][key])
    names = {path.name for path in (tmp_path / "two" / "output 0").iterdir()}
    assert names == {f"x{n}{e}" for n in ("", "-step00000005") for e in (".safetensors", "-state.pt")} | {"x.jsonl"}
    assert not list((tmp_path / "two" / "output 1").iterdir())


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
    no_gpu.setattr(torch.distributed, "init_process_group", begun.append)
    no_gpu.setattr(torch.distributed, "get_rank", lambda: 1)
    no_gpu.setattr(torch.distributed, "get_world_size", lambda: 2)
    assert join().rank == 1
    assert begun == [expected]
