"""Which models read a clip's first frame, told from their files, and which image encoder sees it for them."""

from pathlib import Path

import pytest
import torch
from lyco_testing.tables import OTHERS, weights
from safetensors.torch import save_file

from lyco_core.architectures.registry import ARCHITECTURES
from lyco_core.errors import LycoError
from lyco_core.model import Model
from lyco_core.train.first_frames import first_frame, first_frame_settings

WAN = {"patch_embedding.weight": (64, 36, 1, 2, 2), "head.head.weight": (64, 64)}
SEES = WAN | {"img_emb.proj.1.weight": (1280, 1280)}
HUNYUAN = {"final_layer.linear.weight": (64, 64), "img_in.proj.weight": (64, 32, 1, 2, 2)}
HUNYUAN_I2V = HUNYUAN | {"img_in.proj.weight": (64, 33, 1, 2, 2)}
HUNYUAN_15 = {
    "final_layer.linear.weight": (32, 64),
    "img_in.proj.weight": (64, 65, 1, 1, 1),
    "vision_in.proj.1.weight": (1152, 1152),
}
OTHER = "reads an image beside the noise that is neither its clip's first frame nor a control video alone"
FUN = WAN | {"patch_embedding.weight": (64, 48, 1, 2, 2)}
FUN_22 = WAN | {"patch_embedding.weight": (64, 52, 1, 2, 2), "ref_conv.weight": (64, 16, 2, 2)}


def model(family: str, shapes: dict[str, tuple[int, ...]]) -> Model:
    return Model({f"model.{key}": shape for key, shape in shapes.items()}, "model.", ARCHITECTURES[family], "comfyui")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> dict[int, str]:
    """Width -> a file that looks like an image encoder of it; 1: llava's."""
    folder = tmp_path_factory.mktemp("encoders")
    for width in (1152, 1280):
        key = "vision_model.embeddings.position_embedding.weight"
        save_file({key: torch.zeros(4, width)}, folder / f"{width}.safetensors")
    save_file({"x": torch.zeros(1)}, folder / "0.safetensors")
    save_file({"multi_modal_projector.linear_1.bias": torch.zeros(1)}, folder / "1.safetensors")
    return {width: str(folder / f"{width}.safetensors") for width in (0, 1, 1152, 1280)}


@pytest.mark.parametrize(
    ("family", "shapes", "width", "node"),
    [
        ("wan", WAN | {"patch_embedding.weight": (64, 16, 1, 2, 2)}, 1280, None),
        ("wan", {"patch_embedding.weight": (64, 48, 1, 2, 2), "head.head.weight": (192, 64)}, None, None),  # 2.2 5B
        ("wan", WAN, None, "WanImageToVideo"),
        ("wan", SEES, 1280, "WanImageToVideo"),
        ("wan", SEES | {"img_emb.emb_pos": (1, 514, 1280)}, 1280, "WanFirstLastFrameToVideo"),
        ("hunyuan_video", HUNYUAN, None, "HunyuanImageToVideo"),
        ("hunyuan_video", HUNYUAN_I2V, 1, "HunyuanImageToVideo"),
        ("hunyuan_video_1_5", HUNYUAN_15, None, None),
        ("hunyuan_video_1_5", HUNYUAN_15, 1152, "HunyuanVideo15ImageToVideo"),
        ("hunyuan_video_1_5", HUNYUAN_15 | {"img_in.proj.weight": (64, 98, 1, 1, 1)}, 1152, None),  # super resolution
        ("z_image", {}, None, None),
    ],
)
def test_what_a_model_reads(family, shapes, width, node, encoders):
    found = first_frame(model(family, shapes), encoders[width] if width else "")
    assert (found.node if found else None) == node


@pytest.mark.parametrize(
    ("family", "shapes", "width", "task", "message"),
    [
        ("wan", SEES | FUN | {"patch_embedding.weight": (64, 56, 1, 2, 2)}, 1280, "", OTHER),
        ("wan", WAN | {"control_adapter.conv.weight": (64, 64)}, None, "", OTHER),  # Camera of Wan 2.2
        ("wan", WAN | {"face_adapter.fuser_blocks.0.linear2.weight": (64, 64)}, None, "", OTHER),  # Animate
        ("wan", WAN | {"patch_embedding_pose.weight": (64, 16)}, None, "", OTHER),  # SCAIL
        ("hunyuan_video", HUNYUAN | {"img_in.proj.weight": (64, 34, 1, 2, 2)}, None, "", OTHER),
        (
            "hunyuan_video",
            HUNYUAN_I2V,
            None,
            "",
            "sees the first frame through an image encoder too, and none is named",
        ),
        (
            "hunyuan_video",
            HUNYUAN_I2V,
            1280,
            "",
            "1280.safetensors: has no multi_modal_projector.linear_1.bias, by which",
        ),
        (
            "hunyuan_video",
            HUNYUAN | {"img_in.proj.weight": (64, 16, 1, 2, 2)},
            1,
            "",
            r"in the latent itself \(v2, repl",
        ),
        ("flux1", {"img_in.weight": (64, 128), "final_layer.linear.weight": (64, 64)}, None, "", OTHER),
        ("wan", SEES, None, "", "sees the first frame through an image encoder too, and none is named; give image_"),
        ("hunyuan_video_1_5", HUNYUAN_15, None, "i2v-14B", "sees the first frame through an image encoder too"),
        (
            "wan",
            WAN | {"patch_embedding.weight": (64, 16, 1, 2, 2)},
            None,
            "i2v-14B",
            "reads no first frame, and the task",
        ),
        ("wan", FUN_22, None, "i2v-14B-FC", "reads no first frame, and the task"),
        ("wan", SEES | FUN, None, "i2v-14B-FC", "sees the first frame through an image encoder too"),
        (
            "wan",
            WAN,
            None,
            "t2v-14B-FC",
            "reads no control video, and the task is t2v-14B-FC; name the dit of Fun-Contr",
        ),
        ("wan", SEES, 1152, "", "1152.safetensors: sees 1152 numbers in a patch, and the model reads 1280"),
        ("wan", SEES, 0, "", "0.safetensors: is no image encoder that ComfyUI knows, and the model reads 1280"),
    ],
)
def test_what_is_refused(family, shapes, width, task, message, encoders):
    with pytest.raises(LycoError, match=message):
        first_frame(model(family, shapes), encoders[width] if width is not None else "", task)


@pytest.mark.parametrize(
    ("shapes", "width", "task", "reads"),
    [
        (SEES | FUN, None, "", ("WanFunControlToVideo", False)),
        (SEES | FUN, 1280, "", ("WanFunControlToVideo", True)),
        (SEES | FUN, 1280, "i2v-14B-FC", ("WanFunControlToVideo", True)),
        (SEES | FUN, 1280, "t2v-14B-FC", ("WanFunControlToVideo", False)),
        (FUN_22, None, "", ("Wan22FunControlToVideo", False)),
    ],
)
def test_what_fun_control_reads(shapes, width, task, reads, encoders):
    """A control video over the clip, and where the image encoder or the task says so the first frame."""
    found = first_frame(model("wan", shapes), encoders[width] if width else "", task)
    assert found
    assert found.control
    assert (found.node, found.first) == reads


@pytest.mark.parametrize("name", [name for name, family in OTHERS.items() if family == "wan"])
def test_models_made_of_wan_are_taken_for_none(name: str):
    """Whatever they have in the channels of a first frame."""
    try:
        assert first_frame(Model.of(weights(name)), "") is None
    except LycoError as error:
        assert OTHER in str(error)


def test_what_the_configuration_says():
    rest = {"image_encoder": "a.safetensors", "task": "i2v"}
    assert first_frame_settings(rest, {"model": {"task": "i2v-A14B"}}, Path("/x")) == ("/x/a.safetensors", "i2v-A14B")
    assert rest == {"task": "i2v"}
    assert first_frame_settings({"image_encoder": ["b"]}, {"task": "t2v-14B"}, Path("/x")) == ("/x/b", "t2v-14B")
    assert first_frame_settings({}, {}, Path("/x")) == ("", "")
    with pytest.raises(LycoError, match="expected one file; clip and image_encoder are the same"):
        first_frame_settings({"image_encoder": ["a", "b"]}, {}, Path("/x"))
