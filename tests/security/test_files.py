"""What lies in a models folder under the name of an adapter and is none, or is changed while it is read."""

import os
import resource
import threading
from pathlib import Path

import pytest
from lyco_testing.hostile import Raw, examine, file_of, lora, packed, within

from lyco_core.adapter_reader import load_adapter_set
from lyco_core.errors import FileError
from lyco_core.formats.peft import read_config
from lyco_core.inspection import inspect_file
from lyco_core.io import Checkpoint, SafetensorsFile, read_header
from lyco_core.model import Model

GOOD = file_of(lora().items())
NAMES = ("<img src=x onerror=alert(1)>", "a\nb", "\u202ecod.exe", "C:\\x", "..", "a" * 200, "\udcff", "'; drop table")


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_are_escaped(name: str, tmp_path: Path):
    folder = tmp_path / name.replace("..", "dots")
    folder.mkdir()
    path = folder / f"{name}.safetensors"
    path.write_bytes(GOOD)
    assert examine_as(path) == []
    path.write_bytes(GOOD[:-1])
    (message, *_) = examine_as(path)
    assert message.isprintable()


def examine_as(path: Path) -> list[str]:
    try:
        found = inspect_file(path)
    except FileError as error:
        return [str(error)]
    assert all(line.isprintable() for line in found.lines())
    assert str(found.as_json()["file"]).isprintable()
    return []


def test_a_path_with_a_zero_byte():
    with pytest.raises(FileError, match="cannot be read: embedded null byte"):
        read_header("a\0.safetensors")


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    os.mkfifo(path)
    return path


def test_a_pipe_is_not_waited_for(pipe: Path):
    for read in (inspect_file, load_adapter_set, read_header, Model.of_file):
        with within(5), pytest.raises(FileError, match=r"a\.safetensors: cannot be read: is no file but a pipe"):
            read(pipe)


def test_a_pipe_that_somebody_writes_to(pipe: Path):
    """Then opening it would answer, and reading it begin."""
    writer = os.open(pipe, os.O_RDWR)
    os.write(writer, GOOD)
    with within(5), pytest.raises(FileError, match="is no file but a pipe"):
        inspect_file(pipe)
    os.close(writer)


def test_a_pipe_beside_a_file_is_no_configuration(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(GOOD)
    os.mkfifo(tmp_path / "adapter_config.json")
    with within(5):
        assert read_config(path) is None
        assert examine(path) == []


def test_a_pipe_is_no_index_of_shards(tmp_path: Path):
    path = tmp_path / "m.safetensors.index.json"
    os.mkfifo(path)
    with within(5), pytest.raises(FileError, match="is no file but a pipe"):
        Checkpoint(path)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/"])
def test_devices_and_folders(path: str):
    with within(5), pytest.raises(FileError, match=r"cannot be read: |is empty|is a folder"):
        read_header(path)


def test_an_index_that_is_no_index(tmp_path: Path):
    path = tmp_path / "m.safetensors.index.json"
    for text in (
        '{"weight_map":' + "[" * 90_000,
        '{"weight_map":{"a":"../b.safetensors"}}',
        "[],",
        '{"weight_map":{}}',
    ):
        path.write_text(text)
        with pytest.raises(FileError, match="is no index of shards"):
            Checkpoint(path)
    os.truncate(path, 10**11)
    with within(5), pytest.raises(FileError, match="is larger than such a file can be"):
        Checkpoint(path)


def test_a_file_without_permission(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(GOOD)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("who runs this may read everything")
    with pytest.raises(FileError, match=r"a\.safetensors: cannot be read: Permission denied"):
        inspect_file(path)


def test_links_are_followed(tmp_path: Path):
    """What ComfyUI's loaders list is read: people link models folders and files to other disks."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.safetensors").write_bytes(GOOD)
    (tmp_path / "b.safetensors").symlink_to(tmp_path / "disk" / "a.safetensors")
    (tmp_path / "folder").symlink_to(tmp_path / "disk")
    assert examine(tmp_path / "b.safetensors") == examine(tmp_path / "folder" / "a.safetensors") == []


def test_a_link_to_nothing_and_one_to_itself(tmp_path: Path):
    (tmp_path / "a.safetensors").symlink_to(tmp_path / "gone")
    (tmp_path / "b.safetensors").symlink_to(tmp_path / "b.safetensors")
    for name in ("a", "b"):
        with pytest.raises(FileError, match="cannot be read"):
            inspect_file(tmp_path / f"{name}.safetensors")


def test_a_file_that_grows_or_shrinks_between_header_and_tensors(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(GOOD)
    with SafetensorsFile(path) as file:
        os.truncate(path, 20)
        with pytest.raises(FileError, match="was the file replaced"):
            file.tensor(next(iter(file.header.tensors)))
        with pytest.raises(FileError, match="changed while it was read"):
            file.require_unchanged()


def test_a_file_that_is_changed_all_the_while(tmp_path: Path):
    """Each reading gets the old file, the new one, or a line that says what is wrong with it."""
    path = tmp_path / "a.safetensors"
    other = file_of({**lora("lora_unet_blocks_1_self_attn_q"), "x.alpha": Raw(shape=())}.items())
    path.write_bytes(GOOD)
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            path.write_bytes(other)
            with path.open("r+b") as file:
                file.truncate(len(other) // 2)
                file.write(GOOD)
            beside = path.with_suffix(".new")
            beside.write_bytes(GOOD)
            beside.replace(path)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        with within(20):
            for _ in range(150):
                examine(path)
    finally:
        done.set()
        changing.join()


def test_no_memory_for_a_tensor_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On a system that does not say how much memory it has."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(packed('{"a.diff":{"dtype":"F32","shape":[25000000000],"data_offsets":[0,100000000000]}}'))
    os.truncate(path, path.stat().st_size + 10**11)
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs Linux")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    allowed = pages * os.sysconf("SC_PAGE_SIZE") + 2 * 10**9
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    monkeypatch.delattr(os, "sysconf")
    resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))
    try:
        with pytest.raises(FileError, match=r"a.diff: there is no memory for its 100000000000 bytes"):
            load_adapter_set(path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
