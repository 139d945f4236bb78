"""Text as pixels, in any writing: in Pillow's own font, or one of the system's that has all of a text's characters."""

from __future__ import annotations

import functools

import numpy
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

FONTS = (
    "NotoSansCJK-Regular.ttc",  # Linux
    "wqy-zenhei.ttc",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "ipag.ttf",
    "DejaVuSans.ttf",
    "YuGothM.ttc",  # Windows
    "msgothic.ttc",
    "msyh.ttc",
    "simsun.ttc",
    "malgun.ttf",
    "segoeui.ttf",
    "Arial Unicode.ttf",  # macOS
    "ヒラギノ角ゴシック W3.ttc",
    "Hiragino Sans GB.ttc",
)
"""Files in the system's folders of fonts, where Pillow looks for a name."""

_LACKED = "\U0010ffff"
"""No character: a font draws what it draws for those that it lacks."""


def lettered(text: str, size: int, width: int) -> Tensor:
    """The text in lines of at most `width` pixels, centred: (height, width), 1 where there is ink.

    What no font has is written as in Python, `\\u732b`.

    Args:
        size: of the letters, in pixels.
    """
    font, text = _font_for(text, size)
    lines = [line for part in text.splitlines() or [""] for line in _wrapped(part, font, width)]
    height = sum(font.getmetrics())
    image = Image.new("L", (width, height * len(lines)))
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text(((width - font.getlength(line)) / 2, number * height), line, fill=255, font=font)
    return torch.from_numpy(numpy.array(image)).float() / 255


def _font_for(text: str, size: int) -> tuple[ImageFont.FreeTypeFont, str]:
    """A font that has all characters of a text, and the text; escaped where there is no such font."""
    own = ImageFont.load_default(size)
    assert isinstance(own, ImageFont.FreeTypeFont)
    if _has(own, text):
        return own, text
    for name in FONTS:
        font = _system_font(name, size)
        if font is not None and _has(font, text):
            return font, text
    return own, text.encode("ascii", "backslashreplace").decode()


@functools.lru_cache(maxsize=32)
def _system_font(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:  # there is none of this name
        return None


def _has(font: ImageFont.FreeTypeFont, text: str) -> bool:
    lacked = _glyph(font, _LACKED)
    return all(_glyph(font, letter) != lacked for letter in set(text) if not letter.isspace())


def _glyph(font: ImageFont.FreeTypeFont, letter: str) -> tuple[tuple[int, ...], bytes]:
    left, top, right, bottom = (round(side) for side in font.getbbox(letter))
    image = Image.new("L", (max(right - left, 1), max(bottom - top, 1)))
    ImageDraw.Draw(image).text((-left, -top), letter, fill=255, font=font)
    return (left, top, right, bottom), image.tobytes()


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The text in as few lines as fit; broken anywhere, since file names have no words."""
    lines = [""]
    for letter in text:
        if lines[-1] and font.getlength(lines[-1] + letter) > width:
            lines.append("")
        lines[-1] += letter
    return lines
