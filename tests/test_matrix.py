"""Every cell of docs/formats.md: a file as the trainer writes it, for the architecture, finds its place."""

import functools
import re

import pytest
import torch
from lyco_testing import tables
from lyco_testing.trainers import PAGE, TRAINERS, WITHOUT_TRAINER, Trainer, file_of, page

from lyco_core.adapters import ALGORITHMS, Full
from lyco_core.architectures import ARCHITECTURES, identify
from lyco_core.formats import FORMATS, parse, split_key
from lyco_core.formats.suffixes import BIAS_SUFFIXES, PARAMETER_SUFFIXES, TENSOR_SUFFIXES
from lyco_core.layouts import Layout
from lyco_core.placement import place

FULL_SIZE = {family: model for model, family in (tables.ARCHITECTURE_OF | tables.OTHERS).items()}
FULL_SIZE["chroma"] = "chroma"  # not Radiance, whose last layers have three rows, which no LoKr of these files divides
CELLS = [(t, a) for t in TRAINERS for a in t.architectures]


@functools.cache
def weights_of(architecture: str) -> dict[str, tuple[int, ...]]:
    """Those of the model, and their biases."""
    weights = tables.weights(FULL_SIZE[architecture])
    return weights | {key.removesuffix("weight") + "bias": shape[:1] for key, shape in weights.items()}


@functools.cache
def modules_of(architecture: str, layout: Layout) -> dict[str, tuple[int, int]]:
    """Linear modules of the first two blocks in a layout."""
    family = ARCHITECTURES[architecture]
    found: dict[str, tuple[int, int]] = {}
    for key, shape in weights_of(architecture).items():
        path = key.removeprefix("diffusion_model.").removesuffix(".weight")
        numbers = [int(n) for n in re.findall(r"\.(\d+)\.", f".{path}.")]
        if (
            len(shape) != 2
            or not numbers
            or numbers[0] > 1
            or family.resolve(path, "comfyui", underscored=False) is None
        ):
            continue
        for target in family.locate(path, "comfyui", layout):
            start, stop, of = target.source
            found[target.path] = (shape[0] * (stop - start) // of, shape[1])
    return found


@pytest.mark.parametrize(("trainer", "architecture"), CELLS, ids=lambda c: c if isinstance(c, str) else c.title)
def test_a_file_finds_its_place(trainer: Trainer, architecture: str):
    """Of every algorithm that the trainer writes."""
    modules, weights = modules_of(architecture, trainer.layout), weights_of(architecture)
    assert len(modules) >= 6
    paths = {key.removeprefix("diffusion_model.").removesuffix(".weight") for key in weights if key.endswith("weight")}
    seen: list[dict[str, tuple[tuple[int, int], bool]]] = []
    for algorithm in trainer.algorithms:
        file = parse(file_of(trainer, algorithm, modules), {})
        assert not file.unrecognised_keys, algorithm
        shapes = {name: (a.flat_shape, isinstance(a, Full)) for name, a in file.adapters.items()}
        if shapes in seen:
            continue  # by which alone a place is found
        seen.append(shapes)
        found = identify(file, model_modules=paths, prefer=architecture)
        assert found.architecture is ARCHITECTURES[architecture], algorithm
        placement = place(found, weights, prefix="diffusion_model.").require_complete()
        assert placement.modules == len(found.adapters), algorithm
        assert not any(piece.by_name for piece in placement.placed), algorithm
        heights: dict[str, int] = {}
        for piece in placement.placed:
            start, stop = piece.rows or (0, weights[piece.key][0])
            heights[piece.key] = heights.get(piece.key, 0) + stop - start
        assert all(height <= weights[key][0] for key, height in heights.items()), algorithm


def test_every_algorithm_and_every_architecture_has_a_cell():
    known = {
        type(a).algorithm
        for t in TRAINERS
        for n in t.algorithms
        for a in parse(file_of(t, n, {"a.b": (8, 8)}), {}).adapters.values()
        if isinstance(type(a).algorithm, str)
    }
    hint = "lyco_testing/trainers.py: give it a writer in ALGORITHMS, and its name to a line of TRAINERS"
    assert ALGORITHMS.keys() | {"ia3"} <= known, hint
    assert {a for _, a in CELLS} >= ARCHITECTURES.keys()


def test_every_format_has_a_trainer():
    written = {parse(file_of(t, t.algorithms[0], {"a.b": (8, 8)}), {}).format for t in TRAINERS}
    assert {f.id for f in written if f is not None} == FORMATS.keys(), (
        "give it a line of lyco_testing.trainers.TRAINERS"
    )


def test_every_suffix_has_a_trainer_or_says_why_not():
    files = [file_of(t, n, {"a.b": (8, 8)}) for t in TRAINERS for n in t.algorithms]
    written = {split_key(key)[1] for file in files for key in file}
    assert written.isdisjoint(WITHOUT_TRAINER)
    suffixes = TENSOR_SUFFIXES.keys() | BIAS_SUFFIXES | PARAMETER_SUFFIXES.keys()
    assert written | WITHOUT_TRAINER.keys() >= suffixes >= WITHOUT_TRAINER.keys()


def test_the_page_has_this_table():
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "run `python tools/formats_table.py`, which writes it into docs/formats.md"


def test_magnitudes_and_scales_are_read_where_they_stand():
    """One number of each convention, so that a cell above cannot pass by ignoring a tensor."""
    x = {"diffusion_model.a.b.lora_B.weight": torch.ones(4, 2), "diffusion_model.a.b.lora_A.weight": torch.ones(2, 4)}
    for suffix in ("dora_scale", "magnitude", "lora_magnitude_vector", "lora_magnitude_vector.weight"):
        shape = (4, 1) if suffix == "dora_scale" else (4,)
        adapter = parse(x | {f"diffusion_model.a.b.{suffix}": torch.full(shape, 3.0)}, {}).adapters["a.b"]
        assert torch.allclose(adapter.add_to_(torch.eye(4)).norm(dim=1), torch.full((4,), 3.0))
