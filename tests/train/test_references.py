"""Which models read control images, and how many."""

import dataclasses
import logging
from pathlib import Path

import pytest

from lyco_core.architectures import ARCHITECTURES
from lyco_core.errors import TrainError
from lyco_core.model import Model
from lyco_core.train.dataset import Dataset
from lyco_core.train.references import EDITIONS, require_controls

MARK = "diffusion_model.__index_timestep_zero__"


def model(family: str, *, marked: bool = False) -> Model:
    shapes = {"diffusion_model.x.weight": (1, 1)} | ({MARK: (0,)} if marked else {})
    return Model(shapes, "diffusion_model.", ARCHITECTURES[family], "comfyui")


def dataset(place: Path, *controls: int) -> Dataset:
    """One image for each number, with so many control images."""
    (place / "x").mkdir()
    lines = []
    for number, count in enumerate(controls):
        named = "".join(f', "control_path_{n}": "{number}_{n}.png"' for n in range(count))
        lines.append(f'{{"image_path": "{number}.png", "caption": "a"{named}}}')
    (place / "items.jsonl").write_text("\n".join(lines))
    return Dataset(image_jsonl_file=str(place / "items.jsonl"))


@pytest.mark.parametrize(
    ("weights", "version", "controls", "title"),
    [
        (model("flux1"), "", (1, 1), "FLUX.1 Kontext"),
        (model("flux2"), "", (1, 5, 0), "FLUX.2"),
        (model("qwen_image"), "edit", (1, 0), "Qwen-Image-Edit"),
        (model("qwen_image"), "edit-2509", (1, 3), "Qwen-Image-Edit-2509"),
        (model("qwen_image"), "edit-2511", (1,), "Qwen-Image-Edit-2511"),
        (model("qwen_image", marked=True), "", (1,), "Qwen-Image-Edit-2511"),
    ],
)
def test_who_reads_them(weights: Model, version: str, controls: tuple, title: str, tmp_path: Path):
    found = require_controls(weights, [dataset(tmp_path, *controls)], version)
    assert found is not None
    assert found.title == title


@pytest.mark.parametrize(
    ("weights", "version", "controls", "message"),
    [
        (model("wan"), "", (1,), "are control images and Wan 2.1/2.2 reads none: take out control_directory"),
        (dataclasses.replace(model("wan"), architecture=None), "", (1,), "are control images and the model reads none"),
        (model("flux1"), "", (2,), r"0.png: has 2 control images, and FLUX.1 Kontext reads at most 1; take the others"),
        (model("flux1"), "", (1, 0), r"1.png: has no control image \(1 of 2 images have none, the others do\)"),
        (model("qwen_image"), "edit", (2,), "reads at most 1; take the others away; model_version edit-2509 and"),
        (model("qwen_image"), "edit-2509", (4,), "Qwen-Image-Edit-2509 reads at most 3; take the others away$"),
        (model("qwen_image"), "", (1,), "model_version is not given: .* give model_version to lyco train, one of edit"),
        (model("qwen_image"), "original", (1,), "control images and model_version is original: "),
        (model("qwen_image", marked=True), "edit-2509", (1,), "edit-2509, and the model's file says that it is edit"),
    ],
)
def test_refused(weights: Model, version: str, controls: tuple, message: str, tmp_path: Path):
    with pytest.raises(TrainError, match=message):
        require_controls(weights, [dataset(tmp_path, *controls)], version)


@pytest.mark.parametrize(("edits", "version"), [(True, ""), (False, "edit"), (False, "")])
def test_images_without(edits: bool, version: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING, "lyco")
    assert require_controls(model("flux1"), [dataset(tmp_path, 0, 0)], version, edits=edits) is None
    assert ("so the edit model is trained as one of text to image" in caplog.text) == bool(edits or version)


def test_some_without(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    require_controls(model("qwen_image"), [dataset(tmp_path, 1, 0, 0)], "edit")
    assert "2 of 3 images have no control image: they are trained as text to image" in caplog.text
    assert set(EDITIONS) == {"edit", "edit-2509", "edit-2511"}
