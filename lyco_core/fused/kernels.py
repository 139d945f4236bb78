"""The kernel, in Triton. Imported only where that is there and where a tensor is on a GPU."""

# pyright: basic, reportMissingImports=false
# ruff: noqa: ANN001, ANN201, ANN202 - Triton's own types, and its names of what is known when a kernel is compiled

import triton
import triton.language as tl

__all__ = ["combined"]


@triton.jit
def _half(
    row, column, a, b, rank, a_row, a_rank, b_rank, b_column, rows, columns, row_each, column_each, STEP: tl.constexpr
):
    """A tile, float32, of `a @ b`, or of `a` where there is no b, stretched and repeated as `Half` says.

    Products of two numbers of 16 bits are exact in the float32 that they are summed in; float32's are not rounded
    to fewer bits either.
    """
    row = row // row_each % rows  # also brings those that are outside of the weight back inside
    column = column // column_each % columns
    if b is None:
        tile = tl.load(a + (row[:, None] * a_row + column[None, :] * b_column)).to(tl.float32)
    else:
        tile = tl.zeros((row.shape[0], column.shape[0]), tl.float32)
        for start in range(0, rank, STEP):
            inner = start + tl.arange(0, STEP)
            there = inner < rank
            left = tl.load(a + (row[:, None] * a_row + inner[None, :] * a_rank), mask=there[None, :], other=0.0)
            right = tl.load(b + (inner[:, None] * b_rank + column[None, :] * b_column), mask=there[:, None], other=0.0)
            if left.dtype != right.dtype:
                left, right = left.to(tl.float32), right.to(tl.float32)
            tile = tl.dot(left, right, tile, input_precision="ieee")
    return tile


@triton.jit
def combined(
    out, base, noise, factor, rows, columns, out_row, base_row,
    a1, b1, rank1, a1_row, a1_rank, b1_rank, b1_column, rows1, columns1, row_each1, column_each1,
    a2, b2, rank2, a2_row, a2_rank, b2_rank, b2_column, rows2, columns2, row_each2, column_each2,
    TIMES: tl.constexpr, CUT: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """One tile of `out`; see `combine`. Programs that follow each other share rows."""
    across = tl.cdiv(columns, WIDTH)
    row = tl.program_id(0) // across * HEIGHT + tl.arange(0, HEIGHT)
    column = tl.program_id(0) % across * WIDTH + tl.arange(0, WIDTH)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    far = row.to(tl.int64)[:, None]
    if base is not None:  # first of all: it comes from afar, the factors from caches
        before = tl.load(base + (far * base_row + column[None, :]), mask=inside, other=0.0).to(tl.float32)
    total = factor * _half(
        row, column, a1, b1, rank1, a1_row, a1_rank, b1_rank, b1_column, rows1, columns1, row_each1, column_each1, STEP
    )
    if a2 is not None:
        total *= _half(
            row, column, a2, b2, rank2, a2_row, a2_rank, b2_rank, b2_column, rows2, columns2, row_each2, column_each2,
            STEP,
        )  # fmt: skip
    if base is not None:
        total = before * total if TIMES else before + total
    if noise is not None:
        bits = total.to(tl.int32, bitcast=True)
        bits += tl.load(noise + (row[:, None] + column[None, :]), mask=inside, other=0)
        total = ((bits >> CUT) << CUT).to(tl.float32, bitcast=True)
    tl.store(out + (far * out_row + column[None, :]), total.to(out.dtype.element_ty), mask=inside)
