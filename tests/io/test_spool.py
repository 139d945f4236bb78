"""Tensors that wait on the disk: what they were, in memory only while they are looked at, and gone afterwards."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lyco_core.io.hidden import AROUND, clear_leftovers
from lyco_core.io.spool import Spool

STATUS = Path("/proc/self/status")


def resident() -> int:
    """Bytes of files that are in this process's memory."""
    return 1024 * int(re.findall(r"RssFile:\s+(\d+) kB", STATUS.read_text())[0])


def test_every_dtype_and_shape_is_as_it_was(tmp_path: Path):
    torch.manual_seed(0)
    tensors = [torch.randn(3, 5, 7).to(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float8_e4m3fn)]
    tensors += [torch.randn(6, 4).t(), torch.randn(100_003)[1:], torch.tensor(2.5), torch.empty(0, 4), torch.arange(9)]
    with Spool(str(tmp_path)) as spool:
        found = [*spool.moved(tensors[:3]), *spool.moved(tensors[3:])]
        spool.let_go(found)
    assert os.listdir(tmp_path) == []
    for tensor, moved in zip(tensors, found, strict=True):
        assert (moved.dtype, moved.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(moved.float(), tensor.float())


@pytest.mark.skipif(not STATUS.exists(), reason="needs Linux")
def test_what_is_let_go_takes_no_memory(tmp_path: Path):
    with Spool(str(tmp_path)) as spool:
        found = spool.moved([torch.ones(2**20) for _ in range(8)])
        for tensor in found:
            for _ in range(2):  # it is read again
                assert tensor.sum() == 2**20
                looked_at = resident()
                spool.let_go([tensor])
                assert looked_at - resident() > 3 * 2**20, "of 4 MiB; other files come and go"


def test_nothing_is_left_of_a_process_that_is_killed(tmp_path: Path):
    script = (
        "import sys, time, torch; from lyco_core.io.spool import Spool; spool = Spool(sys.argv[1]); "
        "kept = spool.moved([torch.ones(5000)]); print('moved', flush=True); time.sleep(60)"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=root, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline().strip() == b"moved"
        running.kill()
        running.wait()
    clear_leftovers(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_what_windows_may_leave_of_one_is_cleared_by_the_next_write(tmp_path: Path):
    (tmp_path / f"{AROUND[0]}a_z09qx1{AROUND[1]}").write_bytes(bytes(5000))
    clear_leftovers(str(tmp_path))
    assert os.listdir(tmp_path) == []
