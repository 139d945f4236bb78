"""What a file's metadata says of its numbers: whose rule they follow where the tensors leave it open."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, cast

from ..adapters import CAYLEY, TERMS
from ..errors import AdapterError, FormatError
from ..io.small_json import parse_small

__all__ = ["DORA_NORM", "OFT_SERIES", "Dialect", "dialect_of", "series_text"]

DORA_NORM = "lyco_dora_norm"
"""Metadata that this writes where others tell it otherwise, or not: `weight` if magnitudes are to be divided by the
norm of the weight alone, `change` if by that of the changed weight."""

OFT_SERIES = "lyco_oftv2"
"""Metadata that this writes: how an OFTv2 becomes a rotation, since its tensors do not tell; `series_text` says how."""

_FORK = {"networks.lora_ltx2", "networks.lokr"}
"""Modules of AkaneTendo25's fork of Musubi whose converter to ComfyUI's names makes magnitudes for ComfyUI's norm."""

_MOST_BYTES = 2**22


@dataclasses.dataclass(frozen=True)
class Dialect:
    """The rules of one file."""

    dora_norm: str | None = None
    """`weight` or `change`: by the norm of the weight alone, or of the changed one, `dora_scale` is to be divided."""
    of_fork: bool = False
    """Whether the fork's converter made it, if its names are dotted."""
    loha_scales: tuple[tuple[int, float], ...] | None = None
    """(rank, alpha) of LoHas whose alpha was left out, one for each kind of module; None where none is left out."""
    oft_series: tuple[int, bool] | None = None
    """`OFTv2.terms` and `OFTv2.of_peft`, where the file says so itself."""

    def dora_by_base(self, *, dotted: bool, initial_norm: bool) -> bool:
        """Whether a `dora_scale` is made for ComfyUI's norm, which is the weight's alone.

        Args:
            dotted: the module's names are ComfyUI's.
            initial_norm: the fork's own note is beside it, which stands there in its converter's files alone.
        """
        if self.dora_norm is not None:
            return self.dora_norm == "weight"
        return initial_norm or (dotted and self.of_fork)

    def loha_alpha(self, rank: int | None) -> float | None:
        """The alpha of a LoHa under dotted names that has none.

        Raises:
            AdapterError: it was left out, and the metadata does not tell it.
        """
        if self.loha_scales is None:
            return None
        alphas = {alpha for other, alpha in self.loha_scales if other == rank}
        if len(alphas) != 1:
            raise AdapterError(
                f"its alpha was left out when the file was converted, and the metadata (ss_network_alpha, "
                f"ss_network_dim, ss_network_args) does not tell that of rank {rank}; load the trainer's own file, or "
                "set a scale"
            )
        return alphas.pop()


def dialect_of(metadata: Mapping[str, str]) -> Dialect:
    """The rules that the metadata tells.

    Raises:
        FormatError: what this writes there cannot be read.
    """
    module = metadata.get("ss_network_module", "")
    norm = metadata.get(DORA_NORM, "weight" if metadata.get("ss_adapter") == "dora" else None)
    if norm not in ("weight", "change", None):
        raise FormatError(f"its metadata {DORA_NORM} is {norm[:40]!r}, expected weight or change")
    series = (TERMS, False) if any(key.startswith("ot_") for key in metadata) else None
    return Dialect(
        norm,
        module in _FORK,
        _loha_scales(metadata) if module == "networks.loha" else None,
        _series(metadata[OFT_SERIES]) if OFT_SERIES in metadata else series,
    )


def series_text(terms: int, *, of_peft: bool) -> str:
    """What `OFT_SERIES` says: `5`, `cayley`, and ` peft` after it."""
    return ("cayley" if terms == CAYLEY else str(terms)) + " peft" * of_peft


def _series(text: str) -> tuple[int, bool]:
    terms, _, peft = text.partition(" ")
    if peft not in ("", "peft") or not (terms == "cayley" or (terms.isdecimal() and 0 < int(terms) < 1000)):
        raise FormatError(f"its metadata {OFT_SERIES} is {text[:40]!r}, expected a number of terms or cayley")
    return (CAYLEY if terms == "cayley" else int(terms)), peft == "peft"


def _loha_scales(metadata: Mapping[str, str]) -> tuple[tuple[int, float], ...]:
    """What each kind of module has; nothing where it cannot be read."""
    try:
        args = cast(dict[str, Any], parse_small(metadata.get("ss_network_args", "{}"), _MOST_BYTES))
        dim, alpha = metadata["ss_network_dim"], metadata["ss_network_alpha"]
        found = [(dim, alpha)]
        for kind in ("audio", "cross_modal"):
            if args.get(f"{kind}_dim") is not None:
                found.append((args[f"{kind}_dim"], args.get(f"{kind}_alpha", alpha)))
        scales = tuple((int(d), float(a)) for d, a in found)
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError):
        return ()
    return tuple((d, a) for d, a in scales if math.isfinite(a) and a != 0)
