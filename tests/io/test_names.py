"""Names are refused before the work, in the disk's own measure."""

import errno
import os
from pathlib import Path

import pytest
from lyco_testing.tables import GOLDEN

from lyco_core.cli import main
from lyco_core.errors import FileError, TrainError
from lyco_core.io.names import check_name, name_fault, shortened
from lyco_core.io.output import refuse_existing
from lyco_core.train.options import train_options
from lyco_core.train.training_files import require_place

ADAPTER = str(GOLDEN / "wan_t2v" / "lora.safetensors")
BASE = str(GOLDEN / "wan_t2v" / "lora.expected.safetensors")
REFUSED = {
    "": "is empty",
    "x:y.safetensors": "has ':', which Windows",
    "what?": r"has '\?', which Windows",
    "a\\b": "has '",
    "a\nb": r"has '\\n'",
    "con": "is that of a device on Windows",
    "CON.safetensors": "is that of a device",
    "com1.tar.gz": "is that of a device",
    "LPT²": "is that of a device",
    "nul .txt": "is that of a device",
    "name.": "ends with a dot or a space",
    "name ": "ends with a dot or a space",
    "x" * 256: "takes 256 bytes, the disk has 255",
    "\ud800": "has characters that no disk stores",
}
FINE = [
    "a",
    "a.b.safetensors",
    ".hidden",
    "日本語の名前.safetensors",
    "icon.safetensors",
    "com10",
    "con_1.safetensors",
    "a b",
]
no_bytes = pytest.mark.skipif(os.name == "nt", reason="NTFS counts units of UTF-16, of which kanji are one")


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_name_is(name: str):
    with pytest.raises(FileError, match=f"^its name {REFUSED[name]}.*; choose another"):
        check_name(name)


@pytest.mark.parametrize("name", FINE)
def test_what_is_one(name: str, tmp_path: Path):
    check_name(name, str(tmp_path))
    (tmp_path / name).touch()
    assert os.listdir(tmp_path) == [name]


@no_bytes
def test_the_disks_own_measure(tmp_path: Path):
    """77 kanji and an ending are 243 bytes, which fit; with what a training adds they do not."""
    name = "漢" * 77 + ".safetensors"
    (tmp_path / name).touch()
    check_name(name, str(tmp_path))
    with pytest.raises(TrainError, match=r"output_name is '漢+': with -step00000000.safetensors .* takes 256 bytes"):
        train_options({"output_name": "漢" * 77})
    assert train_options({"output_name": "漢" * 76}).save.output_name == "漢" * 76


@no_bytes
def test_the_longest_names_can_be_written(tmp_path: Path):
    """The hidden file that becomes it has a short name of its own."""
    path = tmp_path / ("漢" * 81 + ".safetensors")
    assert main(["delta", ADAPTER, "-o", str(path)]) == 0
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["x:y", "what?", "con", "aux.b", "a|b"])
def test_a_training_is_not_begun_under_such_a_name(name: str):
    with pytest.raises(TrainError, match=r"output_name is .*: with .*Windows"):
        train_options({"output_name": name})


@pytest.mark.parametrize(
    "command",
    [
        ["convert", ADAPTER, "--to", "diffusers"],
        ["delta", ADAPTER],
        ["resize", ADAPTER, "--rank", "1"],
        ["extract", "--base", ADAPTER, "--tuned", ADAPTER, "--rank", "1"],
        ["merge", "--base", BASE, "--adapter", ADAPTER],
        ["merge", "--base", BASE, "--adapter", ADAPTER, "--max-shard-size", "100KB"],
    ],
    ids=lambda words: " ".join(words[::5]),
)
def test_every_command_refuses_them(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name, told in (("what?.safetensors", "has '?'"), ("漢" * 250 + ".safetensors", "bytes, the disk has 255")):
        assert main([*command, "-o", str(tmp_path / name)]) == 1
        assert told in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_made_up_names_fit():
    assert shortened("漢" * 200) == "漢" * 50
    assert shortened("a" + "漢" * 200) == "a" + "漢" * 49
    assert shortened("plain") == "plain"
    assert name_fault(shortened("é" * 300) + "_diffusers.safetensors") is None


def test_a_folder_that_is_not_there_is_said_at_once(tmp_path: Path):
    with pytest.raises(FileError, match=r"there is no folder .*none to write it into; make it"):
        refuse_existing(tmp_path / "none" / "a.safetensors", overwrite=False)


@pytest.mark.skipif(not hasattr(os, "pathconf"), reason="Windows tells no limit")
def test_a_path_that_is_too_long_is_said_at_once(tmp_path: Path):
    """The hidden file has a shorter name, and could be written."""
    longest, folder = os.pathconf(tmp_path, "PC_PATH_MAX"), str(tmp_path)
    while (left := longest - len(folder)) > 60:
        folder += "/" + "x" * min(200, left - 51)
        os.mkdir(folder)
    refuse_existing(f"{folder}/a.safetensors", overwrite=False)
    with pytest.raises(FileError, match=f"^its path of {longest} characters is longer than this system takes; name"):
        refuse_existing(f"{folder}/".ljust(longest, "y"), overwrite=False)
    assert os.listdir(folder) == []


def test_what_windows_says_of_a_path_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It does not find what is above, though the folder is there."""

    def unknown(path: str) -> None:
        error = FileNotFoundError(errno.ENOENT, "The system cannot find the path specified")
        error.winerror = 3
        raise error

    monkeypatch.setattr(os, "lstat", unknown)
    with pytest.raises(FileError, match="longer than this system takes"):
        refuse_existing(tmp_path / "a.safetensors", overwrite=False)


@pytest.mark.skipif(not hasattr(os, "geteuid") or not os.geteuid(), reason="nothing is refused to this user")
def test_a_folder_that_cannot_be_written_to_is_said_at_once(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match="cannot be written: Permission denied"):
        refuse_existing(tmp_path / "a.safetensors", overwrite=False)


def test_a_training_asks_the_disk_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of an encrypted one, whose names are shorter."""
    monkeypatch.setattr(os, "pathconf", lambda folder, what: 143, raising=False)
    require_place(tmp_path, "x" * 118, resume=False)
    with pytest.raises(FileError, match="its name takes 144 bytes, the disk has 143 for one"):
        require_place(tmp_path, "x" * 119, resume=False)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "command",
    [["resize", ADAPTER], ["extract", "--base", BASE, "--tuned", BASE]],
    ids=["resize", "extract"],
)
def test_a_report_is_asked_for_before_the_work(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    report = str(tmp_path / "none" / "report.json")
    assert main([*command, "--rank", "1", "-o", str(tmp_path / "out"), "--report", report]) == 1
    assert "report.json: there is no folder" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []
