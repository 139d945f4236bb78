"""*Training Dataset*: a folder of ComfyUI's input folder, over the API and the page's route, to a trained adapter."""

import importlib
import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import av
import numpy as np
import pytest
from lyco_testing.comfy import Server, WorkflowError
from lyco_testing.example_files import write_models
from lyco_testing.tiny_wan import TEXT
from PIL import Image
from safetensors import safe_open


@pytest.fixture(scope="module")
def files(pack, server: Server) -> Server:
    pytest.importorskip("comfy.taesd.taehv", reason="this ComfyUI has no small VAE of videos: update it")
    write_models(server.base)
    both = server.base / "input" / "both"
    both.mkdir()
    picture(both / "wide.png", (128, 64))
    picture(both / "turned.jpg", (64, 128), orientation=6)
    picture(both / "square.png", (96, 96))
    film(both / "film.mp4", 12)
    framed(both / "frames", 6)
    deep = server.base / "input" / "sets" / "deep"
    deep.mkdir(parents=True)
    picture(deep / "a.png", (64, 64))
    return server


def picture(path: Path, size: tuple[int, int], orientation: int = 1) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)).save(path, exif=exif)
    path.with_suffix(".txt").write_text(f"a picture, {path.stem}")


def film(path: Path, frames: int) -> None:
    with av.open(str(path), "w") as video:
        stream = video.add_stream("mpeg4", rate=16)
        stream.width, stream.height = 96, 64
        for number in range(frames):
            pixels = np.full((64, 96, 3), 8 * number, np.uint8)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        video.mux(stream.encode())
    path.with_suffix(".txt").write_text("a film")


def framed(folder: Path, frames: int) -> None:
    """A video as a folder of its frames."""
    folder.mkdir()
    for number in range(frames):
        Image.fromarray(np.full((64, 96, 3), 20 * number, np.uint8)).save(folder / f"{number:04d}.png")
    folder.with_suffix(".txt").write_text("frames")


SMALL = {"width": 96, "height": 64, "target_frames": "5", "enable_bucket": True, "num_repeats": 2}


def dataset(**inputs: object) -> dict:
    return {
        "vae": {"class_type": "VAELoader", "inputs": {"vae_name": "wan_2.1_vae.safetensors"}},
        "clip": {"class_type": "ProbeClip", "inputs": {"width": TEXT}},
        "data": {
            "class_type": "LycoTrainingDataset",
            "inputs": {"vae": ["vae", 0], "clip": ["clip", 0], "folder": "both", **SMALL, **inputs},
        },
        "report": {"class_type": "PreviewAny", "inputs": {"source": ["data", 1]}},
    }


def training(**inputs: object) -> dict:
    options = {"network_module": "lokr", "network_dim": 4, "network_alpha": 4.0, "max_train_steps": 4}
    options |= {"seed": 1, "batch_size": 1, "discrete_flow_shift": 1.0}
    options |= {"factor": -1, "learning_rate": 0.01, "timestep_sampling": "uniform", "output_name": "from_folder"}
    model = {"unet_name": "wan2.1_t2v_1.3B_bf16.safetensors", "weight_dtype": "default"}
    return {
        "model": {"class_type": "UNETLoader", "inputs": model},
        "train": {"class_type": "LycoTrainAdapter", "inputs": {"model": ["model", 0], **options, **inputs}},
    }


def asked(server: Server, **inputs: object) -> tuple[int, dict]:
    query = urllib.parse.urlencode({"inputs": json.dumps({"folder": "both", **SMALL, **inputs})})
    try:
        with urllib.request.urlopen(f"{server.address}/lyco/dataset?{query}", timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_what_is_told_is_what_is_trained(files: Server):
    status, told = asked(files)
    assert status == 200
    assert (told["images"], told["videos"], told["items"], told["repeats"]) == (3, 2, 5, 2)
    # The turned one is shown wide; the film and the frames are 96 x 64, in one piece each.
    assert told["buckets"] == [[96, 64, 0, 2], [96, 64, 5, 2], [64, 80, 0, 1]]
    outputs = files.run(dataset() | training(dataset=["data", 0]))
    assert outputs["data"]["lyco_dataset"] == [told]
    assert "3 images, 2 videos, 5 items, each 2 times in an epoch; 11 were encoded" in outputs["report"]["text"][0]
    assert "4 steps, 5 items" in outputs["train"]["text"][0]
    assert len(list((files.base / "input" / "both" / ".lyco_cache").iterdir())) == 11  # and the empty caption
    with safe_open(files.base / "output" / "loras" / "from_folder.safetensors", "pt") as file:
        images, videos = json.loads(file.metadata()["ss_datasets"])
    assert (images["image_directory"], images["num_repeats"]) == ("both", 2)
    assert videos["target_frames"] == [5]


def test_nothing_is_encoded_twice_and_what_changes_is_seen(files: Server):
    files.run(dataset())
    again = files.run(dataset(num_repeats=1))
    assert "; 0 were encoded, the rest was in the cache" in again["report"]["text"][0]
    (files.base / "input" / "both" / "square.txt").write_text("another caption")
    assert "; 1 was encoded" in files.run(dataset(num_repeats=1))["report"]["text"][0]


def test_datasets_are_added_and_held_out(files: Server):
    more = dataset(folder="sets/deep", dataset=["data", 0])["data"]
    held = dataset(media="videos")["data"]
    given = {"dataset": ["more", 0], "validation_dataset": ["held", 0], "validate_every_n_steps": 2}
    outputs = files.run(dataset() | {"more": more, "held": held} | training(**given, caption_dropout_rate=0.5))
    assert "with the 5 items of dataset: 6" in outputs["more"]["text"][0]
    assert "4 steps, 6 items" in outputs["train"]["text"][0]
    assert "validation" in outputs["train"]["text"][0]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"folder": "none"}, "no folder is chosen; put the pictures into a folder in ComfyUI's input folder"),
        ({"folder": "../output"}, "'../output': there is no such folder in ComfyUI's input folder"),
        ({"folder": "sets"}, "sets: there are no images in it, expected files that end in .png"),
        ({"path": "pictures"}, "path is 'pictures', expected a whole path"),
        ({"target_frames": "five"}, "target_frames is 'five', expected whole numbers such as 1, 25, 45"),
        ({"caption_extension": ".caption"}, "both: 3 of 3 have no caption (square.png, turned.jpg, wide.png)"),
        ({"num_repeats": "many"}, "num_repeats is 'many', expected int"),
        ({"width": 8}, "width is 8, expected 32 to 16384"),
    ],
    ids=str,
)
def test_the_page_is_told_what_is_wrong(inputs, message, files: Server):
    status, told = asked(files, **inputs)
    assert status == 422
    assert message in told["error"]
    assert "\n" not in told["error"]


def test_a_broken_image_is_named(files: Server):
    folder = files.base / "input" / "broken"
    folder.mkdir()
    picture(folder / "good.png", (64, 64))
    picture(folder / "bad.png", (64, 64))
    (folder / "bad.png").write_bytes(b"no picture")
    assert "bad.png: is no image that can be read" in asked(files, folder="broken")[1]["error"]
    with pytest.raises(WorkflowError, match=r"bad\.png: is no image that can be read"):
        files.run(dataset(folder="broken"))


def test_nothing_to_learn_from(files: Server):
    with pytest.raises(WorkflowError, match="there is nothing to learn from; connect a Training Dataset to dataset"):
        files.run(training())


@pytest.mark.parametrize(
    ("listens", "cors", "local"),
    [
        ("127.0.0.1", None, True),
        ("::1,localhost", None, True),
        ("0.0.0.0,::", None, False),
        ("127.0.0.1", "*", False),
    ],
)
def test_paths_from_other_computers(listens, cors, local, pack, tmp_path, monkeypatch):
    """Who reaches the server may read what lies in ComfyUI's folders; the rest only from this computer."""
    import folder_paths
    from comfy.cli_args import args

    folders = importlib.import_module(f"{pack.__name__}.nodes.host.training.folders")
    monkeypatch.setattr(args, "listen", listens)
    monkeypatch.setattr(args, "enable_cors_header", cors)
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path / "input"))
    inside, outside = tmp_path / "input" / "mine", tmp_path / "private"
    for folder in (inside, outside):
        folder.mkdir(parents=True)
    (inside / "link").symlink_to(outside)
    assert folders.folder_path("none", str(inside)) == str(inside)
    assert folders.folder_names() == ["mine", "mine/link"]
    for place in (outside, inside / "link", inside / ".." / ".." / "private"):
        if local:
            assert folders.folder_path("none", str(place)) == str(place)
        else:
            with pytest.raises(Exception, match="others can reach this server"):
                folders.folder_path("none", str(place))
