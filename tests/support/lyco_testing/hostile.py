"""Files from a stranger: how they are written, and everything that is done with one before anybody trusts it."""

import contextlib
import dataclasses
import json
import math
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lyco_core.adapter_reader import load_adapter_set, outline_adapter_set, read_adapter_set
from lyco_core.card import card, picture
from lyco_core.errors import LycoError
from lyco_core.inspection import Inspection, inspect_file
from lyco_core.io.header_table import DTYPE_BITS
from lyco_core.placement import place

LONGEST_MESSAGE = 2500
LARGEST_CARD = 100_000
"""Characters of its JSON."""

WEIGHTS: dict[str, tuple[int, ...]] = {
    "diffusion_model.blocks.0.self_attn.q.weight": (4, 4),
    "diffusion_model.blocks.0.self_attn.k.weight": (),
    "diffusion_model.layers.0.attention.qkv.weight": (12, 4),
    "diffusion_model.layers.1.attention.qkv.weight": (),
    "diffusion_model.double_blocks.0.img_attn.qkv.weight": (0, 4),
    "diffusion_model.x.weight": (2**40, 2**40),
}
"""Of a model that is not to be trusted either."""


@dataclasses.dataclass(frozen=True)
class Raw:
    """A tensor as a header tells it; `fill` is repeated to its size."""

    dtype: str = "F32"
    shape: tuple[int, ...] = (1,)
    fill: bytes = b"\x00\x00\x80\x3f"

    @property
    def data(self) -> bytes:
        size = math.prod(self.shape) * DTYPE_BITS.get(self.dtype, 8) // 8
        return (self.fill * (size // len(self.fill) + 1))[:size]


def packed(text: str | bytes, data: bytes = b"") -> bytes:
    """A file of a header, right or not, and what follows it."""
    header = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return len(header).to_bytes(8, "little") + header + data


def file_of(tensors: Iterable[tuple[str, Raw]], metadata: dict[str, str] | None = None) -> bytes:
    """A file whose offsets are right; a name may come twice."""
    parts = [] if metadata is None else [f'"__metadata__":{json.dumps(metadata)}']
    data = bytearray()
    for key, raw in tensors:
        start = len(data)
        data += raw.data
        entry = {"dtype": raw.dtype, "shape": raw.shape, "data_offsets": [start, len(data)]}
        parts.append(f"{json.dumps(key)}:{json.dumps(entry)}")
    return packed("{" + ",".join(parts) + "}", bytes(data))


def lora(prefix: str = "lora_unet_blocks_0_self_attn_q") -> dict[str, Raw]:
    """The smallest good adapter."""
    return {f"{prefix}.lora_up.weight": Raw(shape=(4, 2)), f"{prefix}.lora_down.weight": Raw(shape=(2, 4))}


def examine(path: Path) -> list[str]:
    """Do with a file all that is done with one; the messages of what was refused.

    Anything but success or a good message raises.
    """
    refused: list[str] = []

    def attempt(step: Callable[[], Any]) -> Any:
        try:
            return step()
        except LycoError as error:
            message = str(error)
            assert message.isprintable(), message
            assert len(message) < LONGEST_MESSAGE, len(message)
            assert message.startswith(path.name), message
            refused.append(message)

    if (found := attempt(lambda: inspect_file(path))) is not None:
        _told(found)
        picture(str(path), found.adapter_set.metadata)
    outlined = attempt(lambda: outline_adapter_set(path))
    if outlined is not None:
        for weights in (None, WEIGHTS):
            placement = place(outlined, weights)
            LycoError(placement.problem())
    attempt(lambda: read_adapter_set(path))
    attempt(lambda: load_adapter_set(path))
    return refused


def _told(found: Inspection) -> None:
    shown = card(found)
    assert len(json.dumps(shown, allow_nan=False)) < LARGEST_CARD
    assert max(len(shown["ranks"]), len(shown["alphas"])) <= 16
    for text in _texts(shown):
        assert text.isprintable(), text
        assert len(text) <= 300
    assert all(line.isprintable() and len(line) < 5000 for line in found.lines())
    json.dumps(found.as_json(), allow_nan=False, ensure_ascii=False).encode()


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from _texts(pair)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail what takes longer, wherever it is: a hang is a failure, too."""

    def late(*_: object):
        raise AssertionError(f"took over {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
