"""Small videos that are written with PyAV, and their captions."""

from pathlib import Path

import numpy as np

__all__ = ["film"]


def film(path: Path, frames: int, *, first: int = 0, caption: str = "a fade") -> None:
    """A video of grey frames, each lighter than the one before, and its caption beside it."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=16)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 96, 64, "yuv420p", 10**6
        for number in range(frames):
            pixels = np.full((64, 96, 3), first + 8 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    path.with_suffix(".txt").write_text(caption)
