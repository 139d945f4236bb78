"""Which Linears of a model are quantized when nothing has them quantized yet: a family's rule, or a careful one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping

from ..errors import MergeError, Remedy
from ..model import Model
from ..quantized import NEW_FORMS, Form, Quantization, Unreadable
from ..text import counted, shorten

__all__ = ["NOTHING", "UNPACKED", "Chosen", "choose"]


@dataclasses.dataclass(frozen=True)
class _Rule:
    """The Linears that ComfyUI's own files of a family have quantized."""

    quantized: str
    """Regular expression of module paths, by ComfyUI's names."""
    stays: str = "(?!)"
    """The same of those among them that stay in floating point."""


_DIT = r"transformer_blocks\..*"

_RULES = {
    "cosmos_predict2": _Rule(r"blocks\..*", r"blocks\.(0\..*|1\.adaln_modulation_.*)"),
    "flux1": _Rule(r"(double|single)_blocks\..*"),
    "flux2": _Rule(r"(double|single)_blocks\..*", r"double_blocks\.\d+\.(img|txt)_attn\..*"),
    "ideogram4": _Rule(r"layers\..*"),
    "krea2": _Rule(r"blocks\..*"),
    "ltx_2": _Rule(_DIT, r"transformer_blocks\.(0|1|46|47)\..*"),
    "ltx_video": _Rule(_DIT),
    "minimax_h3": _Rule(r"blocks\..*"),
    "qwen_image": _Rule(_DIT, r"transformer_blocks\.0\.img_mod\.1"),
}
"""Family -> its rule: those of Comfy-Org/comfy-quants' configurations, which were held against published files
(LTX-2.3's fp8 and nvfp4, FLUX.2's fp8mixed, Ideogram 4's fp8_scaled), and that of MiniMax-H3's int8_convrot."""

UNPACKED = ("ltx_video", "sd15", "sdxl", "sdxl_refiner", "stable_cascade_b")
"""Families that ComfyUI 0.33 tells by the width of a weight which two numbers in a byte would halve."""

_BLOCK = re.compile(r"(?:^|\.)\w*(?:blocks?|layers)\.\d+\.")
"""Where a module's path has the number of its block."""

_STAYS = re.compile(
    r"^visual\.|\.gate$|(?:^|[._])(?:mod[cfx]{0,2}|modulation|mapper|ada(?:ln|in)?|norm|emb|embed|embedder|embedding|"
    r"refiner|guidance|connector|adapter|injector|nerf)\d*(?=[._]|$)",
    re.IGNORECASE,
)
"""What keeps a module of a block in floating point, where no rule is known: it modulates, embeds, chooses, or is in a
part of its own beside the blocks."""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What is quantized, and why no more than that."""

    forms: Mapping[str, Form]
    """Weight key -> the form that it is given."""
    lines: tuple[str, ...]
    """What to tell a person of it."""


NOTHING = Chosen({}, ())


def choose(name: str, model: Model, quantization: Quantization) -> Chosen:
    """The weights of a checkpoint's model that are given the form `name` of `NEW_FORMS`.

    Raises:
        MergeError: some of its weights are quantized already, its names are not ComfyUI's, its family is unknown, no
            Linear fits the form, ComfyUI would not know the model by it, or what computes it is not installed.
    """
    _require_floats(quantization)
    family = model.architecture
    if family is None or model.naming != "comfyui":
        found = "a model of no known family" if family is None else f"{family.title} by {model.layout}' names"
        raise MergeError(
            f"is {found}; to quantize, expected a model of a known family by ComfyUI's names, which tell its Linears",
            Remedy.UNQUANTIZED,
        )
    if family.id in UNPACKED and NEW_FORMS[name].packed:
        raise MergeError(
            f"is {family.title}, which ComfyUI does not know again in {name}; expected int8_convrot or fp8_scaled",
            Remedy.UNQUANTIZED,
        )
    linears = {
        path: f"{model.prefix}{path}.weight"
        for path, shape in model.modules.items()
        if len(shape) == 2 and family.resolve(path, "comfyui", underscored=False)
    }
    rule = _RULES.get(family.id)
    wanted = [path for path in linears if (_by_rule(path, rule) if rule else _carefully(path))]
    forms, unfit = _fitting(name, {path: linears[path] for path in wanted}, model)
    if not forms:
        reason = f"{next(iter(unfit))}: {next(iter(unfit.values()))}" if unfit else "none of its Linears is in a block"
        raise MergeError(f"nothing of it can be stored as {name} ({reason})", Remedy.UNQUANTIZED)
    return Chosen(forms, tuple(_told(name, len(forms), len(linears) - len(wanted), unfit, family.title, rule)))


def _require_floats(quantization: Quantization) -> None:
    stored = {form.found.key: form.name for form in quantization.forms.values()} | dict(quantization.refused)
    if stored:
        key, title = next(iter(stored.items()))
        raise MergeError(
            f"{key}: is stored as {title} already; to quantize, expected a base in floating point", Remedy.UNQUANTIZED
        )


def _by_rule(path: str, rule: _Rule) -> bool:
    return re.fullmatch(rule.quantized, path) is not None and re.fullmatch(rule.stays, path) is None


def _carefully(path: str) -> bool:
    """Whether a module is in a block that a model has many of, and its name speaks of nothing but its arithmetic."""
    return _BLOCK.search(path) is not None and _STAYS.search(path) is None


def _told(
    name: str, chosen: int, rest: int, unfit: Mapping[str, str], family: str, rule: _Rule | None
) -> Iterator[str]:
    """What a person is told of a choice."""
    linears = f"{name}: {counted(chosen, 'Linear')}"
    if rule is not None:
        others = counted(rest, "other stays as it is", "others stay as they are")
        yield f"{linears}, as in ComfyUI's own files of {family}; {others}"
    else:
        yield (
            f"{linears} of the repeated blocks; which ones ComfyUI's own files of {family} have is not known here, so "
            f"embeddings, modulations, norms, first and last layers stay as they are ({counted(rest, 'Linear')})"
        )
    if unfit:
        path, reason = next(iter(unfit.items()))
        yield f"left as they are, since {name} does not fit them: {shorten(list(unfit))} ({path}: {reason})"


def _fitting(name: str, wanted: Mapping[str, str], model: Model) -> tuple[dict[str, Form], dict[str, str]]:
    """(weight key -> its form, module path -> why it cannot have one)."""
    forms: dict[str, Form] = {}
    unfit: dict[str, str] = {}
    for path, key in wanted.items():
        try:
            forms[key] = NEW_FORMS[name].form(key, model.shapes[key])
        except Unreadable as error:
            unfit[path] = str(error)
    if missing := next((form.unavailable for form in forms.values() if form.unavailable), None):
        raise MergeError(f"nothing can be stored as {name}, {missing}", Remedy.UNQUANTIZED)
    return forms, unfit
