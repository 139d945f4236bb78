"""Small disks that are gone with whoever mounted them, killed or not: in a namespace of mounts that a process holds."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["mounted"]


@contextlib.contextmanager
def mounted(place: Path, script: str) -> Iterator[Path]:
    """`place` as the process sees it for which a shell script has mounted a disk there, the script's `$0`.

    That process waits for the end of a pipe, which comes with the end of this one. It is the first of a namespace of
    processes too, so that what serves the disk (FUSE) ends with it.
    """
    if shutil.which("unshare") is None:
        pytest.skip("mounting a disk takes Linux's unshare")
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    command = [*apart, "sh", "-ec", f"{script}; echo mounted; exec cat", str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as holder:
        assert holder.stdin and holder.stdout and holder.stderr
        try:
            if holder.stdout.readline() != b"mounted\n":
                pytest.skip(f"mounting a disk takes root: {holder.stderr.read().decode(errors='replace').strip()}")
            yield Path(f"/proc/{holder.pid}/root{place}")
        finally:
            holder.stdin.close()
            holder.wait(timeout=60)
