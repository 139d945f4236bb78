"""Which models and datasets are of pictures with their layers."""

from pathlib import Path

import pytest

from lyco_core.architectures import ARCHITECTURES
from lyco_core.errors import TrainError
from lyco_core.model import Model
from lyco_core.train.dataset import Dataset
from lyco_core.train.layers import require_layers

PREFIX = "diffusion_model."
SHAPES = {f"{PREFIX}x.weight": (1, 1)}
PLAIN, LAYERED = (
    Model(shapes, PREFIX, ARCHITECTURES["qwen_image"], "comfyui")
    for shapes in (SHAPES, SHAPES | {f"{PREFIX}time_text_embed.addition_t_embedding.weight": (2, 1)})
)


def dataset(place: Path, *, layers: str = "", **more: object) -> Dataset:
    (place / "items.jsonl").write_text(f'{{"image_path": "a.png", "caption": "b"{layers}}}')
    return Dataset(image_jsonl_file=str(place / "items.jsonl"), **{"multiple_target": True, **more})


ONE = ', "image_path_1": "a_1.png"'


def test_what_is_learned(tmp_path: Path):
    for version in ("", "layered"):
        for removed in (False, True):
            found = require_layers(LAYERED, [dataset(tmp_path, layers=ONE)], version, first_removed=removed)
            assert found
            assert (found.layers, found.whole, found.node, found.method) == (True, not removed, "", "")
    assert require_layers(PLAIN, [dataset(tmp_path, multiple_target=False)], "edit") is None


@pytest.mark.parametrize(
    ("model", "entry", "version", "removed", "message"),
    [
        (PLAIN, {"layers": ONE}, "layered", False, "model_version is layered, and the model's file has no time_text_e"),
        (PLAIN, {"layers": ONE}, "", False, "items.jsonl: multiple_target is for Qwen-Image-Layered, which the model"),
        (PLAIN, {"multiple_target": False}, "", True, "remove_first_image_from_target is for Qwen-Image-Layered alone"),
        (
            LAYERED,
            {"layers": ONE},
            "edit",
            False,
            "model_version is edit, and the model's file says that it is layered",
        ),
        (LAYERED, {"multiple_target": False}, "", False, "items.jsonl: Qwen-Image-Layered is trained on pictures with"),
        (LAYERED, {}, "", False, r"a.png: has no layers; put them beside it: NAME_1, NAME_2"),
        (LAYERED, {"layers": ONE, "control_resolution": (64, 64)}, "", False, "layers lie over their picture, at the"),
        (LAYERED, {"layers": f'{ONE}, "control_path": "c.png"'}, "", False, "a.png: has control images, and the model"),
    ],
)
def test_refused(model: Model, entry: dict, version: str, removed: bool, message: str, tmp_path: Path):
    with pytest.raises(TrainError, match=message):
        require_layers(model, [dataset(tmp_path, **entry)], version, first_removed=removed)


def test_a_layer_is_not_taken_for_the_picture(tmp_path: Path):
    (tmp_path / "items.jsonl").write_text('{"image_path_1": "a_1.png", "image_path_2": "a_2.png", "caption": "b"}')
    with pytest.raises(TrainError, match="line 1 cannot be read, expected"):
        require_layers(LAYERED, [Dataset(image_jsonl_file=str(tmp_path / "items.jsonl"), multiple_target=True)], "")
