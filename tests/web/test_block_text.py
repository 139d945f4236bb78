"""What the card's sliders write into `block_strengths`, by the page's own code: it selects exactly the blocks that it
was written for, whatever the family calls them, and is read back."""

import functools
import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from lyco_testing.tables import ARCHITECTURE_OF, OTHERS, WRITERS, weights

from lyco_core.architectures import ARCHITECTURES
from lyco_core.blocks import block_in, block_pattern, grouped_blocks
from lyco_core.comparing.strips import pattern_names
from lyco_core.errors import ArchitectureError
from lyco_core.formats import parse
from lyco_core.layouts import LAYOUTS, Layout
from lyco_core.model import Model
from lyco_core.selection import Selection, parse_block_strength

MODULE = Path(__file__).parents[2] / "web" / "block_text.mjs"
NODE = shutil.which("node")
FULL_SIZE = {family: model for model, family in (ARCHITECTURE_OF | OTHERS).items()}
SPELLED = {"musubi": "lora_unet_{}", "comfyui": "diffusion_model.{}", "diffusers": "transformer.{}"}

pytestmark = pytest.mark.skipif(NODE is None, reason="the page's code runs in node, which is not installed")

WRITE = """
const {read, write} = await import(process.argv[1]);
const strengthsOf = (all) => all?.map((one) => Object.fromEntries(one)) ?? null;
const answers = JSON.parse(await new Response(process.stdin).text()).map(({kinds, strengths, text}) => {
  const written = text ?? write(kinds, strengths.map((one) => new Map(one)));
  return {text: written, read: strengthsOf(read(kinds, written))};
});
console.log(JSON.stringify(answers));
"""


def asked(questions: list[dict]) -> list[dict]:
    """What the page's code writes and reads."""
    command = [str(NODE), "--no-warnings", "--input-type=module", "-e", WRITE, MODULE.as_uri()]
    done = subprocess.run(command, input=json.dumps(questions), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def kinds_of(names: list[str]) -> list[dict]:
    """The blocks as the page has them."""
    return [
        {"name": kind, "pattern": block_pattern(kind, cells), "cells": [[n, len(cells[n]), 1.0] for n in sorted(cells)]}
        for kind, cells in grouped_blocks(names).items()
    ]


def some_strengths(kind: dict, draw: random.Random) -> dict[int, float]:
    """All alike, or a few runs and single ones; none at 1."""
    numbers = [number for number, *_ in kind["cells"]]
    if kind["pattern"] is None:
        return {}
    if draw.random() < 0.2:
        return dict.fromkeys(numbers, 0.5)
    cut = draw.randrange(len(numbers) + 1)
    chosen = {number: draw.choice((0.0, 0.35, 1.5)) for number in numbers if draw.random() < 0.3}
    return dict.fromkeys(numbers[:cut], 0.5) | chosen


@functools.cache
def file_names(architecture: str, layout: Layout) -> dict[str, tuple[int, int]]:
    """Linear modules of the whole model in a layout."""
    family = ARCHITECTURES[architecture]
    found: dict[str, tuple[int, int]] = {}
    for key, shape in weights(FULL_SIZE[architecture]).items():
        path = key.removeprefix("diffusion_model.").removesuffix(".weight")
        if len(shape) == 2 and family.resolve(path, "comfyui", underscored=False):
            for target in family.locate(path, "comfyui", layout):
                start, stop, of = target.source
                found[target.path] = (shape[0] * (stop - start) // of, shape[1])
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_exactly_these_blocks_of_every_family(architecture: str):
    model = Model.of(weights(FULL_SIZE[architecture]))
    questions, expected = [], []
    for layout in LAYOUTS:
        tensors = {}
        for path, shape in file_names(architecture, layout).items():
            name = SPELLED[layout].format(path.replace(".", "_") if layout == "musubi" else path)
            tensors |= WRITERS["lora"](name, *shape)
        raw = parse(tensors, {"lyco_architecture": architecture})
        try:
            placement = model.place(raw)
        except ArchitectureError:
            continue
        names = pattern_names(raw)
        kinds, draw = kinds_of(list(names)), random.Random(f"{architecture} {layout}")
        assert any(kind["pattern"] for kind in kinds)
        strengths = {kind["name"]: some_strengths(kind, draw) for kind in kinds}
        questions.append({"kinds": kinds, "strengths": [list(strengths[kind["name"]].items()) for kind in kinds]})
        expected.append((raw, placement, names, strengths))
    assert questions
    for question, answer, (raw, placement, names, strengths) in zip(questions, asked(questions), expected, strict=True):
        assert answer["read"] == [{str(n): s for n, s in pairs} for pairs in question["strengths"]]
        lines = answer["text"].splitlines()
        assert len(lines) <= sum(len(set(one.values())) for one in strengths.values())
        selection = Selection.of(block_strengths=map(parse_block_strength, lines))
        of = {raw.prefixes[path]: name for name, path in names.items()}
        found = selection.strengths(placement.names)
        for piece in placement.placed:
            kind, number = block_in(of[placement.adapter_set.prefixes[piece.module_path]])
            assert found[piece] == strengths[kind].get(number, 1.0), (answer["text"], piece)


KINDS = kinds_of(
    [f"double_blocks.{n}.img_attn.qkv" for n in range(19)] + [f"single_blocks.{n}.linear1" for n in range(38)]
)
READ = {
    "": [{}, {}],
    r"double_blocks\.(\d|1\d)\..*=0.5": [{str(n): 0.5 for n in range(19)}, {}],
    "double_blocks\\.1\\..*=.25\n\n  single_blocks\\.\\d+\\..*=0": [{"1": 0.25}, {str(n): 0 for n in range(38)}],
    "single_blocks\\.[3-5]\\..*=2\nsingle_blocks\\.4\\..*=-1e-1": [{}, {"3": 2, "4": -0.1, "5": 2}],
}
CUSTOM = (
    r"double_blocks\..*=0.5",
    r"double_blocks\.1?\d\..*=0.5",
    r"double_blocks\.[5-3]\..*=0.5",
    r"double_blocks\.[19\..*=0.5",
    r"double_blocks\.0\d\..*=0.5",
    r"double_blocks\.19\..*=0.5",
    r"double_blocks\.(1|2\..*=0.5",
    r"double_blocks\.1\..*=nan",
    r"double_blocks\.1\..*=1e39",
    r"double_blocks\.1\..*",
    "double_blocks\\.1\\..*=0.5\n.*attn.*=0",
)


def test_texts_by_hand():
    """What is of the form that is written is read; of every other text nothing."""
    answers = asked([{"kinds": KINDS, "text": text} for text in (*READ, *CUSTOM)])
    assert [answer["read"] for answer in answers] == [*READ.values(), *([None] * len(CUSTOM))]


@pytest.mark.parametrize(
    ("numbers", "pattern"),
    (
        (range(19), r"double_blocks\.\d+\..*"),
        (range(18), r"double_blocks\.(\d|1[0-7])\..*"),
        ((1,), r"double_blocks\.1\..*"),
        ((1, 11), r"double_blocks\.(1|11)\..*"),
        ((2, 4, 5, 12, 14, 15), r"double_blocks\.([245]|1[245])\..*"),
    ),
)
def test_compact(numbers: range | tuple[int, ...], pattern: str):
    (answer,) = asked([{"kinds": KINDS, "strengths": [[(n, 0.5) for n in numbers], []]}])
    assert answer["text"] == f"{pattern}=0.5"


@pytest.mark.parametrize(
    ("name", "expected"),
    (
        ("te_layers_3_mlp", (r"te_layers_", r"_.*")),
        ("up.3", (r"up\.", "([._].*)?")),
        ("a.b.03.c", None),
        ("a.b\n.3.c", None),
        (" a.3.c", None),
        ("img_in", None),
    ),
)
def test_before_and_after_the_numbers(name: str, expected: tuple[str, str] | None):
    (kind,) = kinds_of([name])
    assert kind["pattern"] == expected
