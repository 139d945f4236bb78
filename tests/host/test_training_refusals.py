"""Training on ComfyUI's own models: what is refused, when, and what memory that runs out says."""

import os
import signal
from pathlib import Path

import pytest
import torch
from lyco_testing import foreign_weights
from lyco_testing.comfy_models import MODELS, tiny_model
from lyco_testing.tiny_wan import wan_checkpoint
from safetensors.torch import save_file

WAN = MODELS["wan"][1]
IMAGE_MODELS = {
    "image to video": ("WAN21_I2V", WAN | {"model_type": "i2v", "in_dim": 36}, 16),
    "Fun-Control": ("WAN21_FunControl2V", WAN | {"model_type": "i2v", "in_dim": 48}, 32),
}
"""ComfyUI's class and config, and how many channels its nodes put into concat_latent_image."""


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def item(train, **more: torch.Tensor):
    return train.items.Item(normal(1, 16, 3, 8, 8), [normal(2, 1, 7, 48), {"pooled_output": None, **more}], "latent 1")


def image_model(name: str, monkeypatch: pytest.MonkeyPatch):
    kind, config, _ = IMAGE_MODELS[name]
    monkeypatch.setitem(MODELS, "wan", (kind, config))
    with torch.inference_mode():
        return tiny_model("wan")


def losses(train, model, one, folder: Path, **settings: object) -> list[float]:
    options = train.options.train_options({"network_module": "lokr", "max_train_steps": 2, **settings})
    data = train.run.Data([one], empty=[normal(3, 1, 7, 48), {"pooled_output": None}])
    return [step.loss for step in train.run.train(model, data, options, str(folder), lambda *_: None).steps]


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_a_model_of_images_needs_one(name: str, train, monkeypatch, tmp_path):
    model = image_model(name, monkeypatch)
    message = r"latent 1: the model reads an image beside the noise and its conditioning holds no concat_latent_image"
    with pytest.raises(train.errors.TrainError, match=message):
        losses(train, model, item(train), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_with_an_image_it_trains_on_that(name: str, train, monkeypatch, tmp_path):
    model, channels = image_model(name, monkeypatch), IMAGE_MODELS[name][2]
    found = []
    for seed in (4, 5, 4):
        image = {"concat_latent_image": normal(seed, 1, channels, 3, 8, 8), "concat_mask": torch.zeros(1, 1, 3, 8, 8)}
        before = image["concat_latent_image"].clone()
        found.append(losses(train, model, item(train, **image), tmp_path / str(len(found))))
        assert torch.equal(image["concat_latent_image"], before)
    assert found[0] == found[2] != found[1]
    dropped = losses(train, model, item(train, **image), tmp_path / "dropped", caption_dropout_rate=1.0)
    assert dropped != found[0]  # another text; the image stays


def test_a_missing_library_is_told_before_the_model_is_loaded(train, tmp_path):
    import comfy.patcher_extension

    model, loads = tiny_model("wan"), []
    model.add_callback(comfy.patcher_extension.CallbacksMP.ON_LOAD, lambda *_: loads.append(1))
    for settings, message in (
        ({"optimizer_type": "nowhere.Prodigy"}, "needs nowhere"),
        ({"exclude_patterns": [".*"]}, "the patterns leave nothing"),
        ({"resume": "none.pt"}, "there is no such file to resume from"),
        ({"network_weights": "none.safetensors"}, "none.safetensors: "),
        ({"validate_every_n_steps": 1}, "needs validation items"),
    ):
        with pytest.raises(train.errors.LycoError, match=message):
            losses(train, model, item(train), tmp_path, **settings)
    assert not loads
    losses(train, model, item(train), tmp_path)
    assert loads


def test_memory_that_runs_out_while_the_model_is_loaded(train, tmp_path):
    """The limit is real: an allocation that no machine has, where ComfyUI loads the weights."""
    import comfy.patcher_extension

    model = tiny_model("wan")
    model.add_callback(comfy.patcher_extension.CallbacksMP.ON_LOAD, lambda *_: torch.empty(2**60, dtype=torch.uint8))
    told = (
        r"out of memory while the model was loaded. What helps: set blocks_to_swap to auto, .* LoKr instead of LoHa. "
        r"It needs about .* GB: weights .*, activations .*, adapter .*; free .*\. .*allocate"
    )
    with pytest.raises(train.errors.TrainError, match=told):
        losses(train, model, item(train), tmp_path)


@pytest.mark.parametrize(
    "error",
    [torch.cuda.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("MPS backend out of memory")],
)
def test_memory_of_any_kind(error: Exception, train):
    told = r"out of memory while it slept. What helps: waking up"
    with pytest.raises(train.errors.TrainError, match=told), train.memory.memory_for("it slept", "waking up"):
        raise error
    with pytest.raises(RuntimeError, match="another"), train.memory.memory_for("it slept", "waking up"):
        raise RuntimeError("another")


def asked(train, folder: Path, **settings: object):
    data = {"datasets": [{"image_directory": "pictures"}]}
    rest = {"dit": "wan.safetensors", "vae": "vae.safetensors", "text_encoder": "t.safetensors", "output_dir": "out"}
    return train.configuration.read_configuration({**rest, **data, **settings}, folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"dit": "other.safetensors"},
            r"other.safetensors: reads an image beside the noise that is neither its clip's first",
        ),
        (
            {"dit": "i2v.safetensors"},
            r"i2v.safetensors: sees the first frame through an image encoder too, and none is",
        ),
        ({"dit": "i2v.safetensors", "image_encoder": "wan.safetensors"}, r"wan.safetensors: is no image encoder that"),
        ({"task": "i2v-A14B"}, r"wan.safetensors: reads no first frame, and the task is image to video"),
        ({"optimizer_type": "nowhere.Prodigy"}, "^optimizer_type nowhere.Prodigy needs nowhere"),
        ({"lr_scheduler": "polynomial", "learning_rate": 1e-9}, "polynomial ends at 1e-07"),
        ({"exclude_patterns": [".*"]}, "the patterns leave nothing"),
        ({"validate_every_n_steps": 5}, "validate_every_n_steps needs validation items"),
        ({"output_dir": "wan.safetensors"}, r"wan.safetensors: cannot be made: File exists"),
        ({"resume": "none.pt"}, r"none.pt: there is no such file"),
        ({"network_weights": "wan.safetensors"}, r"wan.safetensors: "),
        (
            {"dit": "codes.safetensors"},
            r"codes.safetensors: 1 weights are stored as I8 .blocks.0.ffn.2.weight., and no",
        ),
        ({"dit": "unet.gguf"}, r"unet.gguf: ComfyUI by itself loads no GGUF; train on it in the graph"),
        ({"dit": "C:\new"}, r"dit is 'C:.new': in double quotes a backslash begins an escape"),
    ],
)
def test_lyco_train_looks_at_no_picture_before(settings: dict, message: str, train, tmp_path):
    """There are none: what is encoded would be refused by another message."""
    weights = wan_checkpoint()
    save_file(weights, tmp_path / "wan.safetensors")
    save_file(weights | {"patch_embedding.weight": torch.zeros(128, 60, 1, 2, 2)}, tmp_path / "other.safetensors")
    seen = {"patch_embedding.weight": torch.zeros(128, 36, 1, 2, 2), "img_emb.proj.1.weight": torch.zeros(1280, 1280)}
    save_file(weights | seen, tmp_path / "i2v.safetensors")
    codes = {"blocks.0.ffn.2.weight": weights["blocks.0.ffn.2.weight"].to(torch.int8)}
    save_file(weights | codes, tmp_path / "codes.safetensors")
    (tmp_path / "unet.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(train.errors.LycoError, match=message):
        train.headless._encoded(asked(train, tmp_path, **settings), train.run.World())
    with pytest.raises(train.errors.LycoError, match=r"cannot be read: No such file"):
        train.headless._encoded(asked(train, tmp_path), train.run.World())


def test_signals_that_ask_for_an_end(train, monkeypatch):
    """A closed terminal and Windows' Ctrl+Break as Ctrl+C; what is ignored, as under nohup, stays so."""
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
    outside = {  # which the tests may ignore, under nohup or started behind a shell
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
    }
    before = [signal.getsignal(number) for number in numbers]
    for number in numbers:
        with train.headless.stopping() as heard:
            os.kill(os.getpid(), number)
            assert heard == [number]
            with pytest.raises(KeyboardInterrupt):  # the second does not wait for a step
                os.kill(os.getpid(), number)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with train.headless.stopping() as heard:
            os.kill(os.getpid(), signal.SIGHUP)
            assert heard == []
    finally:
        signal.signal(signal.SIGHUP, before[2])
    assert [signal.getsignal(number) for number in numbers] == before
    for number, handler in outside.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("form", ["int8_fast", "nf4"])
def test_a_weight_that_cannot_be_read_is_refused_by_name(form: str, train, monkeypatch, tmp_path):
    """What is computed is the product with no matrix that anybody tells: gradients would be made up."""
    model, _ = foreign_weights.foreign_model("wan", "int8_fast")
    module = model.model.diffusion_model.blocks[1].self_attn.k
    if form == "nf4":  # packed, by a pack that computes with more than the weight
        module.weight = torch.nn.Parameter(torch.zeros(module.weight.numel() // 2, 1, dtype=torch.uint8), False)
    monkeypatch.setattr(module, "forward", lambda x: x.abs().cumsum(-1)[..., : module.out_features])
    message = r"diffusion_model.blocks.1.self_attn.k: its weight, stored as torch.u?int8 by lyco_testing.*bf16, fp16"
    one = train.items.Item(normal(1, 16, 3, 8, 8), [normal(2, 1, 7, 48), {}], "latent 1")
    with pytest.raises(train.errors.TrainError, match=message):
        losses(train, model, one, tmp_path)
    assert not list(tmp_path.iterdir())


def test_comfyui_knows_of_the_training_wherever_the_model_computes(train, tmp_path):
    """What it computes by kernels without a backward pass, or past a module, it then computes by calls."""
    import comfy.model_management

    model, told = tiny_model("wan"), []
    hook = model.model.diffusion_model.blocks[0].register_forward_hook(
        lambda *_: told.append((comfy.model_management.in_training, torch.is_grad_enabled()))
    )
    options = {"network_module": "lokr", "max_train_steps": 2, "validate_every_n_steps": 1}
    data = train.run.Data([item(train)], validation=[item(train)])
    train.run.train(model, data, train.options.train_options(options), str(tmp_path), lambda *_: None)
    hook.remove()
    assert {training for training, _ in told} == {True}
    assert {with_gradients for _, with_gradients in told} == {True, False}
    assert not comfy.model_management.in_training
