"""A preview is a picture, of a size that a page can show, from beside the file, and nothing else."""

import base64
import io
import os
from pathlib import Path

import pytest
from lyco_testing.hostile import within

from lyco_core.card import picture
from lyco_core.pictures import MAX_PICTURE_BYTES, MAX_SIDE, picture_of


def png(width: int = 2, height: int = 2, more: bytes = b"") -> bytes:
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size + b"\x08\2\0\0\0" + more


def jpeg(width: int = 2, height: int = 2, before: bytes = b"") -> bytes:
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return b"\xff\xd8" + before + b"\xff\xc0\0\x11\x08" + size + b"\3\1\x22\0"


def webp(chunk: bytes, body: bytes) -> bytes:
    return b"RIFF\0\0\0\0WEBP" + chunk + b"\0\0\0\0" + body


def extended(width: int, height: int) -> bytes:
    return webp(b"VP8X", b"\0" * 4 + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"))


GOOD = {
    "png": (png(), "image/png"),
    "jpeg": (jpeg(), "image/jpeg"),
    "jpeg with EXIF and padding": (jpeg(before=b"\xff\xe1\0\4ab\xff\xff"), "image/jpeg"),
    "webp": (extended(2, 2), "image/webp"),
    "lossless webp": (webp(b"VP8L", b"\x2f\1\x40\0\0" + b"\0" * 5), "image/webp"),
    "lossy webp": (webp(b"VP8 ", b"\0\0\0\x9d\1\x2a\2\0\2\0"), "image/webp"),
    "a page in a picture": (png(more=b"<script>alert(1)</script>"), "image/png"),  # nosniff makes it one only
    "as large as may be": (png(MAX_SIDE, MAX_SIDE), "image/png"),
}
BAD = {
    "nothing": b"",
    "a page": b"<html>",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    "its first bytes alone": b"\x89PNG\r\n\x1a\n",
    "cut off": png()[:20],
    "sound": b"RIFF\0\0\0\0WAVEfmt " + b"\0" * 40,
    "a film": b"RIFF\0\0\0\0AVI " + extended(2, 2)[12:],
    "passwords": b"root:x:0:0:root:/root:/bin/bash\n",
    "too wide a png": png(MAX_SIDE + 1, 1),
    "too high a jpeg": jpeg(1, MAX_SIDE + 1),
    "too wide a webp": extended(MAX_SIDE + 1, 1),
    "too wide a lossless webp": webp(b"VP8L", b"\x2f\xff\x3f\0\0" + b"\0" * 5),
    "too wide a lossy webp": webp(b"VP8 ", b"\0\0\0\x9d\1\x2a\xff\x3f\2\0"),
    "no pixel": png(0, 0),
    "a jpeg without a frame": b"\xff\xd8\xff" + b"\xff" * 7_000_000,
    "a jpeg of empty segments": b"\xff\xd8" + b"\xff\xe1\0\0" * 1_000_000,
}


@pytest.mark.parametrize("name", GOOD)
def test_told(name: str):
    data, kind = GOOD[name]
    assert picture_of(data) == (data, kind)


@pytest.mark.parametrize("name", BAD)
def test_not_told(name: str):
    with within(0.5):
        assert picture_of(BAD[name]) is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("lossless", [False, True])
def test_what_a_library_writes_is_told(kind: str, lossless: bool):
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    out = io.BytesIO()
    image.new("RGB", (30, 20), "red").save(out, kind, **({"lossless": lossless} if kind == "WEBP" else {}))
    found = picture_of(out.getvalue())
    assert found is not None
    assert found.kind == f"image/{kind.lower()}"


THUMBNAILS = {
    "é": None,
    "": None,
    "!!!": None,
    base64.b64encode(b"<html>").decode(): None,
    base64.b64encode(png()).decode(): (png(), "image/png"),
}


@pytest.mark.parametrize("text", THUMBNAILS)
def test_thumbnails(text: str, tmp_path: Path):
    path = str(tmp_path / "a.safetensors")
    found = picture(path, {"modelspec.thumbnail": f"data:image/svg+xml;base64,{text}"})
    assert found == THUMBNAILS[text]


def beside(folder: Path, name: str = "a.png") -> tuple[str, Path]:
    (folder / "a.safetensors").touch()
    return str(folder / "a.safetensors"), folder / name


def test_a_picture_beside(tmp_path: Path):
    path, shown = beside(tmp_path)
    shown.write_bytes(png())
    assert picture(path, {}) == (png(), "image/png")


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "diary.png").write_bytes(png())
    (tmp_path / "loras").mkdir()
    path, shown = beside(tmp_path / "loras")
    for target in (tmp_path / "private" / "diary.png", Path("/etc/passwd")):
        shown.symlink_to(target)
        assert picture(path, {}) is None
        shown.unlink()


def test_links_within_a_folder_and_of_the_whole_folder_are_followed(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    path, shown = beside(disk, "b.png")
    shown.write_bytes(png())
    (disk / "a.png").symlink_to("b.png")
    assert picture(path, {}) is not None
    (tmp_path / "folder").symlink_to(disk)
    assert picture(str(tmp_path / "folder" / "a.safetensors"), {}) is not None
    (tmp_path / "a.safetensors").symlink_to(disk / "a.safetensors")
    (tmp_path / "a.png").symlink_to(disk / "a.png")
    assert picture(str(tmp_path / "a.safetensors"), {}) is not None


def test_what_is_no_file_or_too_large(tmp_path: Path):
    path, shown = beside(tmp_path)
    with within(5):
        os.mkfifo(shown)
        assert picture(path, {}) is None
        shown.unlink()
        shown.mkdir()
        assert picture(path, {}) is None
        shown.rmdir()
        shown.write_bytes(png())
        os.truncate(shown, MAX_PICTURE_BYTES)
        assert picture(path, {}) is not None
        os.truncate(shown, 10**11)
        assert picture(path, {}) is None
