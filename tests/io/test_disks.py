"""The disks of Windows, which ignore case and know no nameless files: images of them, mounted."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lyco_core.errors import FileError
from lyco_core.io import SafetensorsFile, TensorSpec, write_safetensors
from lyco_core.train.training_files import files_of, require_place

PROGRAMS = {"exfat": ("losetup", "mkfs.exfat", "mount.exfat-fuse"), "ntfs": ("mkfs.ntfs", "lowntfs-3g")}


def write(path: Path, value: float, *, overwrite: bool = False) -> None:
    write_safetensors(path, [TensorSpec("w", (4,), torch.float32)], [torch.full((4,), value)], overwrite=overwrite)


def numbers(folder: Path) -> list[float]:
    """Of the only file there is, under the name that the disk gives it; not mapped, which would keep it mounted."""
    (name,) = os.listdir(folder)
    with SafetensorsFile(folder / name) as file:
        return file.tensor("w").tolist()


@pytest.fixture(params=PROGRAMS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if any(shutil.which(program) is None for program in PROGRAMS[request.param]):
        pytest.skip(f"needs {', '.join(PROGRAMS[request.param])}: apt install exfat-fuse exfatprogs ntfs-3g")
    if os.geteuid():
        pytest.skip("mounting a disk takes root")
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    image.touch()
    os.truncate(image, 40_000_000)
    mount = _exfat if request.param == "exfat" else _ntfs
    try:
        device = mount(image, place)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
        if device:
            subprocess.run(["losetup", "-d", device], check=True)


def _exfat(image: Path, place: Path) -> str:
    subprocess.run(["mkfs.exfat", image], check=True, capture_output=True)
    device = subprocess.run(["losetup", "-f", "--show", image], check=True, capture_output=True, text=True)
    try:
        subprocess.run(["mount.exfat-fuse", device.stdout.strip(), place], check=True, capture_output=True)
    except subprocess.CalledProcessError:
        subprocess.run(["losetup", "-d", device.stdout.strip()], check=True)
        raise
    return device.stdout.strip()


def _ntfs(image: Path, place: Path) -> str:
    subprocess.run(["mkfs.ntfs", "-F", "-q", image], check=True, capture_output=True)
    options = "ignore_case,windows_names"
    subprocess.run(["lowntfs-3g", "-o", options, image, place], check=True, capture_output=True)
    return ""


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
