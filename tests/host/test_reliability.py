"""A server that goes on: bad input of every kind, several clients at once, files that change, many loads."""

import gc
import importlib
import itertools
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from lyco_testing.comfy import Server, WorkflowError
from lyco_testing.comfy_models import tiny_model
from lyco_testing.hosted import tiny_targets
from lyco_testing.tables import musubi_file, random
from lyco_testing.tiny_wan import TEXT, latents, wan_adapter, wan_checkpoint, workflow
from safetensors.torch import save_file

MODEL, GOOD, FILE = "steady.safetensors", "steady_lokr.safetensors", "diffusion_models/steady.safetensors"
ENDLESS = r"(((.+)+)+)+!"


@pytest.fixture(scope="module")
def files(server: Server) -> Server:
    save_file(wan_checkpoint(), server.base / "models" / "diffusion_models" / MODEL)
    save_file(wan_adapter(), server.base / "models" / "loras" / GOOD)
    return server


def node(kind: str, **inputs: object) -> dict:
    """A workflow of one node, of what its inputs need, and of what asks for its second output."""
    loader = {"class_type": "UNETLoader", "inputs": {"unet_name": MODEL, "weight_dtype": "default"}}
    sizes = {"width": TEXT, "count": 1, "captions": 1, "size": 8}
    return {
        "node": {"class_type": kind, "inputs": inputs},
        "model": loader,
        "items": {"class_type": "ProbeItems", "inputs": sizes},
        "show": {"class_type": "PreviewAny", "inputs": {"source": ["node", 1]}},
    }


LOAD = {"model": ["model", 0], "adapter": GOOD, "strength": 1.0, "on_partial_match": "error"}
MERGE = {"base": FILE, "adapter": GOOD, "strength": 1.0, "filename": "x", "dtype": "as it is"}
MERGE |= {"rounding_seed": -1, "gpu": False, "overwrite": False}
CONVERT = {"adapter": GOOD, "to": "diffusers", "form": "as it is", "rank": 0, "filename": "x", "dtype": "as it is"}
RESIZE = {"adapter": GOOD, "by": "rank", "rank": 1, "share": 0.5, "filename": "x"}
EXTRACT = {"base": FILE, "tuned": FILE, "form": "lora", "by": "rank", "rank": 2, "share": 0.5, "filename": "x"}
TRAIN = {"model": ["model", 0], "latents": ["items", 0], "positive": ["items", 1], "output_name": "x"}
TRAIN |= {"network_module": "lokr", "network_dim": 4, "network_alpha": 4.0, "factor": -1, "learning_rate": 0.01}
TRAIN |= {"max_train_steps": 2, "batch_size": 1, "seed": 1, "timestep_sampling": "auto", "discrete_flow_shift": 1.0}
NAMES = ["../../x", "/etc/passwd", "a/b", "..", "a\nb", "x" * 3000, "con\x00", "C:\\x", "\u202e\ud83d\ude00/", ""]
LONG = "x" * 50_000

BAD: dict[str, tuple[str, dict[str, object]]] = {
    **{f"load adapter {name[:9]!r}": ("LycoLoadAdapter", LOAD | {"adapter": name}) for name in NAMES},
    **{f"load adapter {value!r:.12}": ("LycoLoadAdapter", LOAD | {"adapter": value}) for value in (7, None, ["a"], {})},
    **{f"merge base {name[:9]!r}": ("LycoMergeCheckpoint", MERGE | {"base": name}) for name in NAMES},
    **{f"merge to {name[:9]!r}": ("LycoMergeCheckpoint", MERGE | {"filename": name}) for name in NAMES[:-1]},
    **{f"convert to {name[:9]!r}": ("LycoConvertAdapter", CONVERT | {"filename": name}) for name in NAMES[:-1]},
    **{f"more {name[:9]!r}": ("LycoMergeCheckpoint", MERGE | {"more_adapters": name + "@1"}) for name in NAMES[:-2]},
    "strength of text": ("LycoLoadAdapter", LOAD | {"strength": "much"}),
    "strength out of range": ("LycoLoadAdapter", LOAD | {"strength": 1e300}),
    "no such mode": ("LycoLoadAdapter", LOAD | {"mode": "<b>"}),
    "negative scale": ("LycoLoadAdapter", LOAD | {"scale": -1}),
    "half a pattern": ("LycoLoadAdapter", LOAD | {"include": "("}),
    "endless merge": ("LycoMergeCheckpoint", MERGE | {"exclude": ENDLESS}),
    "long pattern": ("LycoLoadAdapter", LOAD | {"exclude": LONG}),
    "no block strength": ("LycoLoadAdapter", LOAD | {"block_strengths": "blocks=many"}),
    "no such layout": ("LycoConvertAdapter", CONVERT | {"to": LONG}),
    "rank of text": ("LycoConvertAdapter", CONVERT | {"rank": "all"}),
    "nothing to extract": ("LycoExtractAdapter", EXTRACT),
    "a share of 7": ("LycoResizeAdapter", RESIZE | {"share": 7.0, "by": "energy"}),
    "no model": ("LycoLoadAdapter", {k: v for k, v in LOAD.items() if k != "model"}),
    "a model of text": ("LycoLoadAdapter", LOAD | {"model": "wan"}),
    "an unknown node": ("LycoNothing", {}),
    "train into a folder": ("LycoTrainAdapter", TRAIN | {"output_name": "../x"}),
    "train a half pattern": ("LycoTrainAdapter", TRAIN | {"exclude_patterns": "("}),
    "train an endless pattern": ("LycoTrainAdapter", TRAIN | {"exclude_patterns": ENDLESS}),
    "train from elsewhere": ("LycoTrainAdapter", TRAIN | {"resume": "../../x.pt"}),
    "train at no rate": ("LycoTrainAdapter", TRAIN | {"learning_rate": "fast"}),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_words(name: str, files: Server):
    kind, inputs = BAD[name]
    before = written(files)
    with pytest.raises(WorkflowError) as caught:
        files.run(node(kind, **inputs))
    said = str(caught.value)
    assert "Traceback" not in said
    assert "custom_nodes" not in said
    assert len(said) < 250_000  # ComfyUI repeats the input in some of its own answers
    ours = files.get(f"/object_info/{kind}").get(kind)
    if ours and said.startswith(ours["display_name"]):
        assert "\n" not in said.strip()
        assert len(said) < 5000
    assert written(files) == before


def written(server: Server) -> set[Path]:
    """All files that a workflow could have made, in its folders or beside them."""
    kept = {path for path in server.base.parent.rglob("*.safetensors") if "temp" not in path.parts}
    return kept | set(server.base.rglob("*.pt"))


@pytest.mark.flaky(reruns=2)  # how soon a server answers depends on what else the machine does
def test_the_server_answers_while_a_pattern_takes_forever(files: Server):
    """A regular expression of Python's own holds the interpreter's lock until it is done."""
    with ThreadPoolExecutor(1) as other:
        running = other.submit(files.run, node("LycoLoadAdapter", **LOAD, block_strengths=f"{ENDLESS}=2"))
        slowest = 0.0
        while not running.done():
            begun = time.monotonic()
            files.get("/lyco/training")
            slowest = max(slowest, time.monotonic() - begun)
            time.sleep(0.05)
        with pytest.raises(WorkflowError, match=r"takes over 5 s to match"):
            running.result()
    assert slowest < 2


def test_clients_at_once_get_each_their_own(files: Server):
    strengths = [0.2, 0.5, 0.8, -0.6]
    alone = [latents(files, files.run(workflow(MODEL, GOOD, strength=strength))) for strength in strengths]

    def posted(strength: float) -> torch.Tensor:
        nodes = workflow(MODEL, GOOD, strength=strength)
        nodes["save"]["inputs"]["filename_prefix"] = f"latents/at_once_{strength}"  # so that it is not the cached one
        for _ in range(5):
            assert files.get(f"/lyco/inspect?adapter={GOOD}")["modules"] == 20
        return latents(files, files.run(nodes))

    with ThreadPoolExecutor(len(strengths)) as clients:
        together = list(clients.map(posted, strengths))
    for expected, found in zip(alone, together, strict=True):
        assert torch.equal(expected, found)


def test_a_file_that_is_replaced_all_the_time_is_one_or_the_other(files: Server):
    """Model managers and trainers replace files while they are loaded; half of each is never applied."""
    loras, name = files.base / "models" / "loras", "changing.safetensors"
    first = wan_adapter()
    second = {key: tensor if key.endswith("alpha") else -2 * tensor for key, tensor in first.items()}
    outcomes = []
    for tensors in (first, second):
        save_file(tensors, loras / name)
        outcomes.append(latents(files, files.run(workflow(MODEL, name))))
    assert not torch.equal(*outcomes)
    done = threading.Event()

    def replace() -> None:
        for tensors in itertools.cycle((first, second)):
            save_file(tensors, loras / "changing.tmp")
            os.replace(loras / "changing.tmp", loras / name)
            if done.wait(0.01):
                return

    replacing = threading.Thread(target=replace)
    replacing.start()
    try:
        for number in range(12):
            nodes = workflow(MODEL, name)
            nodes["save"]["inputs"]["filename_prefix"] = f"latents/changing_{number}"
            found = latents(files, files.run(nodes))
            assert any(torch.equal(found, outcome) for outcome in outcomes)
            assert files.get(f"/lyco/inspect?adapter={name}")["modules"] == 20
    finally:
        done.set()
        replacing.join()


def test_after_all_that_it_samples(files: Server):
    first, again = (latents(files, files.run(workflow(MODEL, GOOD, strength=s))) for s in (0.9, 0.9))
    assert torch.equal(first, again)


CYCLES = 500
MOST = 10_000_000
"""Bytes by which the process may have grown after all cycles; a cycle loads 20 kB and changes 400 kB of weights."""


@pytest.mark.parametrize("mode", ["patch the weights", "apply while sampling"])
def test_loading_and_unloading_leaves_nothing(mode: str, loras: Path, host, pack):
    import comfy.model_management as management

    torch.manual_seed(1)
    save_file(musubi_file(tiny_targets("flux1"), "lokr", random), loras / "a.safetensors")
    model = tiny_model("flux1")
    before = {key: tensor.clone() for key, tensor in model.model.state_dict().items()}

    def cycle(number: int) -> None:
        loaded = host.load_onto(model, None, "a.safetensors", 0.1 + number % 7, partial=False, mode=mode)
        management.load_models_gpu([loaded.model])
        management.free_memory(2**60, torch.device("cpu"))

    grown, objects = growth(cycle)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.model.state_dict().items())
    assert grown < MOST
    assert objects < CYCLES  # less than one a cycle


def test_inspecting_again_and_again_leaves_nothing(loras: Path, host, pack):
    route = importlib.import_module(f"{pack.__name__}.nodes.host.page.route")
    save_file(musubi_file(tiny_targets("flux1"), "lokr", random), loras / "a.safetensors")

    def cycle(number: int) -> None:
        os.utime(loras / "a.safetensors", ns=(number, number))  # another file to the cache
        assert route._card_of("a.safetensors")["modules"]

    grown, objects = growth(cycle)
    assert grown < MOST
    assert objects < CYCLES


def growth(cycle: Callable[[int], None]) -> tuple[int, int]:
    """(bytes, Python objects) that the process has more after `CYCLES` calls, counted after the first 100."""
    for number in range(100):
        cycle(number)
    gc.collect()
    memory, objects = resident(), len(gc.get_objects())
    for number in range(100, 100 + CYCLES):
        cycle(number)
    gc.collect()
    grown = resident() - memory, len(gc.get_objects()) - objects
    print(f"{CYCLES} cycles: {grown[0] / 1e6:.2f} MB, {grown[1]} objects more")
    return grown


def resident() -> int:
    """Bytes of this process that are in memory."""
    import psutil

    return psutil.Process().memory_info().rss
