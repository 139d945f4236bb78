"""The disks of Windows, which ignore case and know no nameless files: images of them, mounted."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lyco_testing.disks import mounted

from lyco_core.errors import FileError
from lyco_core.io import SafetensorsFile, TensorSpec, write_safetensors
from lyco_core.train.training_files import files_of, require_place

MOUNTED = {
    "exfat": (
        ("losetup", "mkfs.exfat", "mount.exfat-fuse"),
        'mkfs.exfat "$0".image >&2; device=$(losetup -f --show "$0".image); trap "losetup -d $device" EXIT; '
        'mount.exfat-fuse "$device" "$0" >&2; losetup -d "$device"; trap - EXIT',  # which it keeps until it ends
    ),
    "ntfs": (
        ("mkfs.ntfs", "lowntfs-3g"),
        'mkfs.ntfs -F -q "$0".image >&2; lowntfs-3g -o ignore_case,windows_names "$0".image "$0" >&2',
    ),
}
"""Name -> (the programs that it takes, how they make one of an image, and mount it)."""


def write(path: Path, value: float, *, overwrite: bool = False) -> None:
    write_safetensors(path, [TensorSpec("w", (4,), torch.float32)], [torch.full((4,), value)], overwrite=overwrite)


def numbers(folder: Path) -> list[float]:
    """Of the only file there is, under the name that the disk gives it; not mapped, which would keep it mounted."""
    (name,) = os.listdir(folder)
    with SafetensorsFile(folder / name) as file:
        return file.tensor("w").tolist()


@pytest.fixture(params=MOUNTED)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    programs, script = MOUNTED[request.param]
    if any(shutil.which(program) is None for program in programs):
        pytest.skip(f"needs {', '.join(programs)}: apt install exfat-fuse exfatprogs ntfs-3g")
    image, place = tmp_path / "disk.image", tmp_path / "disk"
    place.mkdir()
    image.touch()
    os.truncate(image, 40_000_000)
    with mounted(place, script) as there:
        yield there


def test_a_name_that_differs_in_case_is_taken(disk: Path):
    write(disk / "style.safetensors", 1.0)
    with pytest.raises(FileError, match=r"Style\.safetensors: is there already"):
        write(disk / "Style.safetensors", 2.0)
    assert numbers(disk) == [1.0] * 4
    write(disk / "Style.safetensors", 2.0, overwrite=True)
    assert numbers(disk) == [2.0] * 4


@pytest.mark.parametrize("name", ["style.safetensors", "style-step00000010.safetensors", "style-000001-state.pt"])
def test_a_training_replaces_none_of_another_case(name: str, disk: Path):
    (disk / name).touch()
    with pytest.raises(FileError, match=rf"{name.replace('style', 'Style')} is there already; choose another output_n"):
        require_place(disk, "Style", resume=False)
    require_place(disk, "styles", resume=False)
    assert files_of(disk, "style") == [name]
    assert (disk / name).exists()


def test_where_case_counts_it_is_another_name(tmp_path: Path):
    (tmp_path / "style.safetensors").touch()
    if (tmp_path / "STYLE.safetensors").exists():
        pytest.skip("this disk ignores case")
    require_place(tmp_path, "Style", resume=False)
