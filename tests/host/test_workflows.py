"""The example workflows fit the nodes that this ComfyUI has."""

import json
from pathlib import Path

import pytest
from lyco_testing.comfy import ROOT, Server

FILES = sorted((ROOT / "example_workflows").rglob("*.json"))
APIS = [path for path in FILES if path.parent.name == "api"]
GRAPHS = [path for path in FILES if path.parent.name != "api"]


@pytest.fixture(scope="module")
def nodes(server: Server) -> dict:
    found = server.get("/object_info")
    if "MakeTrainingDataset" not in found:
        pytest.skip("this ComfyUI has no dataset nodes")
    return found


@pytest.mark.parametrize("path", APIS, ids=lambda path: path.name)
def test_every_node_and_input_is_there(path: Path, nodes: dict):
    workflow = json.loads(path.read_text("utf-8"))
    assert any(node["class_type"] == "LycoTrainAdapter" for node in workflow.values())
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
    graph = json.loads(path.read_text("utf-8"))
    api = json.loads((path.parent / "api" / f"{path.stem.lower().replace(' ', '_')}.json").read_text("utf-8"))
    kinds = sorted(node["type"] for node in graph["nodes"] if node["type"] != "MarkdownNote")
    assert kinds == sorted(node["class_type"] for node in api.values())
    links = sum(isinstance(value, list) for node in api.values() for value in node["inputs"].values())
    assert len(graph["links"]) == links
