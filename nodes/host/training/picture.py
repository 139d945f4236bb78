"""The course of a training as an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ....lyco_core.train.loop import Step
from .means import SPAN, means

SIZE = (960, 480)
LEFT, TOP, RIGHT, BOTTOM = 72, 40, 24, 44
PAPER, INK, FAINT = "#ffffff", "#24292f", "#d8dee4"
LOSS, MEAN, VALIDATION = "#b6d4fe", "#0969da", "#cf222e"


def loss_picture(steps: Sequence[Step]) -> Tensor:
    """Loss, its mean over the last steps and the validation over the steps: (1, height, width, 3), 0 to 1."""
    image = Image.new("RGB", SIZE, PAPER)
    draw = ImageDraw.Draw(image)
    losses = [(s.step, s.loss) for s in steps]
    average = list(zip((s.step for s in steps), means([s.loss for s in steps]), strict=True))
    tried = [(s.step, s.validation) for s in steps if s.validation is not None]
    place = _Axes(losses, [value for _, value in (*losses, *tried)])
    place.draw(draw)
    for points, color, width in ((losses, LOSS, 1), (average, MEAN, 3), (tried, VALIDATION, 3)):
        _line(draw, [place(*point) for point in points], color, width)
    x = LEFT
    mean = f"mean of the last {SPAN} steps"
    for name, color in (("loss", LOSS), (mean, MEAN), *((("validation", VALIDATION),) if tried else ())):
        draw.rectangle((x, 16, x + 16, 24), fill=color)
        draw.text((x + 22, 10), name, fill=INK, font=_font())
        x += 60 + round(_font().getlength(name))
    return torch.from_numpy(numpy.array(image)).float()[None] / 255


class _Axes:
    """Where a step and a value lie in the image."""

    def __init__(self, points: Sequence[tuple[int, float]], values: Sequence[float]) -> None:
        self.first, self.last = points[0][0], max(points[-1][0], points[0][0] + 1)
        # The few highest losses of single steps would flatten everything else.
        self.low, self.high = 0.0, max(float(numpy.quantile(values, 0.99)) * 1.1, 1e-12)

    def __call__(self, step: float, value: float) -> tuple[float, float]:
        x = LEFT + (step - self.first) / (self.last - self.first) * (SIZE[0] - LEFT - RIGHT)
        height = (min(value, self.high) - self.low) / (self.high - self.low)
        return x, SIZE[1] - BOTTOM - height * (SIZE[1] - TOP - BOTTOM)

    def draw(self, draw: ImageDraw.ImageDraw) -> None:
        """Grid lines and their numbers."""
        for part in range(6):
            value = self.low + (self.high - self.low) * part / 5
            _, y = self(self.first, value)
            draw.line((LEFT, y, SIZE[0] - RIGHT, y), fill=FAINT)
            draw.text((LEFT - 8, y), f"{value:.3g}", fill=INK, font=_font(), anchor="rm")
            step = round(self.first + (self.last - self.first) * part / 5)
            x, _ = self(step, self.low)
            draw.text((x, SIZE[1] - BOTTOM + 8), str(step), fill=INK, font=_font(), anchor="mt")


def _line(draw: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]], color: str, width: int) -> None:
    if len(points) > 1:
        draw.line(points, fill=color, width=width, joint="curve")
    else:
        for x, y in points:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=color)


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(14)
