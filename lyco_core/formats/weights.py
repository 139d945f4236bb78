"""The tensors that change one module's weight, by suffix, into an adapter."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..adapters import (
    ALGORITHMS,
    BAKED,
    BOFT,
    LOW_RANK,
    OFT,
    TERMS,
    Adapter,
    Additive,
    BoRA,
    DoRA,
    LoHa,
    LoKr,
    OFTv2,
    SplitOFT,
    with_alpha,
    with_scale,
    within,
)
from ..errors import AdapterError
from .dialects import Dialect
from .peft import OFT_OPTIONS, PeftConfig
from .suffixes import ALPHA, BORA, COFT, COFT_EPS, DORA, INITIAL_NORM, LOKR_DIM, MAGNITUDES, SCALED_OFT, TENSOR_SUFFIXES

__all__ = ["Context", "number", "weight_adapter"]

_OFTV2 = "oftv2"
_BLOCK_SIZE, _SCALED = "oft_block_size_metadata", "scaled_oft_metadata"

if _unmade := {algorithm for algorithm, _ in TENSOR_SUFFIXES.values()} - {*ALGORITHMS, DORA, BORA}:
    raise ValueError(f"formats/suffixes.py has tensors of {', '.join(_unmade)}, which adapters.ALGORITHMS lacks")


class Context:
    """What is known of a module beside its tensors."""

    def __init__(self, module: str, dialect: Dialect, config: PeftConfig | None, *, dotted: bool, peft: bool) -> None:
        self.module = module
        """Its name, which `config` may know."""
        self.config = config
        """PEFT's, where alphas are not among the tensors."""
        self.dialect = dialect
        self.dotted = dotted
        """Whether it has ComfyUI's prefix and dots."""
        self.peft = peft
        """Whether its names are PEFT's or diffusers'."""


def weight_adapter(tensors: Mapping[str, Tensor], context: Context) -> Adapter | None:
    """The adapter of the module's weight; None where an alpha or a scale of 0 turns it off.

    Raises:
        AdapterError: the tensors do not make one.
    """
    fields = _fields(tensors)
    rotation, magnitudes = fields.pop(_OFTV2, None), fields.pop(DORA, None)
    bora = fields.pop(BORA, None)
    if rotation is not None and not fields:
        return _oftv2(rotation["vectors"], None, tensors, context)
    adapter = _of_one_algorithm(fields, tensors, context)
    if adapter is None:
        if magnitudes:
            raise AdapterError("its scale is 0 beside a DoRA magnitude, which changes the weight by itself")
        if bora:
            raise AdapterError("its scale is 0 beside magnitudes of a BoRA, which change the weight by themselves")
        return None
    if bora is not None:
        return _bora(adapter, bora, magnitudes)
    adapter = _dora(adapter, tensors, context)
    return adapter if rotation is None else _oftv2(rotation["vectors"], adapter, tensors, context)


def _fields(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Algorithm id -> field -> tensor."""
    fields: dict[str, dict[str, Tensor]] = {}
    for suffix, tensor in tensors.items():
        if suffix not in TENSOR_SUFFIXES:
            continue
        algorithm, field = TENSOR_SUFFIXES[suffix]
        of_one = fields.setdefault(algorithm, {})
        if field in of_one and suffix not in MAGNITUDES:
            raise AdapterError(f"one tensor is there under two names: {', '.join(tensors)}")
        of_one[field] = tensor
    return fields


def _of_one_algorithm(
    fields: Mapping[str, Mapping[str, Tensor]], tensors: Mapping[str, Tensor], context: Context
) -> Adapter | None:
    """The adapter without what sits on it; None where an alpha or a scale of 0 turns it off."""
    if len(fields) != 1:
        raise AdapterError(f"tensors of {' and '.join(sorted(fields)) or 'no algorithm'} in one module")
    algorithm, own = next(iter(fields.items()))
    if algorithm == "oft" and "blocks" in own and own["blocks"].dim() == BOFT.dimensions:
        algorithm = "boft"
    cls, config, alpha = ALGORITHMS[algorithm], context.config, number(ALPHA, tensors)
    if (parts := [own.get(f"blocks.{index}") for index in range(len(own))]) and parts[0] is not None:
        return _split_oft(parts, alpha)
    adapter = cls(**{name: own.get(name) for name in cls.tensor_names}, alpha=alpha or None)
    if alpha is not None and adapter.rank is not None:
        if not alpha:
            return None
        meant = _meant(alpha, adapter, tensors)
        return adapter if meant == alpha else with_alpha(adapter, meant)
    if alpha is None and config is not None and algorithm in LOW_RANK:
        scale = config.scale(context.module, adapter.rank)
        if scale is None:
            return adapter
        if not abs(scale) <= torch.finfo(torch.float32).max:
            raise AdapterError(f"PEFT's configuration gives it a scale of {scale:g}, expected a finite one")
        return with_scale(adapter, scale) if scale else None
    if alpha is None and context.dotted and isinstance(adapter, LoHa):
        return with_alpha(adapter, context.dialect.loha_alpha(adapter.rank))
    return adapter


def _split_oft(parts: list[Tensor | None], alpha: float | None) -> Adapter:
    """kohya's OFT for FLUX.1: one part is a weight's that is not split."""
    blocks = tuple(part for part in parts if part is not None)
    if len(blocks) < len(parts):
        raise AdapterError("parts of oft_blocks are missing, or others beside them; the file is incomplete")
    return OFT(blocks[0], alpha=alpha or None) if len(blocks) == 1 else SplitOFT(blocks, alpha=alpha or None)


def _meant(alpha: float, adapter: Adapter, tensors: Mapping[str, Tensor]) -> float:
    """The alpha by which alpha / rank is the trainer's scale."""
    assert adapter.rank is not None
    if alpha >= BAKED:
        return float(adapter.rank)
    dim = number(LOKR_DIM, tensors)
    if dim is None or not isinstance(adapter, LoKr) or adapter.w2 is None:
        return alpha
    if not 0 < dim < BAKED:
        raise AdapterError(f"{LOKR_DIM} is {dim:g}, expected the rank by which its alpha is divided")
    return alpha * adapter.rank / dim


def _dora(adapter: Adapter, tensors: Mapping[str, Tensor], context: Context) -> Adapter:
    """The adapter with DoRA's magnitude, if there is one: LyCORIS's shape says along which axis it is, others'
    are along the output."""
    found = [s for s in tensors if s in MAGNITUDES]
    if not found:
        return adapter
    if len(found) > 1 or not isinstance(adapter, tuple(LOW_RANK.values())):
        raise AdapterError(
            f"{' and '.join(found)} beside {adapter.title}; a DoRA has one magnitude on a LoRA, LoHa or LoKr"
        )
    if found[0] != "dora_scale":
        return DoRA.of(adapter, tensors[found[0]], on_output=True)
    by_base = context.dialect.dora_by_base(dotted=context.dotted, initial_norm=INITIAL_NORM in tensors)
    return DoRA.of(adapter, tensors["dora_scale"], by_base=by_base)


def _bora(adapter: Adapter, fields: Mapping[str, Tensor], magnitudes: object) -> BoRA:
    if magnitudes is not None or set(fields) != {"row", "column"} or not isinstance(adapter, Additive):
        raise AdapterError(
            f"magnitudes of a BoRA ({', '.join(sorted(fields))}) beside {adapter.title}; expected bora_m_row and "
            "bora_m_col, on a LoRA, LoHa or LoKr without DoRA"
        )
    return BoRA(adapter, fields["row"], fields["column"], alpha=adapter.alpha)


def _oftv2(vectors: Tensor, inner: Adapter | None, tensors: Mapping[str, Tensor], context: Context) -> OFTv2:
    """The rotation, of what `inner` makes of the weight, or with magnitudes of its own.

    COFT holds each block to a norm: trainers do so again whenever they compute with it, so here too.
    """
    if inner is not None and not isinstance(inner, DoRA):
        raise AdapterError(f"oft_R.weight beside {inner.title}; expected a LoKr with DoRA, or nothing")
    terms, of_peft = _series(tensors, context)
    eps = number(COFT_EPS, tensors) if number(COFT, tensors) else None
    if of_peft and context.config is not None and context.config.oft is not None:
        eps = context.config.oft.eps
    scaled = number(_SCALED, tensors)
    # The fork's files from before it said so were all scaled where there is a LoKr.
    of_old = inner is not None and not context.dialect.oft_series
    own: Mapping[str, Tensor] = {} if inner is not None else tensors
    made = OFTv2(
        vectors if eps is None else within(vectors, eps),
        own.get("dora_scale"),
        own.get(INITIAL_NORM),
        bool(scaled) if scaled is not None else SCALED_OFT in tensors or of_old,
        terms,
        of_peft,
        inner,
    )
    size = number(_BLOCK_SIZE, tensors)
    if size is not None and size != made.block_size:
        raise AdapterError(f"{_BLOCK_SIZE} is {size:g}, oft_R.weight has blocks of {made.block_size}")
    return made


def _series(tensors: Mapping[str, Tensor], context: Context) -> tuple[int, bool]:
    """How the trainer made a rotation of it: `OFTv2.terms`, `OFTv2.of_peft`."""
    if context.dialect.oft_series is not None:
        return context.dialect.oft_series
    if context.config is not None and context.config.oft is not None:
        return context.config.oft.terms, True
    if context.peft and SCALED_OFT not in tensors and _SCALED not in tensors:
        raise AdapterError(
            f"oft_R.weight as PEFT saves it becomes a rotation by {OFT_OPTIONS}, which are not in the file; put PEFT's "
            "adapter_config.json beside it"
        )
    return TERMS, False


def number(name: str, tensors: Mapping[str, Tensor]) -> float | None:
    """The one number of a tensor; None where there is no such tensor."""
    tensor = tensors.get(name)
    if tensor is None:
        return None
    if tensor.numel() != 1:
        raise AdapterError(f"{name} has shape {list(tensor.shape)}, expected one number")
    return float(tensor.item())
