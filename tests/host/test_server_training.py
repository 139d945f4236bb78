"""*Train Adapter* in a running ComfyUI: over the API, from a list of latents to a file that every loader lists."""

import asyncio
import json
import threading
import time

import pytest
from lyco_testing.comfy import Server, WorkflowError
from lyco_testing.tiny_wan import TEXT, latents, wan_checkpoint, workflow
from safetensors import safe_open
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def files(server: Server) -> Server:
    save_file(wan_checkpoint(), server.base / "models" / "diffusion_models" / "train_base.safetensors")
    return server


def training(count: int = 3, captions: int = 3, size: int = 8, **inputs: object) -> dict:
    settings = {
        "model": ["model", 0],
        "latents": ["items", 0],
        "positive": ["items", 1],
        "network_module": "lokr",
        "network_dim": 4,
        "network_alpha": 4.0,
        "factor": -1,
        "learning_rate": 0.01,
        "max_train_steps": 12,
        "batch_size": 2,
        "seed": 1,
        "timestep_sampling": "uniform",
        "discrete_flow_shift": 1.0,
        "output_name": "trained",
    }
    return {
        "model": {
            "class_type": "UNETLoader",
            "inputs": {"unet_name": "train_base.safetensors", "weight_dtype": "default"},
        },
        "items": {
            "class_type": "ProbeItems",
            "inputs": {"width": TEXT, "count": count, "captions": captions, "size": size},
        },
        "train": {"class_type": "LycoTrainAdapter", "inputs": settings | inputs},
        "name": {"class_type": "PreviewAny", "inputs": {"source": ["train", 0]}},
        "loss": {"class_type": "PreviewAny", "inputs": {"source": ["train", 2]}},
    }


def sampled(nodes: dict, source: str) -> dict:
    """`nodes`, and a sampling with the model that `source` gives."""
    more = workflow("train_base.safetensors")
    more["sample"]["inputs"]["model"] = [source, 0 if source != "train" else 1]
    return more | nodes


@pytest.mark.every_host
def test_the_trained_model_samples_as_the_saved_file_does(files: Server):
    outputs = files.run(sampled(training(output_name="same", save_precision="bf16"), "train"))
    name = outputs["name"]["text"][0]
    assert name == "same.safetensors"
    assert "20 modules" in outputs["train"]["text"][0]
    series = outputs["train"]["lyco_train"][0]
    assert [step["step"] for step in series] == list(range(1, 13))
    assert json.loads(outputs["loss"]["text"][0])["loss"] == [step["loss"] for step in series]
    (picture,) = outputs["train"]["images"]
    assert (files.base / "temp" / picture["subfolder"] / picture["filename"]).stat().st_size > 1000
    trained = latents(files, outputs)
    loaded = latents(files, files.run(workflow("train_base.safetensors", name, strength=1.0)))
    plain = latents(files, files.run(workflow("train_base.safetensors")))
    change = (trained - plain).norm()
    assert change > 0.02 * plain.norm()
    assert (trained - loaded).norm() < 1e-5 * change


def test_the_file_is_musubis(files: Server):
    files.run(training(output_name="meta", factor=4, network_dim=2, save_precision="fp16"))
    with safe_open(files.base / "output" / "loras" / "meta.safetensors", "pt") as file:
        metadata = file.metadata()
        assert metadata["ss_network_module"] == "networks.lokr"
        assert json.loads(metadata["ss_network_args"])["factor"] == "4"
        assert metadata["ss_base_model_version"] == "wan"
        assert metadata["ss_steps"] == "12"
        assert {"sshs_model_hash", "ss_timestep_sampling", "modelspec.architecture"} <= metadata.keys()
        assert all(key.startswith("lora_unet_blocks_") for key in file.keys())  # noqa: SIM118
        assert str(file.get_tensor("lora_unet_blocks_0_self_attn_q.lokr_w1").dtype) == "torch.float16"


def test_samples_come_while_it_trains(files: Server):
    """In the order of their steps, told to the page, among the outputs for whoever uses the API, and on the disk."""
    nodes = training(
        output_name="sampled",
        clip=["clip", 0],
        vae=["vae", 0],
        sample_prompts="a cat --w 64 --h 64 --s 2\na dog --w 64 --h 64 --s 1 --f 5 --d 7",
        sample_every_n_steps=6,
        sample_at_first=True,
    )
    nodes["clip"] = {"class_type": "ProbeClip", "inputs": {"width": TEXT}}
    nodes["vae"] = {"class_type": "ProbeVae", "inputs": {"channels": 16}}
    outputs = files.run(nodes)["train"]
    names = [f"sampled_{step:06d}_{end}" for step in (0, 6, 12) for end in ("00_1.png", "01_7.webp")]
    assert [(s["filename"], s["subfolder"], s["type"]) for s in outputs["images"][1:]] == [
        (name, "loras/sample", "output") for name in names
    ]
    assert [s["step"] for s in outputs["lyco_trained"][0]["samples"]] == [0, 0, 6, 6, 12, 12]
    assert [s["filename"] for s in files.get("/lyco/training")["samples"]] == names
    folder = files.base / "output" / "loras" / "sample"
    assert sorted(path.name for path in folder.iterdir()) == names
    plain = files.run(training(output_name="unsampled"))
    for one, other in zip(plain["train"]["lyco_train"][0], outputs["lyco_train"][0], strict=True):
        assert one == other


def test_sizes_train_in_batches_of_their_own(files: Server):
    outputs = files.run(training(size=-8, output_name="sizes", enable_bucket=True))
    assert "12 steps, 3 items" in outputs["train"]["text"][0]


def test_a_second_training_replaces_nothing(files: Server):
    first = files.run(training(output_name="twice"))["name"]["text"][0]
    before = (files.base / "output" / "loras" / first).read_bytes()
    second = files.run(training(output_name="twice", seed=2))["name"]["text"][0]
    assert (first, second) == ("twice.safetensors", "twice-2.safetensors")
    assert (files.base / "output" / "loras" / first).read_bytes() == before
    (files.base / "models" / "loras" / "mine.safetensors").write_bytes(before)
    assert files.run(training(output_name="mine"))["name"]["text"][0] == "mine-2.safetensors"


@pytest.mark.parametrize(
    ("items", "inputs", "message"),
    [
        ({}, {"sample_prompts": "a", "sample_at_first": True}, "sample_prompts needs clip and vae; connect it, or"),
        (
            {},
            {"sample_prompts": "a --i ../../x.png", "sample_at_first": True},
            "image_path is '../../x.png', expected a fi",
        ),
        ({"captions": 2}, {}, "there are 3 latents and 2 captions; give as many captions as latents"),
        ({"size": -8}, {}, "the latents have 2 different shapes (16x1x8x8, 16x1x12x12); set enable_bucket"),
        ({}, {"exclude_patterns": "(blocks"}, r"exclude_patterns: '(blocks' is no regular expression"),
        ({}, {"exclude_patterns": ".*"}, "the patterns leave nothing of Wan 2.1/2.2 to train"),
        ({}, {"loss_type": "huber", "huber_c": 0.0}, "huber_c is 0, and loss_type huber is then 0 or l1"),
        ({}, {"caption_dropout_rate": 0.5}, "caption_dropout_rate needs the conditioning of the empty caption"),
        ({}, {"optimizer_args": "beta=3"}, "adamw refuses them: AdamW"),
        ({}, {"output_name": "../up"}, "expected a plain file name"),
        ({}, {"learning_rate": 1e5, "max_grad_norm": 0.0}, "training diverged: lower learning_rate"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_wrong_is_said_in_a_line(files: Server, items: dict, inputs: dict, message: str):
    before = sorted((files.base / "output").rglob("*.safetensors"))
    with pytest.raises(WorkflowError) as error:
        files.run(training(**items, **{"output_name": "wrong"} | inputs))
    assert message in str(error.value)
    assert "\n" not in str(error.value).strip()
    assert sorted((files.base / "output").rglob("*.safetensors")) == before


def test_interrupted_it_saves_what_there_is_and_goes_on_from_it(files: Server):
    events: list[dict] = []
    connected = threading.Event()
    listening = threading.Thread(target=asyncio.run, args=(listen(files, events, 10, connected),), daemon=True)
    listening.start()
    assert connected.wait(60)
    prompt = files.post("/prompt", {"prompt": training(output_name="stopped", max_train_steps=100_000)})["prompt_id"]
    listening.join(60)
    files.post("/interrupt", {})
    while prompt not in files.get("/history"):
        time.sleep(0.05)
    messages = files.get(f"/history/{prompt}")[prompt]["status"]["messages"]
    assert messages[-1][0] == "execution_interrupted", messages[-1][1].get("exception_message")
    assert events[0]["total"] == 100_000
    assert events[0]["steps"][0]["step"] == 1
    assert all(event["node"] == "train" for event in events)
    (adapter,) = (files.base / "output" / "loras").glob("stopped-step*.safetensors")
    (state,) = (files.base / "output" / "loras").glob("stopped-step*-state.pt")
    loaded = files.run(workflow("train_base.safetensors", adapter.name, strength=1.0))
    assert "20 of 20" in loaded["show"]["text"][0]
    done = int(adapter.stem[-8:])
    told = files.get("/lyco/training")
    assert (told["end"], told["node"], told["total"], told["run"]) == ("stopped", "train", 100_000, prompt)
    assert told["saved"] == {"step": done, "adapter": adapter.name, "state": state.name, "folder": None}
    assert (told["steps"][0]["step"], told["steps"][-1]["step"]) == (1, done)
    assert told["prompt"]["train"]["inputs"]["output_name"] == "stopped"
    outputs = files.run(training(output_name="stopped", max_train_steps=done + 2, resume=state.name))
    assert [step["step"] for step in outputs["train"]["lyco_train"][0]] == [done + 1, done + 2]
    (told,) = outputs["train"]["lyco_trained"]
    assert (told["end"], told["saved"]["adapter"], told["saved"]["state"]) == ("finished", "stopped.safetensors", None)
    both = files.get("/lyco/training")  # what goes on from a state is one curve with what was before
    steps = [step["step"] for step in both["steps"]]
    assert (steps[0], steps[-1]) == (1, done + 2)
    assert steps == sorted({*steps})
    assert len(steps) >= min(done + 2, 1000)  # of over 2000, some


def test_the_progress_the_report_and_the_card_tell_one_mean(files: Server):
    texts: list[str] = []
    connected = threading.Event()
    threading.Thread(target=asyncio.run, args=(read(files, texts, connected),), daemon=True).start()
    assert connected.wait(60)
    outputs = files.run(training(output_name="mean", max_train_steps=105))
    report, (told,) = outputs["train"]["text"][0], outputs["train"]["lyco_trained"]
    losses = [step["loss"] for step in outputs["train"]["lyco_train"][0]]
    assert told["loss"] == sum(losses[-100:]) / 100
    mean = f"loss {told['loss']:.4f} (mean of the last 100 steps)"
    assert f"105 steps, 3 items, {mean}" in report
    assert f"step 105 of 105, {mean}" in texts[-1]


def test_going_on_keeps_the_name_that_the_training_began_with(files: Server):
    loras = files.base / "output" / "loras"
    files.run(training(output_name="taken", seed=5))
    before = (loras / "taken.safetensors").read_bytes()
    files.run(training(output_name="taken", save_state=True, max_train_steps=4))
    outputs = files.run(training(output_name="taken", max_train_steps=6, resume="taken-2-state.pt"))
    assert outputs["name"]["text"] == ["taken-2.safetensors"]
    assert (loras / "taken.safetensors").read_bytes() == before
    outputs = files.run(training(output_name="elsewhere", max_train_steps=6, resume="taken-2-state.pt"))
    assert outputs["name"]["text"] == ["elsewhere.safetensors"]


def test_a_failed_training_names_what_was_saved_before(files: Server):
    diverging = {"learning_rate": 1e5, "max_grad_norm": 0.0, "max_train_steps": 50}
    with pytest.raises(WorkflowError, match="training diverged"):
        files.run(training(output_name="failing", save_every_n_steps=1, save_state=True, **diverging))
    told = files.get("/lyco/training")
    assert told["end"] == "failed"
    step = told["saved"]["step"]
    assert told["saved"]["state"] == f"failing-step{step:08d}-state.pt"
    assert (files.base / "output" / "loras" / told["saved"]["adapter"]).exists()


async def read(server: Server, texts: list[str], connected: threading.Event) -> None:
    """Collect what ComfyUI shows of the progress as text."""
    import aiohttp  # comes with ComfyUI

    async with aiohttp.ClientSession() as session, session.ws_connect(server.address + "/ws") as socket:
        connected.set()
        async for message in socket:
            if message.type == aiohttp.WSMsgType.BINARY and message.data[:4] == b"\0\0\0\3":
                begin = 8 + int.from_bytes(message.data[4:8], "big")  # after the node's id
                texts.append(message.data[begin:].decode())


async def listen(server: Server, events: list[dict], count: int, connected: threading.Event) -> None:
    """Collect so many of the live events."""
    import aiohttp  # comes with ComfyUI

    async with aiohttp.ClientSession() as session, session.ws_connect(server.address + "/ws") as socket:
        connected.set()
        async for message in socket:
            if message.type == aiohttp.WSMsgType.TEXT and json.loads(message.data)["type"] == "lyco.train":
                events.append(json.loads(message.data)["data"])
                if len(events) == count:
                    return
