"""A trained family is one record, whose names are those of its table; a family that lacks something is none."""

import dataclasses
import re

import pytest
from lyco_testing.tables import ARCHITECTURE_OF, MODELS, TRAINED, targets

from lyco_core.architectures import ARCHITECTURES, Architecture, TrainedFamily
from lyco_core.architectures.registry import by_id
from lyco_core.architectures.table import inside_all, same
from lyco_core.layouts import LAYOUTS, Layout
from lyco_core.train.options import train_options

every_trained = pytest.mark.parametrize("family", TRAINED)


def test_each_has_a_full_size_list_of_what_musubi_trains():
    assert {ARCHITECTURE_OF[model] for model in MODELS} == {id for id, found in TRAINED.items() if found.by_musubi}


@every_trained
def test_what_it_recommends_is_an_option(family: str):
    trained = TRAINED[family]
    found = train_options({"timestep_sampling": trained.sampling, "discrete_flow_shift": trained.shift}).noise
    assert (found.timestep_sampling, found.discrete_flow_shift) == (trained.sampling, trained.shift)
    assert found.timestep_sampling != "auto"


@every_trained
def test_its_names_are_its_table_s(family: str):
    architecture, trained = ARCHITECTURES[family], TRAINED[family]
    if image := trained.image_input:
        assert {image.reads, image.writes} <= set(architecture.templates("comfyui"))
    assert {block for block, _ in trained.names.by_depth} <= architecture.depths.keys()
    assert all(re.compile(pattern) for pattern in trained.outside)
    assert all(re.compile(pattern) for pattern in trained.excludes)
    lists = {name.split(".{n}")[0] for name in architecture.templates("comfyui") if ".{n}." in name}
    trained_in = {
        place.path.split(".0.")[0]
        for block in architecture.depths
        for name in architecture.templates("musubi")
        if name.startswith(f"{block}.{{n}}.") and not any(re.fullmatch(p, name) for p in trained.excludes)
        for place in architecture.locate(name.replace("{n}", "0"), "musubi", "comfyui")
    }
    assert trained_in & lists <= set(trained.comfyui_blocks), "a list of blocks that no backward pass computes again"


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(TrainedFamily)])
def test_a_family_that_lacks_something_is_an_error_at_once(field: str):
    """Where its table is made, which is as the registry is imported."""
    fields = {f.name: getattr(TRAINED["wan"], f.name) for f in dataclasses.fields(TrainedFamily)}
    assert TrainedFamily(**fields) == TRAINED["wan"]
    del fields[field]
    with pytest.raises(TypeError, match=field):
        TrainedFamily(**fields)


def test_two_families_of_one_id_are_an_error_at_once():
    assert list(by_id(ARCHITECTURES.values())) == list(ARCHITECTURES)
    twice = dataclasses.replace(ARCHITECTURES["krea2"], id="wan")
    with pytest.raises(ValueError, match=r"Wan 2.1/2.2 and Krea 2 are both 'wan'"):
        by_id([*ARCHITECTURES.values(), twice])


NEW = Architecture(
    id="new",
    title="New",
    groups=(*inside_all("stage_2.units.{n}", same("attn.0", "mlp.1")), *same("head.7.out")),
    depths={"stage_2.units": 12},
)
"""Blocks that are called as no other family's."""


@pytest.mark.parametrize("number", ["0", "7", "11"])
def test_blocks_are_numbered_as_the_table_says(number: str):
    for path in (f"stage_2.units.{number}.attn.0", "head.7.out"):
        for name, underscored in ((path, False), (path.replace(".", "_"), True)):
            assert NEW.resolve(name, "musubi", underscored=underscored) == path
        assert NEW.locate(path, "musubi", "diffusers")[0].path == path
    for wrong in ("stage_2.units.01.attn.0", "stage_2.units.{n}.attn.0", "stage_2.units.x.attn.0"):
        assert NEW.resolve(wrong, "musubi", underscored=False) is None


def test_a_block_s_number_that_would_not_be_found_is_an_error_at_once():
    for block in ("a.1.2.3.blocks.{n}", "blocks{n}"):
        with pytest.raises(ValueError, match=r"expected {n} between dots, as one of the first 3 numbers"):
            inside_all(block, same("attn"))


def test_a_block_that_the_table_lacks_is_an_error_at_once():
    with pytest.raises(ValueError, match=r"new: there is no block layers.{n} in Musubi's layout"):
        dataclasses.replace(NEW, depths={"layers": 12})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_every_template_of_a_block_finds_its_number(family: str, layout: Layout):
    architecture = ARCHITECTURES[family]
    for template in architecture.templates(layout):
        if "{n}" in template:
            found, position = architecture.group_of(template.replace("{n}", "3"), layout)
            assert found.names(layout)[position] == template


@pytest.mark.parametrize("model", MODELS)
def test_excludes_leave_out_no_target(model: str):
    patterns = [re.compile(pattern) for pattern in TRAINED[ARCHITECTURE_OF[model]].excludes]
    assert not [path for path in targets(model) if any(pattern.fullmatch(path) for pattern in patterns)]
