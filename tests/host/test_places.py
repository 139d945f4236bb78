"""Where on a model a patch goes, as ComfyUI spells it and as we do."""

import importlib
from types import SimpleNamespace

import pytest
import torch
from lyco_testing.comfy_models import tiny_model


@pytest.fixture
def made(pack) -> SimpleNamespace:
    names = {"places": "nodes.host.model.places", "errors": "lyco_core.errors"}
    return SimpleNamespace(**{k: importlib.import_module(f"{pack.__name__}.{v}") for k, v in names.items()})


def halves(rows: torch.Tensor) -> torch.Tensor:
    return torch.cat(rows.chunk(2)[::-1])


@pytest.mark.parametrize(
    "key", ["a.weight", ("a.weight", (0, 8, 4)), ("a.weight", None, halves), ("a", (1, 2, 3), halves)]
)
def test_a_place_is_spelt_as_comfyui_spells_it(key, made):
    place = made.places.Place.of(key)
    assert place.patch_key == key
    assert made.places.Place.of(place.patch_key) == place


def test_a_key_with_nothing_behind_it_is_the_key(made):
    assert made.places.Place.of(("a.weight", None)) == made.places.Place.of("a.weight")


def test_a_part_of_a_weight_has_its_shape_and_its_band(made):
    rows, columns, whole = (made.places.Place("a", part) for part in ((0, 8, 4), (1, 2, 3), None))
    assert [place.shape_in({"a": (16, 5)}) for place in (rows, columns, whole)] == [(4, 5), (16, 3), (16, 5)]
    assert (rows.band, whole.band) == ((8, 12), (0, float("inf")))


def test_each_change_is_added_at_its_own_strength(made):
    model = tiny_model("wan").clone()
    keys = [key for key, _ in model.model.named_parameters() if key.endswith("self_attn.q.weight")][:2]
    changes = {
        made.places.Place(key): made.places.Change(("diff", (torch.ones(()),)), strength)
        for key, strength in zip(keys, (0.5, -2.0), strict=True)
    }
    made.places.add_changes(model, made.places.scaled(changes, 2.0))
    assert {key: [patch[0] for patch in patches] for key, patches in model.patches.items()} == {
        keys[0]: [1.0],
        keys[1]: [-4.0],
    }


def test_what_comfyui_does_not_take_is_named(made):
    changes = {made.places.Place("nowhere.weight"): made.places.Change(("diff", (torch.ones(()),)), 1.0)}
    with pytest.raises(made.errors.PlacementError, match=r"did not take 1 patches, e\.g\. nowhere\.weight"):
        made.places.add_changes(tiny_model("wan").clone(), changes)
