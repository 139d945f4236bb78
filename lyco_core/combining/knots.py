"""KnOTS (Stoica et al., arXiv:2410.19735): TIES in the space that the changes of a weight share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from ..adapters import Additive, LoRA, lora_rank, to_lora
from ..approximate.svd import full_svd, svd_of_product
from .exact import total
from .methods import ties

__all__ = ["knots"]

LEAST = 1e-6
"""Singular values below this share of the largest are rounding's."""


def knots(parts: Sequence[Additive], shape: tuple[int, ...], density: float) -> LoRA:
    """[ΔW1, ΔW2, …] = U Σ [V1, V2, …]ᵀ; the ΣVᵢᵀ become one by TIES, of which U makes a change again: a LoRA.

    The SVD is of the changes side by side; Σ goes with the Vᵢ, as in the authors' code.
    """
    left = _left(parts)
    merged = ties([_onto(left, part) for part in parts], density)
    return LoRA(left, merged.reshape(-1, *shape[1:]), alpha=float(left.shape[1]))


def _left(parts: Sequence[Additive]) -> Tensor:
    """U: (out, rank), of the changes side by side; from their factors where these are small."""
    height, width = parts[0].flat_shape
    rank = sum(lora_rank(part) for part in parts)
    loras = [lora for part in parts if 2 * rank < min(height, width) and (lora := to_lora(part)) is not None]
    if len(loras) == len(parts):
        pairs = [lora.factors(torch.float32, lora.up.device) for lora in loras]
        ups = torch.cat([up * lora.scale for lora, (up, _) in zip(loras, pairs, strict=True)], 1)
        u, s, _ = svd_of_product(ups, cast(Tensor, torch.block_diag(*[down for _, down in pairs])))
    else:
        u, s, _ = full_svd(torch.cat([total([part]).flatten(1) for part in parts], 1))
    return u[:, s > LEAST * s[0]].contiguous()


def _onto(left: Tensor, part: Additive) -> Tensor:
    """Uᵀ ΔW, (rank, in·kernel)."""
    return left.t() @ total([part]).flatten(1)
