"""*Try LoHa/LoKr Strengths* and *Labeled Image Grid*: models, each as *Load LoHa/LoKr* makes it, and their pictures."""

import importlib
from decimal import Decimal

import numpy as np
import pytest
import torch
from lyco_testing.comfy import Server, WorkflowError
from lyco_testing.comfy_models import patched_weight, tiny_model
from lyco_testing.tables import lokr, random
from lyco_testing.tiny_wan import latents, scaled_wan, wan_adapter, wan_checkpoint, workflow
from PIL import Image
from safetensors.torch import load_file, save_file

Q = "diffusion_model.blocks.0.self_attn.q"
EPOCHS = ("tried-000001", "tried-000002", "tried")


@pytest.fixture
def module(pack):
    return lambda name: importlib.import_module(f"{pack.__name__}.nodes.host.{name}")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0, 0.5,.8 ,1.", "0 0.5 0.8 1"),
        ("0:1.2:0.2", "0 0.2 0.4 0.6 0.8 1 1.2"),
        ("1:-0.5:-0.5, 2", "1 0.5 0 -0.5 2"),
        ("0:1:0.3", "0 0.3 0.6 0.9"),
        ("-0, 1, 1.0, 0:1:1", "0 1"),
        ("0:63:1", " ".join(map(str, range(64)))),
    ],
)
def test_strengths(text, numbers, host):
    assert [f"{number:f}" for number in host.strengths_of(text)] == numbers.split()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is no number and no range; write it like"),
        ("0, half", "'half' is no number"),
        ("0:1", "'0:1' is no number and no range"),
        ("nan", "'nan' is no number"),
        ("1e2", "'1e2' is no number"),
        ("0:1:0", "never gets to its STOP"),
        ("0:1:-0.1", "never gets to its STOP"),
        ("0:1:0.0001", "is 10001 numbers, expected at most 64; write fewer"),
        ("0:50:1, 51:99:1", "is 100 numbers, expected at most 64"),
        ("101", "101: expected a number from -100 to 100"),
        ("0:1" + "0" * 5000 + ":1", "expected a number from -100 to 100"),
    ],
)
def test_strengths_that_are_none(text, why, host):
    with pytest.raises(Exception, match=why) as caught:
        host.strengths_of(text)
    assert str(caught.value).startswith("strengths: ") and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_the_files_of_a_training(loras, host):
    names = [
        *("cat-000010", "cat-000002", "cat-step00001500", "cat-step00000500", "cat", "cat-e3"),
        *("cat-2", "cat-2-000001", "cats-000001", "cat-00001", "deep/cat-000001", "a-cat", "cat_000000250"),
    ]
    (loras / "deep").mkdir()
    for name in names:
        (loras / f"{name}.safetensors").touch()
    inorder = ["-000002", "-000010", "-e3", "-step00000500", "-step00001500", "_000000250", ""]
    every = [f"cat{ending}.safetensors" for ending in inorder]
    for chosen in every:
        assert host.files_to_try(chosen, "all of its training", "") == every
        assert host.files_to_try(chosen, "this file", "") == [chosen]
    (beside,) = host.files_to_try("deep/cat-000001.safetensors", "all of its training", "")
    assert beside == "deep/cat-000001.safetensors"
    assert host.files_to_try("cat-2.safetensors", "all of its training", "") == [
        "cat-2-000001.safetensors",
        "cat-2.safetensors",
    ]
    some = host.files_to_try("cat.safetensors", "all of its training", "last, 500:1500:1000, 2")
    assert some == [f"cat{ending}.safetensors" for ending in ("-000002", "-step00000500", "-step00001500", "")]


@pytest.mark.parametrize(
    ("files", "only", "why"),
    [
        ("this file", "2", "only: chooses among a training's files; set files to all of its training"),
        ("all of its training", "2, 3, 4", "only: the training of cat-000002.safetensors has no file 3, 4; it has 2$"),
        ("all of its training", "last", "has no file last; it has 2$"),
        ("all of its training", "two", "only: 'two' is no number"),
    ],
)
def test_files_that_are_not_there(files, only, why, loras, host):
    (loras / "cat-000002.safetensors").touch()
    with pytest.raises(Exception, match=why):
        host.files_to_try("cat-000002.safetensors", files, only)


def test_each_model_is_that_of_load_and_all_share_the_files_tensors(loras, host):
    torch.manual_seed(4)
    for name in "ab":
        save_file(lokr(Q, 64, 64, random), loras / f"{name}.safetensors")
    names, strengths = ["a.safetensors", "b.safetensors"], [Decimal("0.5"), Decimal(0), Decimal("-1.25")]
    model = tiny_model("wan")
    tried = host.try_all(model, None, names, strengths, partial=False, mode="auto")
    assert tried.labels == ("a@0.5", "a@0", "a@-1.25", "b@0.5", "b@0", "b@-1.25")
    pairs = [(name, float(strength)) for name in names for strength in strengths]
    for (name, strength), found in zip(pairs, tried.loaded, strict=True):
        loaded = host.load_onto(model, None, name, strength, partial=False, mode="auto")
        assert found.report == loaded.report
        assert found.model.model is model.model
        if strength:
            assert torch.equal(patched_weight(found.model, f"{Q}.weight"), patched_weight(loaded.model, f"{Q}.weight"))
        else:
            assert found.model is model
    half, against = ({tensor.data_ptr() for tensor in weights_of(tried.loaded[n].model)} for n in (0, 2))
    assert len(half) > 1 and half == against
    assert [one.how for one in tried.of("b.safetensors")] == ["strength 0.5/0/-1.25"]
    assert tried.of("c.safetensors") == tried.applied[:1]


def weights_of(patcher) -> list[torch.Tensor]:
    ((_, patch, *_),) = patcher.patches[f"{Q}.weight"]
    return [tensor for tensor in patch.weights if isinstance(tensor, torch.Tensor)]


def test_too_many_pictures(loras, host):
    strengths = host.strengths_of("0:32:1")
    with pytest.raises(Exception, match="2 files at 33 strengths are 66 pictures, expected at most 64; write fewer"):
        host.try_all(tiny_model("wan"), None, ["a", "b"], strengths, partial=False, mode="auto")


def test_the_person_stops_it(loras, host):
    import comfy.model_management

    save_file(lokr(Q, 64, 64, random), loras / "a.safetensors")
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        host.try_all(tiny_model("wan"), None, ["a.safetensors"], [Decimal(1)], partial=False, mode="auto")


def test_a_grid(host):
    """Every picture as it is, below its label; frames stay frames."""
    torch.manual_seed(0)
    pictures = [torch.rand(3, 48, 64, 4) for _ in range(5)]
    labels = [f"cat-00000{n}@1" for n in range(5)]
    grid = host.labelled_grid(pictures, labels, 2)
    frames, height, width, channels = grid.shape
    assert (frames, width, channels) == (3, 8 + 2 * (64 + 8), 4)
    head = (height - 8) // 3 - 48 - 8
    assert height == 8 + 3 * (head + 48 + 8) and head % 2 == 0
    for number, picture in enumerate(pictures):
        top, left = 8 + number // 2 * (head + 56), 8 + number % 2 * 72
        assert torch.equal(grid[:, top + head : top + head + 48, left : left + 64], picture)
        label = grid[:, top : top + head, left : left + 64]
        assert label[..., :3].min() < 0.5 < label.mean() and (label[..., 3] == 1).all()
        label.fill_(1)
        grid[:, top + head : top + head + 48, left : left + 64] = 1
    assert (grid == 1).all()  # and there is nothing else


@pytest.mark.parametrize(
    ("labels", "columns"),
    [
        (["a@0", "a@1", "b@0", "b@1", "c@0", "c@1"], 2),
        (["a@0", "a@1", "a@2", "b@0", "b@1", "b@2"], 3),
        (["a@0", "a@1", "a@2", "a@3", "a@4"], 3),
        (["a@1", "b@1", "c@1", "d@1"], 2),
        (["a@0", "a@1", "b@0"], 2),
        (["one"], 1),
    ],
)
def test_columns(labels, columns, module):
    assert module("grid").columns_for(labels) == columns


@pytest.mark.parametrize("fonts", ["all", "none"])
def test_labels_in_any_writing(fonts, module, monkeypatch):
    lettering = module("lettering")
    if fonts == "none":
        monkeypatch.setattr(lettering, "FONTS", ())
    drawn = [lettering.lettered(text, 24, 400) for text in ("猫@0.5", "犬@0.5", "ねこ@0.5", "кот@0.5", "cat@0.5")]
    assert len({tuple(one.flatten().tolist()) for one in drawn}) == len(drawn)
    long = lettering.lettered("猫" * 30 + "\nend", 24, 200)
    assert long.shape[1] == 200 and long.shape[0] > 3 * drawn[-1].shape[0]
    assert lettering.lettered("", 24, 200).max() == 0


@pytest.mark.parametrize(
    ("images", "labels", "why"),
    [
        ([(1, 8, 8, 3)] * 2, ["a"], "there are 1 labels and 2 images, expected a label for each"),
        ([(2, 8, 8, 3)], ["a", "b"], "there are 2 labels and 1 images"),
        ([(1, 8, 8, 3), (1, 8, 16, 3)], ["a", "b"], "b: its image is 16 x 8 pixels in 3 channels, 1 frames, the first"),
        ([(1, 8, 8, 3), (5, 8, 8, 3)], ["a", "b"], "b: its image is 8 x 8 pixels in 3 channels, 5 frames"),
    ],
)
def test_what_makes_no_grid(images, labels, why, host):
    with pytest.raises(Exception, match=why):
        host.labelled_grid([torch.zeros(shape) for shape in images], labels, 0)


@pytest.fixture(scope="module")
def files(server: Server) -> Server:
    models, loras = server.base / "models" / "diffusion_models", server.base / "models" / "loras"
    save_file(wan_checkpoint(), models / "tried_wan.safetensors")
    scaled_wan(models / "tried_fp8.safetensors", "blocks.0")
    for number, name in enumerate(EPOCHS, 1):
        tensors = {key: tensor * number / 2 for key, tensor in wan_adapter().items() if not key.endswith("alpha")}
        save_file(tensors, loras / f"{name}.safetensors", {"ss_network_module": "networks.lokr"})
    other = {key.replace("blocks_1", "blocks_9"): tensor for key, tensor in wan_adapter().items()}
    save_file(other, loras / "untried-000002.safetensors")
    save_file(wan_adapter(), loras / "untried.safetensors")
    return server


def trying(model: str, **inputs: object) -> dict[str, dict]:
    """A workflow whose adapters are tried: their latents are saved, and the labels shown."""
    nodes = workflow(model, "tried.safetensors")
    settings = nodes["adapter"]["inputs"]
    del settings["strength"]
    nodes["adapter"]["class_type"] = "LycoTryAdapter"
    settings |= {"strengths": "0, 0.4, 1", "files": "all of its training"} | inputs
    nodes["show"]["inputs"]["source"] = ["adapter", 3]
    nodes["labels"] = {"class_type": "PreviewAny", "inputs": {"source": ["adapter", 2]}}
    return nodes


@pytest.mark.every_host
@pytest.mark.parametrize(
    ("model", "mode"),
    [("tried_wan", "auto"), ("tried_wan", "apply while sampling"), ("tried_fp8", "auto")],
)
def test_each_is_sampled_as_load_has_it(model: str, mode: str, files: Server):
    model += ".safetensors"
    outputs = files.run(trying(model, mode=mode))
    assert outputs["labels"]["text"] == [f"{name}@{strength}" for name in EPOCHS for strength in ("0", "0.4", "1")]
    assert outputs["show"]["text"][0].count("20 of 20 modules on 20 weights") == 6
    saved = [files.base / "output" / one["subfolder"] / one["filename"] for one in outputs["save"]["latents"]]
    found = [load_file(path)["latent_tensor"] for path in saved]
    plain = latents(files, files.run(workflow(model)))
    for number, latent in enumerate(found):
        name, strength = EPOCHS[number // 3], (0, 0.4, 1)[number % 3]
        loaded = files.run(workflow(model, f"{name}.safetensors", strength=strength, mode=mode))
        assert torch.equal(latent, latents(files, loaded)), (name, strength)
        assert torch.equal(latent, plain) == (strength == 0)


def test_a_file_that_does_not_fit_is_named_before_anything_is_sampled(files: Server):
    with pytest.raises(WorkflowError) as caught:
        files.run(trying("tried_wan.safetensors", adapter="untried.safetensors"))
    assert str(caught.value).startswith(
        "Try LoHa/LoKr Strengths: untried-000002.safetensors: 10 of 20 modules are not in"
    )
    assert str(caught.value).endswith("set on_partial_match to warn to apply the rest\n")  # what fits all files
    one = trying("tried_wan.safetensors", adapter="untried-000002.safetensors", files="this file")
    with pytest.raises(WorkflowError, match="to apply the rest, or leave these out by this line in exclude: "):
        files.run(one)


@pytest.mark.every_host
def test_pictures_in_a_grid(pack, files: Server):
    """The person's own sampler and VAE; the grid has what they make of each model alone."""
    from lyco_testing.example_files import write_models

    pytest.importorskip("comfy.taesd.taehv", reason="this ComfyUI has no small VAE of videos: update it")
    write_models(files.base)
    more = {
        "vae": {"class_type": "VAELoader", "inputs": {"vae_name": "wan_2.1_vae.safetensors"}},
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["vae", 0]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "alone"}},
    }
    grid = {
        "grid": {
            "class_type": "LycoLabeledGrid",
            "inputs": {"images": ["decode", 0], "labels": ["adapter", 2], "columns": 0},
        },
        "saved": {"class_type": "SaveImage", "inputs": {"images": ["grid", 0], "filename_prefix": "grid"}},
    }
    outputs = files.run(trying("tried_wan.safetensors", only="2, last", strengths="0:1:0.5") | more | grid)
    frames = pictures(files, outputs["saved"])
    assert len(frames) == 5 and not np.array_equal(frames[0][-16:-8, 8:72], frames[0][-16:-8, -72:-8])
    for number, (name, strength) in enumerate((name, s) for name in EPOCHS[1:] for s in (0, 0.5, 1)):
        alone = files.run(workflow("tried_wan.safetensors", f"{name}.safetensors", strength=strength) | more)
        expected = pictures(files, alone["save"])
        height, width = expected[0].shape[:2]
        for frame, one in zip(frames, expected, strict=True):
            assert frame.shape[1] == 8 + 3 * (width + 8)
            cell, left = (frame.shape[0] - 8) // 2, 8 + number % 3 * (width + 8)
            bottom = (number // 3 + 1) * cell
            assert np.array_equal(frame[bottom - height : bottom, left : left + width], one)


def pictures(server: Server, saved: dict) -> list[np.ndarray]:
    return [
        np.array(Image.open(server.base / "output" / one["subfolder"] / one["filename"])) for one in saved["images"]
    ]
