"""Families that Musubi does not train: full-size lists of ComfyUI's weights, renamed to every layout and told again."""

import functools
import itertools
import math
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lyco_testing.families import family_of, paths_of, renamed, shapes_of
from lyco_testing.tables import OTHERS, dotted_file, musubi_file, peft_file, weights
from torch import Tensor

from lyco_core.adapter_set import AdapterSet
from lyco_core.architectures import ARCHITECTURES, identify, recognise
from lyco_core.errors import ArchitectureError
from lyco_core.formats import parse
from lyco_core.layouts import LAYOUTS, Layout
from lyco_core.placement import Placement, place

every_model = pytest.mark.parametrize("model", OTHERS)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)

PARTS = {
    "all": r".*",
    "attention": r".*att[en].*",
    "attention and MLP": r".*(att[en]|mlp|ff|feed_forward|linear1|linear2).*",
}


@every_model
def test_every_weight_of_comfyui_is_in_the_table(model: str):
    family = family_of(model)
    for path, (height, *columns) in shapes_of(model).items():
        assert family.resolve(path, "comfyui", underscored=False) == path
        assert family.resolve(path.replace(".", "_"), "comfyui", underscored=True) == path
        assert family.fits(path, "comfyui", (height, math.prod(columns)))


@every_model
@every_layout
def test_there_and_back_is_the_identity(model: str, layout: Layout):
    family = family_of(model)
    covered: dict[str, list[tuple[int, int]]] = {}
    for path, shape in renamed(model, layout).items():
        assert family.resolve(path.replace(".", "_"), layout, underscored=True) == path
        assert family.fits(path, layout, shape)
        (target,) = family.locate(path, layout, "comfyui")
        height = shapes_of(model)[target.path][0]
        start, stop, total = target.rows
        assert target.source == (0, stop - start, stop - start)
        assert height * (stop - start) // total == shape[0]
        covered.setdefault(target.path, []).append((height * start // total, height * stop // total))
    for path, bands in covered.items():
        edges = [0, *(stop for _, stop in sorted(bands))]
        assert sorted(bands) == list(itertools.pairwise(edges)), f"{path}: rows overlap or are left out"
        assert edges[-1] == shapes_of(model)[path][0]


def test_what_has_no_name_in_diffusers():
    """Where diffusers swaps halves of a modulation; and what is a model of its own there, or not there at all."""
    others = re.compile(r"llm_adapter\..*|\w+_embeddings_connector\..*|latent_conditioners\.0")
    of_wan = re.compile(
        r"(control_adapter|audio_proj|casual_audio_encoder|audio_injector|frame_packer|music_\w+|head_global)\..*|"
        r".*\.audio_cross_attn\..*|img_emb_refimage\..*|motion_encoder\.dec\.direction|cond_encoder|music_projection|"
        r"patch_embedding_(pose|mask|global)"
    )
    without = {
        model: {
            re.sub(r"\.\d+\.", ".N.", path)
            for path in shapes_of(model)
            if not family_of(model).locate(path, "comfyui", "diffusers")
            and not (of_wan if OTHERS[model] == "wan" else others).fullmatch(path)
        }
        for model in OTHERS
    }
    assert {model: names for model, names in without.items() if names} == {
        "chroma_radiance": {
            "img_in_patch",
            "nerf_blocks.N.param_generator",
            "nerf_final_layer_conv.conv",
            "nerf_image_embedder.embedder.0",
        },
    }


SPELLINGS: list[tuple[Layout, Callable[..., dict[str, Tensor]], tuple[str, str]]] = [
    ("musubi", musubi_file, ("all", "attention")),
    ("diffusers", musubi_file, ("all", "attention and MLP")),
    ("comfyui", dotted_file, ("all", "attention and MLP")),
    ("diffusers", peft_file, ("all", "attention")),
]
"""Layout, writer, and the parts tried so: each with dots, with underscores, by diffusers' names and by others."""

DOUBTFUL = {
    *(("mage_flow", part, layout) for part in ("attention", "attention and MLP") for layout in LAYOUTS),
    *(("cosmos_predict2_14b", part, "diffusers") for part in PARTS),
}
"""Parts whose names and shapes are those of the first blocks of other models too, or of all: of Cosmos 1.0 14B's."""


@every_model
@pytest.mark.parametrize(("layout", "write", "parts"), SPELLINGS)
def test_a_file_is_told(model: str, layout: Layout, write: Callable[..., dict[str, Tensor]], parts: tuple[str, str]):
    modules = renamed(model, layout)
    whole = parse(write(modules, "lora"), {})
    spelled = dict(zip(modules, whole.adapters, strict=True))
    for part in parts:
        if part != "all" and any(part_of(one, layout, part) == part_of(model, layout, part) for one in before(model)):
            continue  # the same file; that it lies on this model too, the whole one shows
        own = part_of(model, layout, part)
        others = {name: "of no part" for path, name in spelled.items() if path not in own}
        file = whole.without(others)
        for placement in placements(file, model, doubtful=(model, part, layout) in DOUBTFUL):
            assert placement.complete
            assert placement.modules == len(own)


def before(model: str) -> list[str]:
    """The models of its family that are tried before it."""
    models = [other for other, family in OTHERS.items() if family == OTHERS[model]]
    return models[: models.index(model)]


@functools.cache
def part_of(model: str, layout: Layout, part: str) -> dict[str, tuple[int, int]]:
    return {path: shape for path, shape in renamed(model, layout).items() if re.fullmatch(PARTS[part], path)}


def placements(file: AdapterSet, model: str, *, doubtful: bool) -> list[Placement]:
    """Of the file on the model, and as told by itself where that is another: Chroma's names are FLUX.1's too."""
    family = ARCHITECTURES[OTHERS[model]]
    loaded = identify(file, model_modules=paths_of(model), prefer=family.id)
    assert loaded.architecture is family
    if doubtful:
        with pytest.raises(ArchitectureError, match=f"those of .*{family.id}"):
            identify(file)
        return [place(loaded, weights(model))]
    alone = identify(file)
    assert alone.architecture is family or (alone.architecture, family.id) == (ARCHITECTURES["flux1"], "chroma")
    told = {(f.architecture.id, f.layout, *f.exceptions, *f.adapters): f for f in (loaded, alone)}
    return [place(found, weights(model)) for found in told.values()]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_few_modules_land_on_the_right_rows(data: st.DataObject):
    """Then several families fit; the model decides, and without one it is the right rows or a refusal."""
    model = data.draw(st.sampled_from(list(OTHERS)))
    layout, write, _ = data.draw(st.sampled_from(SPELLINGS))
    everything = renamed(model, layout)
    names = data.draw(st.lists(st.sampled_from(list(everything)), min_size=1, max_size=6, unique=True))
    file = parse(write({name: everything[name] for name in names}, "lora"), {})
    wanted = {
        (f"diffusion_model.{t.path}.weight", t.rows)
        for name in names
        for t in family_of(model).locate(name, layout, "comfyui")
    }
    loaded = place(identify(file, model_modules=shapes_of(model), prefer=OTHERS[model]), weights(model))
    assert loaded.complete
    assert {p.key for p in loaded.placed} == {key for key, _ in wanted}
    if write is musubi_file:
        return  # Musubi's own names for a model that it trains go first there
    try:
        alone = identify(file)
    except ArchitectureError as error:
        assert OTHERS[model] in str(error)
    else:
        assert {p.key for p in place(alone).placed} == {key for key, _ in wanted}


@every_model
def test_models_are_recognised(model: str):
    found = recognise(shapes_of(model))
    assert found is not None
    assert found[0].id == OTHERS[model]
    assert all(found[0].locate(path, found[1], "comfyui")[0].path == path for path in shapes_of(model))
