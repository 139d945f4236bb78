"""What a file is that is no safetensors: each kind that people choose by mistake is named, and what to do about it."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from lyco_core.errors import FileError
from lyco_core.io import read_header


def saved(**how: object) -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(3)}, buffer, **how)
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("style.safetensors", b"x" * 100)
    return buffer.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
KINDS = {
    "a checkpoint": (saved(), "is a pickle in a zip archive, as torch.save writes (.pt, .ckpt)"),
    "an old one": (saved(_use_new_zipfile_serialization=False), "is a pickle (.pt, .ckpt, .bin), expected safetensors"),
    "a zip": (zipped(), "is a zip archive, expected safetensors; unpack it"),
    "gzip": (b"\x1f\x8b\x08" + bytes(100), "is an archive"),
    "GGUF": (b"GGUF\x03\0\0\0" + bytes(100), "is a GGUF file, expected safetensors; use the file"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(100), "is a picture"),
    "JPEG": (b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(100), "is a picture"),
    "WebP": (b"RIFF\x40\0\0\0WEBPVP8 " + bytes(100), "is a picture"),
    "MP4": (b"\0\0\0\x20ftypisom" + bytes(100), "is a video or a picture"),
    "a pointer": (POINTER, "is a pointer of git-lfs, which stands in a repository for the file"),
    "a page": (b"<!DOCTYPE html><html>" + b"x" * 900, "is a web page or XML, expected safetensors; save"),
    "a page after a line": (b"\xef\xbb\xbf\n  <html>" + b"x" * 900, "is a web page or XML"),
    "JSON": (b'{"weight_map": {}}', "is JSON text, expected safetensors"),
    "text": (b"Trained on pictures of a cat.\r\n" * 40, "is a text file, expected safetensors"),
    "a word": (b"cat", "is a text file"),
    "text that is cut in a letter": (b"a" + "ä".encode() * 400, "is a text file"),
    "UTF-16": ("Trained on cats".encode("utf-16"), "is a text file"),
    "nothing": (b"", "is empty (0 bytes)"),
    "zeros": (bytes(5), "it is cut off or not a safetensors file"),
    "half of one": (save({"a": torch.ones(3)})[:50], "it is cut off or not a safetensors file"),
    "half of one, its length `<`": (struct.pack("<Q", 0x203C) + b'{"a":', "it is cut off or not a safetensors file"),
    "half of one, its length 0x80": (struct.pack("<Q", 0x0280) + b'{"a":', "it is cut off or not a safetensors file"),
    "noise": (zlib.compress(bytes(range(256))), "it is cut off or not a safetensors file"),
    "numbers": (struct.pack("<8d", *range(1, 9)), "it is cut off or not a safetensors file"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_file_is_called_what_it_is(kind: str, tmp_path: Path):
    data, message = KINDS[kind]
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(FileError) as raised:
        read_header(tmp_path / "a.safetensors")
    assert message in str(raised.value)


def test_a_folder_is_called_a_folder(tmp_path: Path):
    with pytest.raises(FileError, match="is a folder; name a file"):
        read_header(tmp_path)
