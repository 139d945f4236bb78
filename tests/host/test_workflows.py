"""The example workflows: each graph is its API form, and each API form runs, posted by examples/run.py."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lyco_testing.comfy import ROOT, Server
from lyco_testing.example_files import write_models
from lyco_testing.tiny_wan import TEXT
from PIL import Image

GRAPHS = sorted((ROOT / "example_workflows").glob("*.json"))
API = ROOT / "examples" / "api"
APIS = sorted(API.glob("*.json"))

BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))

SHORTER = {
    "EmptySD3LatentImage": {"width": 64, "height": 64},
    "LycoTrainAdapter": {"max_train_steps": 3},
    "LycoTrainingDataset": {"width": 64, "height": 64},
    "ImageScale": {"width": 64, "height": 64},
}
"""Values in which a test's run differs from the example."""


@pytest.fixture(scope="module")
def nodes(server: Server) -> dict:
    found = server.get("/object_info")
    if "LoadVideoTextDataSetFromFolder" not in found:
        pytest.skip("this ComfyUI has no dataset nodes for videos")
    return found


def api_of(graph: Path) -> Path:
    return API / f"{graph.stem.lower().replace(' ', '_')}.json"


def test_there_is_one_of_each_kind():
    assert len(GRAPHS) == 10
    assert {api_of(path) for path in GRAPHS} == set(APIS)
    assert all(path.with_suffix(".jpg").stat().st_size > 10_000 for path in GRAPHS)


@pytest.mark.parametrize("path", APIS, ids=lambda path: path.name)
def test_every_node_and_input_is_there(path: Path, nodes: dict):
    workflow = json.loads(path.read_text("utf-8"))
    assert any(node["class_type"].startswith("Lyco") for node in workflow.values())
    for node in workflow.values():
        inputs = nodes[node["class_type"]]["input"]
        required, optional = inputs.get("required", {}), inputs.get("optional", {})
        assert required.keys() <= node["inputs"].keys(), node["class_type"]
        assert node["inputs"].keys() <= required.keys() | optional.keys(), node["class_type"]
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                source = nodes[workflow[value[0]]["class_type"]]
                kind = (required | optional)[name][0]
                assert kind == "*" or source["output"][value[1]] == kind, (node["class_type"], name)


@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.name)
def test_a_graph_is_its_api_form(path: Path):
    graph, api = json.loads(path.read_text("utf-8")), json.loads(api_of(path).read_text("utf-8"))
    kinds = sorted(node["type"] for node in graph["nodes"] if node["type"] != "MarkdownNote")
    assert kinds == sorted(node["class_type"] for node in api.values())
    links = sum(isinstance(value, list) for node in api.values() for value in node["inputs"].values())
    assert len(graph["links"]) == links


@pytest.fixture(scope="module")
def files(pack, nodes: dict, server: Server) -> Server:
    """Everything that the examples name."""
    import av

    write_models(server.base)
    pictures, clips = server.base / "input" / "my_pictures", server.base / "input" / "my_clips"
    for folder in (pictures, clips):
        folder.mkdir()
    pixels = np.random.default_rng(0)
    for name in ("one", "two"):
        Image.fromarray(pixels.integers(0, 255, (96, 80, 3), dtype=np.uint8)).save(pictures / f"{name}.png")
        with av.open(clips / f"{name}.mp4", "w") as video:
            stream = video.add_stream("mpeg4", rate=16)
            stream.width, stream.height = 96, 80
            for _ in range(20):
                frame = av.VideoFrame.from_ndarray(pixels.integers(0, 255, (80, 96, 3), dtype=np.uint8), "rgb24")
                video.mux(stream.encode(frame))
            video.mux(stream.encode())
        for folder in (pictures, clips):
            (folder / f"{name}.txt").write_text(f"picture {name}")
    return server


def shortened(path: Path, to: Path) -> Path:
    """A copy for this test: a few steps, small pictures, and a probe instead of text encoders of 8 GB."""
    workflow = json.loads(path.read_text("utf-8"))
    for node in workflow.values():
        node["inputs"] |= SHORTER.get(node["class_type"], {})
        if node["class_type"] == "CLIPLoader":
            node.update(class_type="ProbeClip", inputs={"width": TEXT})
    (to / path.name).write_text(json.dumps(workflow))
    return to / path.name


SAYS = {
    "load_a_loha_or_lokr.json": ("20 of 20 modules on 20 weights", "lokr_00001_.png"),
    "hook_a_loha_or_lokr.json": ("hooked_00001_.png",),
    "convert_for_other_tools.json": ("my_lokr_diffusers.safetensors (output/loras): 20 renamed",),
    "combine_adapters.json": (
        "my_lokr_combined.safetensors (output/loras)",
        "my_loha.safetensors: 20 modules at strength 0.5",
    ),
    "inspect_an_adapter.json": ("Wan 2.1/2.2", "20 of 20 modules on 20 weights"),
    "merge_into_a_model_file.json": ("(output/diffusion_models): 20 of 69 tensors changed",),
    "train_on_a_folder.json": ("my_adapter", "20 modules", "3 steps, 2 items"),
    "train_on_images.json": ("my_adapter", "20 modules", "3 steps, 2 items"),
    "train_on_videos.json": ("my_adapter", "20 modules", "3 steps, 2 items"),
    "try_strengths.json": ("tried_00001_.png",),
}


@pytest.mark.parametrize("path", APIS, ids=lambda path: path.name)
def test_it_runs(path: Path, files: Server, tmp_path: Path):
    command = [sys.executable, str(ROOT / "examples" / "run.py"), str(shortened(path, tmp_path)), files.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    for text in SAYS[path.name]:
        assert text in done.stdout


def test_the_script_says_what_is_wrong(files: Server, tmp_path: Path):
    workflow = json.loads((API / "inspect_an_adapter.json").read_text("utf-8"))
    for node in workflow.values():
        if node["class_type"] == "LycoInspectAdapter":
            node["inputs"]["adapter"] = "none.safetensors"
    (tmp_path / "wrong.json").write_text(json.dumps(workflow))
    command = [sys.executable, str(ROOT / "examples" / "run.py"), str(tmp_path / "wrong.json"), files.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first.startswith("refused: Prompt outputs failed validation")
    assert "(Inspect Adapter): Value not in list: adapter: 'none.safetensors' not in " in second
    assert "Traceback" not in done.stderr


def inside(path: Path, **given: object) -> dict[str, dict]:
    """A blueprint in API form, with these values of its inputs, or links to nodes outside."""
    blueprint = json.loads(path.read_text("utf-8"))
    (outer,), (subgraph,) = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    shown = [slot["name"] for slot in outer["inputs"] if "widget" in slot]
    values = dict(zip(shown, outer["widgets_values"], strict=True)) | given
    links, made = {link["id"]: link for link in subgraph["links"]}, {}
    for node in subgraph["nodes"]:
        widgets = [slot["name"] for slot in node["inputs"] if "widget" in slot]
        inputs = dict(zip(widgets, node.get("widgets_values") or [], strict=True))
        for slot in node["inputs"]:
            if (link := links.get(slot["link"])) is None:
                continue
            if link["origin_id"] != -10:  # which stands for the subgraph's own inputs
                inputs[slot["name"]] = [str(link["origin_id"]), link["origin_slot"]]
            elif (name := subgraph["inputs"][link["origin_slot"]]["name"]) in values:
                inputs[slot["name"]] = values[name]
        made[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return made


def test_comfyui_offers_the_blueprints(server: Server):
    offered = [entry for entry in server.get("/global_subgraphs").values() if entry["source"] == "custom_node"]
    assert {entry["name"] for entry in offered} == {path.stem for path in BLUEPRINTS}
    assert {entry["info"]["node_pack"] for entry in offered} == {"custom_nodes.comfyui-lyco"}
    assert len(BLUEPRINTS) == 2


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.name)
def test_a_blueprint_is_one_node_that_knows_every_input(path: Path, nodes: dict):
    blueprint = json.loads(path.read_text("utf-8"))
    (outer,), (subgraph,) = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    assert outer["type"] == subgraph["id"]
    assert subgraph["name"] == outer["title"] == path.stem
    for side in ("inputs", "outputs"):
        assert [slot["name"] for slot in outer[side]] == [slot["name"] for slot in subgraph[side]]
    for node in subgraph["nodes"]:
        info = nodes[node["type"]]
        known = {name for part in ("required", "optional") for name in info["input"].get(part, {})}
        assert {slot["name"] for slot in node["inputs"]} == known, node["type"]
        widgets = [slot["name"] for slot in node["inputs"] if "widget" in slot]
        order = [name for part in ("required", "optional") for name in info["input_order"].get(part, [])]
        assert widgets == [name for name in order if name in widgets]


def test_the_blueprint_that_loads_runs(files: Server):
    (path,) = [path for path in BLUEPRINTS if path.stem.startswith("Load")]
    model = {"class_type": "UNETLoader", "inputs": {"unet_name": "z_image_bf16.safetensors", "weight_dtype": "default"}}
    told = files.run(inside(path, model=["outside", 0]) | {"outside": model})
    assert ["20 of 20 modules on 20 weights" in output["text"][0] for output in told.values() if "text" in output] == [
        True
    ]


def test_the_blueprint_that_trains_runs(files: Server):
    (path,) = [path for path in BLUEPRINTS if path.stem.startswith("Train")]
    outside = {
        "model": ("UNETLoader", {"unet_name": "z_image_bf16.safetensors", "weight_dtype": "default"}),
        "vae": ("VAELoader", {"vae_name": "ae.safetensors"}),
        "clip": ("ProbeClip", {"width": TEXT}),
    }
    workflow = inside(
        path, **{name: [name, 0] for name in outside}, width=64, height=64, max_train_steps=3, output_name="blueprint"
    )
    told = files.run(
        workflow | {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in outside.items()}
    )
    assert any("3 steps, 2 items" in line for output in told.values() for line in output.get("text", []))
    assert (files.base / "output" / "loras" / "blueprint.safetensors").exists()
