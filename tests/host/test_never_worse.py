"""Never worse than stock, by construction: every name that ComfyUI has for a weight of any of its models is placed."""

import collections
import importlib
import math
import re
from collections.abc import Iterable, Mapping

import pytest
import torch
from lyco_testing import every_model
from lyco_testing.comfy import find_comfyui, import_comfyui, why_not

if not why_not(found := find_comfyui()):
    import_comfyui(found)

MODELS = [] if why_not(found) else every_model.names()
KINDS = ("lora", "lokr", "diff")
STYLES = (
    "lora_unet_", "lora_prior_unet_", "lora_transformer_", "lycoris_", "diffusion_model.", "transformer.",
    "unet.base_model.model.", "base_model.model.", "unet.", "",
)  # fmt: skip
"""What trainers put before a module's name; a file has one of them."""


@pytest.fixture
def modules(pack):
    """The pack's rooms that place."""
    names = {
        "matching": "nodes.host.model.matching",
        "stock": "nodes.host.model.stock",
        "places": "nodes.host.model.places",
        "formats": "lyco_core.formats",
        "errors": "lyco_core.errors",
    }
    return {name: importlib.import_module(f"{pack.__name__}.{path}") for name, path in names.items()}


def kind_of(name: str, place, shape: tuple[int, ...]) -> Iterable[str]:
    """What trainers make of a weight: factors of a matrix, a difference of anything else."""
    if math.prod(shape) < 2:  # a lone number, or a part that this size of model has not
        return ()
    if place.key.endswith(".weight") and len(shape) > 1:
        return KINDS[:2]
    return KINDS[2:]


def divisor(size: int) -> int:
    """The smaller side of a LoKr's split."""
    return max(n for n in range(1, math.isqrt(min(size, 4096)) + 1) if size % n == 0)


def tensors(kind: str, name: str, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """One module of a file, without numbers."""

    def empty(*sizes: int) -> torch.Tensor:
        return torch.empty(sizes, device="meta")

    if kind == "diff":
        return {f"{name}.diff": empty(*shape)}
    rows, columns, *kernel = shape
    if kind == "lora":
        return {
            f"{name}.lora_up.weight": empty(rows, 1, *[1] * len(kernel)),
            f"{name}.lora_down.weight": empty(1, columns, *kernel),
        }
    up, left = divisor(rows), divisor(columns)
    return {
        f"{name}.lokr_w1": empty(up, left),
        f"{name}.lokr_w2": empty(rows // up, columns // left, *kernel),
    }


def sample(names: Iterable[str]) -> list[str]:
    """Of the names that differ in their numbers alone, the first two and the last: blocks are alike, but for ends."""
    alike: dict[str, list[str]] = collections.defaultdict(list)
    for name in names:
        alike[re.sub(r"\d+", "N", name)].append(name)
    return [name for found in alike.values() for name in dict.fromkeys([*found[:2], found[-1]])]


def files(names: Mapping[str, object]) -> list[list[str]]:
    """The names as files have them: each of one style, and no rows of a weight twice in one."""
    found: dict[str, list[dict[str, object]]] = collections.defaultdict(list)
    for name, place in names.items():
        of_style = found[next(style for style in STYLES if name.startswith(style))]
        apart = (file for file in of_style if not any(overlap(place, other) for other in file.values()))
        if (file := next(apart, None)) is None:
            of_style.append(file := {})
        file[name] = place
    return [list(file) for of_style in found.values() for file in of_style]


def overlap(one, other) -> bool:
    """Whether two places share rows."""
    return one.key == other.key and max(one.band[0], other.band[0]) < min(one.band[1], other.band[1])


Bands = tuple[tuple[int, int, int], ...]
"""(first row of the weight, the one after its last, the adapter's row that comes to the first of them), in order."""


def joined(bands: Iterable[tuple[int, int, int]]) -> Bands:
    """The same rows in as few bands as it takes."""
    found: list[tuple[int, int, int]] = []
    for start, stop, source in sorted(bands):
        if found and found[-1][1] == start and found[-1][2] + start - found[-1][0] == source:
            start, _, source = found.pop()
        found.append((start, stop, source))
    return tuple(found)


def bands_of(place, shapes) -> Bands:
    """The rows of a place of stock's, in the order in which the adapter has them."""
    _, start, count = place.rows or (0, 0, shapes[place.key][0])
    if place.reorder is None:
        return ((start, start + count, 0),)
    order = place.reorder(torch.arange(count).view(-1, 1)).flatten().tolist()
    return joined((start + row, start + row + 1, source) for row, source in enumerate(order))


def ours(placement, rest, shapes) -> dict[str, dict[str, Bands]]:
    """A module's name in the file -> key of a weight -> the rows of it that it changes."""
    bands: dict[str, dict[str, list[tuple[int, int, int]]]] = collections.defaultdict(
        lambda: collections.defaultdict(list)
    )
    for placed in placement.placed:
        start, stop = placed.rows or (0, placed.shape[0])
        source = placed.source_rows[0] if placed.source_rows else 0
        middle, half = (start + stop) // 2, (stop - start) // 2
        halves = [(start, middle, source + half), (middle, stop, source)]
        found = halves if placed.swapped else [(start, stop, source)]
        bands[placement.adapter_set.prefixes[placed.module_path]][placed.key] += found
    for place, spelled in rest.names.items():
        for name in set(spelled):
            bands[name][place.key] += bands_of(place, shapes)
    return {name: {key: joined(found) for key, found in keys.items()} for name, keys in bands.items()}


def unlike(modules, patcher, weights, kind: str, names: Mapping[str, object]) -> Iterable[str]:
    """What is not placed as stock places it, of a file with all of `names`."""
    made: dict[str, torch.Tensor] = {}
    for name, place in names.items():
        made |= tensors(kind, name, place.shape_in(weights.shapes))
    try:
        placement = weights.place(modules["formats"].parse(made, {}))
        rest = modules["stock"].match_by_names(placement, patcher, None, weights.shapes)
    except modules["errors"].LycoError as error:
        yield f"{kind}, {len(names)} like {next(iter(names))}: {error}"
        return
    found = ours(placement, rest, weights.shapes)
    for name, place in names.items():
        expected = {place.key: bands_of(place, weights.shapes)}
        if found.get(name) != expected:
            family = placement.adapter_set.architecture
            yield f"{kind} {name}: stock has {expected}, ours {found.get(name)}; read as {family and family.id}"


@pytest.mark.parametrize("name", MODELS)
def test_every_name_that_stock_has_is_placed(name: str, modules):
    patcher = every_model.patcher(name)
    weights = modules["matching"].model_weights(patcher)
    places, shapes = modules["stock"].key_map(patcher, None, weights.shapes)
    assert len(places) > 100
    chosen = {name: places[name] for name in sample(places)}
    failures: list[str] = []
    for style in files(chosen):
        for kind in KINDS:
            of_kind = {n: chosen[n] for n in style if kind in kind_of(n, chosen[n], chosen[n].shape_in(shapes))}
            alone = list(of_kind)[:: max(len(of_kind) - 1, 1)]
            for few in (list(of_kind), *([one] for one in alone)):
                if few:
                    failures += unlike(modules, patcher, weights, kind, {n: of_kind[n] for n in few})
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "model."])
@pytest.mark.parametrize("name", sorted({"MiniMaxH3", "MiniMaxMusic3", "Trellis2", "TripoSplat", "PiD"} & {*MODELS}))
def test_a_checkpoint_places_what_the_graph_places(name: str, prefix: str, modules):
    """The command line has only the file's keys and shapes, under what ComfyUI's loader takes off."""
    weights = modules["matching"].model_weights(every_model.patcher(name))
    inside = {k.removeprefix("diffusion_model."): s for k, s in weights.shapes.items() if k.startswith("diffusion_mod")}
    checkpoint = type(weights).of({prefix + key: shape for key, shape in inside.items()})
    assert checkpoint.prefix == prefix
    paths = [key.removesuffix(".weight") for key, s in inside.items() if key.endswith(".weight") and len(s) > 1]
    paths = [path for path in sample(paths) if not path.startswith(("structure_model.", "shape2txt."))]
    for spelled in ("lora_unet_{}", "diffusion_model.{}", "{}"):
        made: dict[str, torch.Tensor] = {}
        for path in paths:
            module = spelled.format(path if "." in spelled or spelled == "{}" else path.replace(".", "_"))
            made |= tensors("lokr", module, inside[f"{path}.weight"])
        adapters = modules["formats"].parse(made, {})
        graph = {(p.key.removeprefix("diffusion_model."), p.rows) for p in weights.place(adapters).placed}
        assert {(p.key.removeprefix(prefix), p.rows) for p in checkpoint.place(adapters).placed} == graph
        assert len(graph) == len(paths)
