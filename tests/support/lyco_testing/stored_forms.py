"""Weights of random codes in every quantized form, and the numbers that they stand for: the formats again, in float64.

Nothing here rounds; what a merge rounded is read by the same few lines as what it was given.
"""

import json
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

GROUP = 64
"""Columns that are rotated together."""
HALVES = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=torch.float64)
"""The sixteen numbers of four bits of floating point."""
TABLE = torch.linspace(-1, 1, 16)

SAID = {
    "fp8": {"format": "float8_e4m3fn"},
    "int8": {"format": "int8_tensorwise"},
    "int8_row": {"format": "int8_tensorwise"},
    "int8_convrot": {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": GROUP},
    "mxfp8": {"format": "mxfp8"},
    "nvfp4": {"format": "nvfp4"},
    "nvfp4_before": {"format": "nvfp4"},
    "w4a4": {"format": "convrot_w4a4", "params": {"convrot_groupsize": GROUP}},
    "w4a8": {"format": "asym_w4a8_int8", "group_size": 32, "convrot_groupsize": GROUP},
}
"""Form -> what its `comfy_quant` says."""
NEED_KITCHEN = ("mxfp8", "nvfp4", "nvfp4_before", "w4a4", "w4a8")


def marker(said: Mapping[str, object]) -> Tensor:
    return torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)


def random_codes(form: str, rows: int, columns: int, seed: int) -> dict[str, Tensor]:
    """Role -> tensor of a weight of about 1/sqrt(columns); of tiled forms, the rows are filled up."""
    generator = torch.Generator().manual_seed(seed)

    def between(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    gain = columns**-0.5
    if form == "fp8":
        codes = torch.randn(rows, columns, generator=generator).mul_(100).clamp_(-448, 448)
        return {"weight": codes.to(torch.float8_e4m3fn), "weight_scale": torch.tensor(gain / 100)}
    if form.startswith("int8"):
        scale = (
            torch.tensor(gain / 64) if form == "int8" else (0.5 + torch.rand(rows, 1, generator=generator)) * gain / 64
        )
        return {"weight": between(-127, 128, rows, columns).to(torch.int8), "weight_scale": scale}
    if form == "mxfp8":
        high = up(rows, 32)
        codes = torch.randn(high, columns, generator=generator).mul_(100).clamp_(-448, 448).to(torch.float8_e4m3fn)
        exponents = between(110, 118, high, columns // 32).to(torch.uint8)
        kind = getattr(torch, "float8_e8m0fnu", torch.uint8)  # torch 2.7; the same bytes
        return {"weight": codes, "weight_scale": tiled(exponents).view(kind)}
    if form.startswith("nvfp4"):
        high = up(rows, 16)
        scales = (1 + 400 * torch.rand(high, columns // 16, generator=generator)).to(torch.float8_e4m3fn)
        made = {
            "weight": between(0, 256, high, columns // 2).to(torch.uint8),
            "weight_scale": tiled(scales.view(torch.uint8)).view(torch.float8_e4m3fn),
            "weight_scale_2": torch.tensor(gain / 500),
        }
        before = {"pre_quant_scale": 0.5 + torch.rand(columns, generator=generator)}
        return made | (before if form == "nvfp4_before" else {})
    codes = between(-128, 128, rows, columns // 2).to(torch.int8)
    if form == "w4a4":
        return {"weight": codes, "weight_scale": (0.5 + torch.rand(rows, generator=generator)) * gain / 4}
    relative = (20 + 100 * torch.rand(rows, columns // 32, generator=generator)).to(torch.float8_e4m3fn)
    channel = (0.5 + torch.rand(rows, generator=generator)) * gain / 64
    return {"weight": codes, "weight_s_rel": relative, "weight_s_channel": channel, "weight_codebook": TABLE.clone()}


def numbers(form: str, parts: Mapping[str, Tensor], rows: int) -> Tensor:
    """What the tensors stand for, (rows, columns) in float64."""
    codes = parts["weight"]
    if form == "fp8":
        return codes.double() * parts["weight_scale"].double()
    if form.startswith("int8"):
        values = codes.double() * parts["weight_scale"].double().view(-1, 1)
        return rotated(values) if form == "int8_convrot" else values
    if form == "mxfp8":
        exponents = untiled(parts["weight_scale"].view(torch.uint8), codes.shape[0], codes.shape[1] // 32)
        scales = torch.exp2(exponents.double() - 127) * (exponents > 0)
        return (codes.double().view(codes.shape[0], -1, 32) * scales[:, :, None]).view(codes.shape)[:rows]
    if form.startswith("nvfp4"):
        values = HALVES[torch.stack([codes >> 4, codes & 15], -1).flatten(1).long()]
        scales = untiled(parts["weight_scale"].view(torch.uint8), codes.shape[0], values.shape[1] // 16)
        scales = scales.contiguous().view(torch.float8_e4m3fn).double() * parts["weight_scale_2"].double()
        values = (values.view(codes.shape[0], -1, 16) * scales[:, :, None]).view(codes.shape[0], -1)[:rows]
        return values * parts.get("pre_quant_scale", torch.ones(())).double()
    nibbles = torch.stack([codes.view(torch.uint8) & 15, codes.view(torch.uint8) >> 4], -1).flatten(1).long()
    if form == "w4a4":
        return rotated((nibbles - 16 * (nibbles > 7)).double() * parts["weight_scale"].double().view(-1, 1))
    relative = parts["weight_s_rel"].double().repeat_interleave(32, 1)
    levels = (parts["weight_codebook"].double()[nibbles] * relative).round().clamp(-127, 127)
    return rotated(levels * parts["weight_s_channel"].double().view(-1, 1))


def rotated(values: Tensor) -> Tensor:
    four = np.array([[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]]) / 2
    matrix = torch.from_numpy(np.kron(np.kron(four, four), four))
    return (values.reshape(-1, GROUP) @ matrix.T).view(values.shape)


def up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _places(rows: int, columns: int) -> Tensor:
    """Where the scale of a row and block lies: tiles of 128 rows and 4 blocks, in each 32 lines of 4 times 4."""
    row, column = torch.arange(rows)[:, None], torch.arange(columns)[None]
    tile = (row // 128) * (up(columns, 4) // 4) + column // 4
    return tile * 512 + (row % 32) * 16 + (row % 128) // 32 * 4 + column % 4


def tiled(scales: Tensor) -> Tensor:
    rows, columns = scales.shape
    shape = up(rows, 128), up(columns, 4)
    out = torch.zeros(shape[0] * shape[1], dtype=scales.dtype)
    out[_places(rows, columns).flatten()] = scales.flatten()
    return out.view(shape)


def untiled(scales: Tensor, rows: int, columns: int) -> Tensor:
    return scales.flatten()[_places(rows, columns)]
