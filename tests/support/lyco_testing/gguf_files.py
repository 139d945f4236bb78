"""GGUF files written by hand, and Q8_0 read by hand."""

import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

TYPES = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q5_0": (6, 32, 22), "Q8_0": (8, 32, 34)}
TYPES |= {"Q4_K": (12, 256, 144), "BF16": (30, 1, 2)}
"""Type -> its number, and how many weights make a block of how many bytes."""


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf_bytes(
    tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]],
    notes: Mapping[str, object] | None = None,
    alignment: int = 32,
) -> bytes:
    """A file of tensors: name -> (type, shape, data); notes are texts, whole numbers, or lists of those."""
    kept = dict(notes or {}) | ({"general.alignment": alignment} if alignment != 32 else {})
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(kept))
    for key, value in kept.items():
        head += text(key)
        if isinstance(value, str):
            head += struct.pack("<I", 8) + text(value)
        elif isinstance(value, int):
            head += struct.pack("<II", 4, value)
        elif all(isinstance(item, str) for item in value):
            head += struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
        else:
            head += struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
    data = b""
    for key, (kind, shape, stored) in tensors.items():
        head += text(key) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], TYPES[kind][0], len(data))
        data += stored + b"\0" * (-len(stored) % alignment)
    return head + b"\0" * (-len(head) % alignment) + data


def stored(tensor: Tensor, kind: str) -> tuple[str, tuple[int, ...], bytes]:
    """A tensor in a type that torch has."""
    made = tensor.to({"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[kind]).contiguous()
    return kind, tuple(tensor.shape), made.view(-1).view(torch.uint8).numpy().tobytes()


def random_q8(rows: int, columns: int, seed: int) -> tuple[str, tuple[int, ...], bytes]:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-127, 128, (rows * columns // 32, 32), generator=generator).to(torch.int8)
    scales = ((0.5 + torch.rand(len(codes), 1, generator=generator)) * columns**-0.5 / 64).half()
    blocks = torch.cat([scales.view(torch.uint8), codes.view(torch.uint8)], 1)
    return "Q8_0", (rows, columns), blocks.numpy().tobytes()


def numbers(kind: str, shape: tuple[int, ...], data: bytes) -> Tensor:
    """What is stored, in float64."""
    raw = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    if kind != "Q8_0":
        return raw.view({"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[kind]).double().view(shape)
    blocks = raw.view(-1, 34)
    return (blocks[:, 2:].view(torch.int8).double() * blocks[:, :2].contiguous().view(torch.float16).double()).view(
        shape
    )


def read_gguf(path: Path) -> tuple[dict[str, tuple[str, tuple[int, ...], bytes]], dict[str, str]]:
    """(tensors, notes that are texts) of a file that only has notes of the kinds above."""
    data, at = path.read_bytes(), 24
    count, notes_count = struct.unpack_from("<QQ", data, 8)
    kinds = {number: name for name, (number, _, _) in TYPES.items()}

    def number(form: str) -> int:
        nonlocal at
        at += struct.calcsize(form)
        return struct.unpack_from(f"<{form}", data, at - struct.calcsize(form))[0]

    def word() -> str:
        nonlocal at
        length = number("Q")
        at += length
        return data[at - length : at].decode()

    notes: dict[str, str] = {}
    alignment = 32
    for _ in range(notes_count):
        key, kind = word(), number("I")
        if kind == 8:
            notes[key] = word()
        elif kind == 4:
            value = number("I")
            alignment = value if key == "general.alignment" else alignment
        else:
            inner = number("I")
            for _ in range(number("Q")):
                word() if inner == 8 else number("i")
    entries = []
    for _ in range(count):
        key = word()
        shape = tuple(number("Q") for _ in range(number("I")))[::-1]
        entries.append((key, shape, kinds[number("I")], number("Q")))
    start = -(-at // alignment) * alignment
    found = {}
    for key, shape, kind, offset in entries:
        size = torch.Size(shape).numel() // TYPES[kind][1] * TYPES[kind][2]
        found[key] = kind, shape, data[start + offset : start + offset + size]
    return found, notes
