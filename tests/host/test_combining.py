"""*Combine Adapters* in a real ComfyUI: what it saves is what loading all of its files does."""

import pytest
import torch
from lyco_testing.comfy import Server, WorkflowError
from lyco_testing.tables import lokr, musubi_file, random
from safetensors.torch import load_file, save_file

import lyco_core as lyco

SHAPES = {"blocks.0.self_attn.q": (64, 64), "blocks.0.ffn.0": (160, 64)}


@pytest.fixture(scope="module")
def files(server: Server) -> list[str]:
    torch.manual_seed(2)
    folder = server.base / "models" / "loras"
    for algorithm in ("lokr", "lora"):
        save_file(musubi_file(SHAPES, algorithm, random), folder / f"combine_{algorithm}.safetensors")
    dora = lokr("diffusion_model.blocks.0.self_attn.q", 64, 64, random)
    dora["diffusion_model.blocks.0.self_attn.q.dora_scale"] = random(64, 1).abs() + 4
    save_file(dora, folder / "combine_dora.safetensors", {"lyco_architecture": "wan"})
    return ["combine_lokr.safetensors", "combine_lora.safetensors"]


def workflow(files: list[str], strengths: tuple[float, ...] = (0.8, -0.5), **inputs: object) -> dict:
    settings: dict[str, object] = {"on_1": True, "method": "sum", "form": "as it is", "rank": 0, "filename": ""}
    for number, (file, strength) in enumerate(zip(files, strengths, strict=True), 1):
        settings |= {f"adapter_{number}": file, f"strength_{number}": strength}
    return {
        "combine": {"class_type": "LycoCombineAdapters", "inputs": settings | inputs},
        "inspect": {"class_type": "LycoInspectAdapter", "inputs": {"adapter": ["combine", 0]}},
    }


@pytest.mark.every_host
def test_the_node_saves_where_the_loaders_look_and_hands_on_the_name(server: Server, files: list[str]):
    outputs = server.run(workflow(files))
    report = outputs["combine"]["text"][0]
    assert "combine_lokr_combined.safetensors (output/loras)" in report
    assert "combine_lora.safetensors: 2 modules at strength -0.5" in report
    assert ", exact" in report
    assert "lyco_combination" in outputs["inspect"]["text"][0]
    made = lyco.delta(server.base / "output" / "loras" / "combine_lokr_combined.safetensors")
    both = [lyco.delta(server.base / "models" / "loras" / name) for name in files]
    for key, found in made.items():
        expected = 0.8 * both[0][key].double() - 0.5 * both[1][key].double()
        assert float((found - expected).norm() / expected.norm()) < 2e-6
    listed = server.get("/object_info/LycoLoadAdapter")["LycoLoadAdapter"]["input"]["required"]["adapter"]
    assert "combine_lokr_combined.safetensors" in str(listed)


def test_a_row_that_is_off_takes_no_part(server: Server, files: list[str]):
    server.run(workflow(files, on_2=False, filename="off"))
    made = lyco.delta(server.base / "output" / "loras" / "off.safetensors")
    alone = lyco.delta(server.base / "models" / "loras" / files[0])
    assert all(torch.allclose(made[key], 0.8 * delta, rtol=1e-5, atol=1e-6) for key, delta in alone.items())


def test_methods_and_forms(server: Server, files: list[str]):
    outputs = server.run(workflow(files, method="ties", form="lokr", density=0.3, filename="ties"))
    assert "relative error" in outputs["combine"]["text"][0]
    assert any("lokr_w2" in key for key in load_file(server.base / "output" / "loras" / "ties.safetensors"))
    outputs = server.run(workflow(files, (1, 1), method="average", rank=4, filename="mean"))
    assert "averaged on the changes" in outputs["combine"]["text"][0]


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"method": "dare"}, "so it has no exact form; say how small it is to be; set a rank"),
        ({"adapter_2": "combine_dora.safetensors"}, "is LoKr with DoRA.*; choose the checkpoint that .* as base"),
        ({"adapter_2": "combine_lokr.safetensors", "strength_2": -0.8}, "the strengths cancel"),
        ({"filename": "../up"}, "expected a plain file name"),
        ({"on_1": False, "on_2": False}, "there is no adapter to combine"),
    ],
)
def test_what_is_refused_leaves_nothing(server: Server, files: list[str], inputs, reason):
    before = sorted((server.base / "output").rglob("*"))
    with pytest.raises(WorkflowError, match=reason):
        server.run(workflow(files, **({"filename": "refused"} | inputs)))
    assert sorted((server.base / "output").rglob("*")) == before
