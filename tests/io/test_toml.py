"""Configurations as people's editors and systems leave them."""

import sys
from pathlib import Path

import pytest

from lyco_core.errors import FileError
from lyco_core.io.toml import path_of, read_toml
from lyco_core.train.dataset import parse_datasets


def config(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "c.toml"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_configuration(encoding: str, end: str, tmp_path: Path):
    text = end.join(["# 設定", 'name = "猫"', "[general]", "resolution = [960, 544]", ""])
    assert read_toml(config(tmp_path, text, encoding)) == {"name": "猫", "general": {"resolution": [960, 544]}}


@pytest.mark.parametrize("missing", [("tomllib",), ("tomllib", "tomli")])
def test_python_3_10_reads_with_what_pip_brings(missing: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("pip._vendor.tomli", reason="pip is not installed")
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    assert read_toml(config(tmp_path, "a = 1")) == {"a": 1}


def test_nothing_to_read_it_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("tomllib", "tomli", "pip._vendor.tomli"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(FileError, match=r"c.toml: reading TOML needs Python 3.11 or later, or tomli: pip install"):
        read_toml(config(tmp_path, "a = 1"))


@pytest.mark.parametrize(
    ("text", "encoding", "message"),
    [
        ("a = ", "utf-8", r"c.toml: is no TOML: [^;]*$"),
        ("a = 1", "utf-16", r"c.toml: is no text in UTF-8 \(.*\); expected a configuration in TOML"),
        (r'dit = "C:\Users\x"', "utf-8", r"is no TOML: .*; in double quotes a backslash .* 'C:\\new', or as C:/new"),
    ],
)
def test_what_is_none(text: str, encoding: str, message: str, tmp_path: Path):
    with pytest.raises(FileError, match=message):
        read_toml(config(tmp_path, text, encoding))
    with pytest.raises(FileError, match=r"none.toml: cannot be read: No such file"):
        read_toml(tmp_path / "none.toml")


@pytest.mark.parametrize("text", [r'"C:\new"', r'"models\test.safetensors"', r'"D:\files"', r'"D:\big"'])
def test_a_backslash_that_became_something_else(text: str, tmp_path: Path):
    """TOML itself has nothing against these: a new line, a tab, a form feed, a backspace."""
    given = read_toml(config(tmp_path, f"x = {text}"))["x"]
    with pytest.raises(FileError, match=r"^dit is '.*': in double quotes a backslash begins an escape; write paths in"):
        path_of(given, "dit", tmp_path)
    with pytest.raises(FileError, match=r"image_directory is '.*': in double quotes a backslash"):
        parse_datasets({"datasets": [{"image_directory": given}]}, tmp_path)


def test_paths_start_from_the_configuration_s_folder(tmp_path: Path):
    assert path_of("a/b c", "dit", tmp_path) == str(tmp_path / "a" / "b c")
    assert path_of(str(tmp_path / "猫　👨‍👩"), "dit", Path("x")) == str(tmp_path / "猫　👨‍👩")
    assert path_of("", "dit", tmp_path) == ""
    with pytest.raises(FileError, match="dit is 3, expected the name of a file or a folder"):
        path_of(3, "dit", tmp_path)
