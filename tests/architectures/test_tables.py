"""Every table is a bijection over the full-size module lists, and expands to what Musubi trains."""

import re

import pytest
from lyco_testing.tables import ARCHITECTURE_OF, MODELS, OTHERS, targets, weights

from lyco_core.architectures import ARCHITECTURES, Architecture, index_families
from lyco_core.architectures.table import Group
from lyco_core.layouts import LAYOUTS, Layout

every_model = pytest.mark.parametrize("model", MODELS)
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=list(ARCHITECTURES))


def rows_of(architecture: Architecture, path: str, source: Layout, target: Layout, height: int):
    """{(target path, row) for each of `height` rows of `path`, top to bottom}."""
    spots = []
    for t in architecture.locate(path, source, target):
        start, stop, of = t.source
        count = height * (stop - start) // of
        total = count * t.rows[2] // (t.rows[1] - t.rows[0])
        first = total * t.rows[0] // t.rows[2]
        spots += [(t.path, total, first + row) for row in range(count)]
    return spots


def test_every_family_has_a_model_that_the_tests_try():
    tried = {*ARCHITECTURE_OF.values(), *OTHERS.values()}
    assert tried == ARCHITECTURES.keys(), (
        "list it in tests/golden/architectures.json and in OTHERS of lyco_testing/tables.py"
    )


@every_model
def test_every_row_of_a_target_has_one_place_in_comfyui(model: str):
    architecture = ARCHITECTURES[ARCHITECTURE_OF[model]]
    shapes = weights(model)
    taken: dict[str, list[tuple[int, int]]] = {}
    for path, (rows, columns) in targets(model).items():
        assert architecture.fits(path, "musubi", (rows, columns))
        (target,) = architecture.locate(path, "musubi", "comfyui")
        shape = shapes[f"diffusion_model.{target.path}.weight"]
        start, stop, of = target.rows
        assert shape[0] % of == 0
        assert (shape[0] * (stop - start) // of, *shape[1:]) == (rows, columns)
        taken.setdefault(target.path, []).append((shape[0] * start // of, shape[0] * stop // of))
    for path, bands in taken.items():
        end = 0
        for start, stop in sorted(bands):
            assert start == end, f"{path}: rows overlap or are left out"
            end = stop
        assert end == shapes[f"diffusion_model.{path}.weight"][0]


@every_model
@pytest.mark.parametrize("layout", LAYOUTS)
def test_there_and_back_is_the_identity(model: str, layout: Layout):
    architecture = ARCHITECTURES[ARCHITECTURE_OF[model]]
    for path in targets(model):
        group, position = architecture.group_of(path, "musubi")
        parts = group.names("musubi") or ()
        rows = 3 * (sum(group.heights) if len(parts) == 1 else group.heights[position])
        there = rows_of(architecture, path, "musubi", layout, rows)
        assert len(set(there)) == rows
        for name, total in {(name, total) for name, total, _ in there}:
            back = rows_of(architecture, name, layout, "musubi", total)
            for row, (_, _, spot) in enumerate(there):
                if there[row][0] == name:
                    assert (back[spot][0], back[spot][2]) == (path, row)


@pytest.mark.parametrize("model", [m for m in MODELS if m != "framepack"])
def test_every_weight_of_comfyui_is_in_the_table(model: str):
    """Also those outside the blocks: other trainers reach them, and a model is recognised by them."""
    architecture = ARCHITECTURES[ARCHITECTURE_OF[model]]
    paths = [key.removeprefix("diffusion_model.").removesuffix(".weight") for key in weights(model)]
    # Parameters that are no modules, and an embedding that nobody trains with low-rank factors.
    known_others = re.compile(r".*\.modulation|modulation|cond_type_embedding")
    missing = [
        p
        for p in paths
        if architecture.resolve(p, "comfyui", underscored=False) is None and not known_others.fullmatch(p)
    ]
    assert missing == []


@every_model
def test_default_excludes_leave_musubis_targets(model: str):
    """Musubi's patterns over the block modules of the table leave exactly what Musubi trains."""
    architecture = ARCHITECTURES[ARCHITECTURE_OF[model]]
    patterns = [re.compile(pattern) for pattern in architecture.training.excludes]
    blocks = tuple(f"{name}.{{n}}." for name in architecture.depths)
    inside = [name for name in architecture.templates("musubi") if name.startswith(blocks)]
    left = {name for name in inside if not any(p.fullmatch(name.replace("{n}", "0")) for p in patterns)}
    if "t2v" in model:
        left -= {f"blocks.{{n}}.cross_attn.{name}_img" for name in "kv"}
    assert left == {architecture.template_of(path, "musubi")[0] for path in targets(model)}


@every_architecture
def test_names_are_unique_also_underscored(architecture: Architecture):
    for layout in LAYOUTS:
        names = architecture.templates(layout)
        assert len({name.replace(".", "_") for name in names}) == len(names)
        for name in names:
            numbered = name.replace("{n}", "7")
            assert architecture.resolve(numbered, layout, underscored=False) == numbered
            assert architecture.resolve(numbered.replace(".", "_"), layout, underscored=True) == numbered


@every_architecture
def test_mistakes_in_a_table_raise_at_once(architecture: Architecture):
    with pytest.raises(ValueError, match="expected one module or 3"):
        Group(("a", "b"), None, None, heights=(1, 1, 1))
    import dataclasses

    twice = dataclasses.replace(architecture, groups=architecture.groups + architecture.groups[:1])
    with pytest.raises(ValueError, match="twice"):
        twice.templates("musubi")


def test_indexes_are_made_before_the_first_file():
    made = ("_index", "_underscored", "_dotted")
    for family in ARCHITECTURES.values():
        for index in made:
            vars(family).pop(index, None)
    index_families()
    assert all(index in vars(family) for family in ARCHITECTURES.values() for index in made)
