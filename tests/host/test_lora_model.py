"""LORA_MODEL: between ComfyUI's own training nodes and the pack's, both ways, over the API and in process."""

import importlib
import json
import re

import pytest
import torch
from lyco_testing.comfy import Server, WorkflowError
from lyco_testing.comfy_models import patched_weight, tiny_model
from lyco_testing.tables import lokr, random
from lyco_testing.tiny_wan import TEXT, latents, scaled_wan, wan_adapter, wan_checkpoint, workflow
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import lyco_core as lyco

Q = "diffusion_model.blocks.0.self_attn.q"


@pytest.fixture(scope="module")
def files(server: Server) -> Server:
    models = server.base / "models" / "diffusion_models"
    save_file(wan_checkpoint(), models / "lora_plain.safetensors")
    scaled_wan(models / "lora_fp8.safetensors", "blocks.")
    save_file(wan_adapter(), server.base / "models" / "loras" / "lora_of_musubi.safetensors")
    return server


def sampled(base: str, model: list, **nodes: dict) -> dict:
    """`nodes`, and a sampling with the model of one of them."""
    prompt = workflow(base)
    prompt["sample"]["inputs"]["model"] = model
    return prompt | nodes


def items() -> dict:
    return {"class_type": "ProbeItems", "inputs": {"width": TEXT, "count": 2, "captions": 2, "size": 8}}


def stocks_training(algorithm: str, *, bypass: bool) -> dict:
    """Train LoRA."""
    settings = {
        "model": ["model", 0], "latents": ["items", 0], "positive": ["items", 1], "batch_size": 1,
        "grad_accumulation_steps": 1, "steps": 3, "learning_rate": 0.02, "rank": 4, "optimizer": "AdamW",
        "loss_function": "MSE", "seed": 3, "training_dtype": "fp32", "lora_dtype": "fp32", "quantized_backward": False,
        "algorithm": algorithm, "gradient_checkpointing": False, "checkpoint_depth": 1, "offloading": False,
        "existing_lora": "[None]", "bucket_mode": False, "bypass_mode": bypass,
    }  # fmt: skip
    return {"class_type": "TrainLoraNode", "inputs": settings}


def trained(files: Server) -> list:
    """The LORA_MODEL of `stocks_training`, before which older ones have a MODEL."""
    known = files.get("/object_info/TrainLoraNode")["TrainLoraNode"]
    return ["train", known["output"].index("LORA_MODEL")]


def require_bypass(files: Server) -> None:
    known = files.get("/object_info/LoraModelLoader")["LoraModelLoader"]
    if "bypass" not in known["input"]["required"]:
        pytest.skip("this ComfyUI's Load LoRA Model changes quantized weights: it has no bypass")


def ours(lora: list | None) -> dict:
    settings = {"model": ["model", 0], "adapter": "none", "strength": 0.8, "on_partial_match": "error"}
    return {"class_type": "LycoLoadAdapter", "inputs": settings | ({"lora": lora} if lora else {})}


def stocks(lora: list, *, bypass: bool = False) -> dict:
    inputs = {"model": ["model", 0], "lora": lora, "strength_model": 0.8, "bypass": bypass}
    return {"class_type": "LoraModelLoader", "inputs": inputs}


def saved(files: Server, lora: list, prefix: str) -> dict:
    kind = next(kind for kind in ("SaveLoRA", "SaveLoRANode") if files.get(f"/object_info/{kind}"))
    return {"class_type": kind, "inputs": {"lora": lora, "prefix": f"loras/{prefix}"}}


def differ(found: torch.Tensor, expected: torch.Tensor, plain: torch.Tensor) -> float:
    return float((found - expected).norm() / (expected - plain).norm())


TOLD = {
    "LoRA": "lora: Wan 2.1/2.2",
    "LoKr": "2 weights by ComfyUI's own|27 LoKr, 39 difference",  # older ones train none of such a kernel
    "OFT": "54 weights by ComfyUI's own",
}


@pytest.mark.every_host
@pytest.mark.parametrize("algorithm", TOLD)
def test_what_stock_trains_is_loaded_as_stock_loads_it(algorithm: str, files: Server):
    """Biases and norms too; and by its own arithmetic, for OFT and a LoKr of a kernel in three dimensions."""
    nodes = {"items": items(), "train": stocks_training(algorithm, bypass=False), "lora": stocks(trained(files))}
    stock = files.run(
        sampled("lora_plain.safetensors", ["lora", 0], **nodes, keep=saved(files, trained(files), algorithm))
    )
    nodes["lora"] = ours(trained(files))
    shown = {"class_type": "PreviewAny", "inputs": {"source": ["lora", 2]}}
    found = files.run(sampled("lora_plain.safetensors", ["lora", 0], **nodes, shown=shown))
    plain = latents(files, files.run(workflow("lora_plain.safetensors")))
    assert differ(latents(files, found), latents(files, stock), plain) < 1e-4
    assert re.search(TOLD[algorithm], found["shown"]["text"][0])
    assert {match["file"] for match in found["lora"]["lyco_match"]} == {"lora"}
    if algorithm != "LoRA":
        return
    # Save LoRA Weights' file is the same adapter.
    name = f"{algorithm}_00001_.safetensors"
    again = files.run(workflow("lora_plain.safetensors", name, strength=0.8))
    assert differ(latents(files, again), latents(files, found), plain) < 1e-6


def test_on_a_quantized_model_too(files: Server):
    require_bypass(files)
    nodes = {
        "items": items(),
        "train": stocks_training("LoRA", bypass=True),
        "lora": stocks(trained(files), bypass=True),
    }
    stock = latents(files, files.run(sampled("lora_fp8.safetensors", ["lora", 0], **nodes)))
    nodes["lora"] = ours(trained(files))
    found = latents(files, files.run(sampled("lora_fp8.safetensors", ["lora", 0], **nodes)))
    plain = latents(files, files.run(workflow("lora_fp8.safetensors")))
    assert differ(found, stock, plain) < 0.02


def our_training(**inputs: object) -> dict:
    settings = {
        "model": ["model", 0], "latents": ["items", 0], "positive": ["items", 1], "network_module": "lokr",
        "network_dim": 4, "network_alpha": 4.0, "factor": -1, "learning_rate": 0.01, "max_train_steps": 4,
        "batch_size": 1, "seed": 1, "timestep_sampling": "uniform", "discrete_flow_shift": 1.0,
    }  # fmt: skip
    return {"class_type": "LycoTrainAdapter", "inputs": settings | inputs}


@pytest.mark.parametrize(("base", "bypass"), [("lora_plain.safetensors", False), ("lora_fp8.safetensors", True)])
def test_what_is_trained_here_is_loaded_saved_and_drawn_by_stock(base: str, bypass: bool, files: Server):
    if bypass:
        require_bypass(files)
    name = f"mine_{bypass}"
    nodes = {
        "items": items(),
        "train": our_training(output_name=name),
        "lora": stocks(["train", 5], bypass=bypass),
        "keep": saved(files, ["train", 5], f"{name}_stock"),
        "graph": {"class_type": "LossGraphNode", "inputs": {"loss": ["train", 2], "filename_prefix": "loss"}},
    }
    outputs = files.run(sampled(base, ["lora", 0], **nodes))
    plain = latents(files, files.run(workflow(base)))
    expected = latents(files, files.run(workflow(base, f"{name}.safetensors", strength=0.8)))
    assert differ(latents(files, outputs), expected, plain) < (0.02 if bypass else 1e-4)
    assert len(outputs["graph"]["images"]) == 1
    folder = files.base / "output" / "loras"
    with safe_open(folder / f"{name}_stock_00001_.safetensors", "pt") as file:
        assert all(key.startswith("diffusion_model.blocks.") for key in file.keys())  # noqa: SIM118
    kept, mine = load_file(folder / f"{name}_stock_00001_.safetensors"), load_file(folder / f"{name}.safetensors")
    assert len(kept) == len(mine)
    assert torch.equal(kept[f"{Q}.lokr_w1"], mine["lora_unet_blocks_0_self_attn_q.lokr_w1"])


def convert(**inputs: object) -> dict:
    settings = {"adapter": "none", "to": "comfyui", "form": "as it is", "rank": 0, "filename": "", "dtype": "as it is"}
    return {"class_type": "LycoConvertAdapter", "inputs": settings | inputs}


def test_convert_is_the_bridge_between_files_and_lora_models(files: Server):
    nodes = {"there": convert(adapter="lora_of_musubi.safetensors", filename="bridge")}
    nodes |= {"keep": saved(files, ["there", 2], "bridge_stock"), "back": convert(to="musubi", filename="bridge_back")}
    nodes["back"]["inputs"]["lora"] = ["there", 2]
    outputs = files.run(nodes)
    assert "bridge_back.safetensors (output/loras): 20 renamed" in outputs["back"]["text"][0]
    folder = files.base / "output" / "loras"
    written, stock = load_file(folder / "bridge.safetensors"), load_file(folder / "bridge_stock_00001_.safetensors")
    assert written.keys() == stock.keys()
    assert all(torch.equal(written[key], stock[key]) for key in written)
    back = load_file(folder / "bridge_back.safetensors")
    assert {key: tensor.tolist() for key, tensor in back.items()} == {
        key: tensor.tolist() for key, tensor in wan_adapter().items()
    }


def combine(lora: list | None, strength: float = -0.5, **inputs: object) -> dict:
    settings = {"adapter_1": "none", "strength_1": 1.0, "on_1": True, "method": "sum", "form": "as it is", "rank": 0}
    settings |= {"filename": "", "lora_model_strength": strength} | ({"lora_model": lora} if lora else {})
    return {"class_type": "LycoCombineAdapters", "inputs": settings | inputs}


def test_a_sum_with_what_stock_trains_is_both_loaded(files: Server):
    """By Load LoRA Model, and by Save LoRA Weights' file; the file that is written has the same change."""
    nodes = {"items": items(), "train": stocks_training("LoRA", bypass=False)}
    name = "lora_of_musubi.safetensors"
    mine = {"class_type": "LycoLoadAdapter", "inputs": ours(None)["inputs"] | {"adapter": name, "strength": 1.5}}
    second = stocks(["train", 0])
    second["inputs"] |= {"model": ["mine", 0], "strength_model": -0.5}
    both = files.run(sampled("lora_plain.safetensors", ["second", 0], **nodes, mine=mine, second=second))
    nodes["sum"] = combine(["train", 0], adapter_1=name, strength_1=1.5, filename="with_stocks")
    nodes["lora"] = stocks(["sum", 2])
    nodes["lora"]["inputs"]["strength_model"] = 1.0
    found = files.run(
        sampled("lora_plain.safetensors", ["lora", 0], **nodes, keep=saved(files, ["sum", 2], "sum_stock"))
    )
    plain = latents(files, files.run(workflow("lora_plain.safetensors")))
    assert differ(latents(files, found), latents(files, both), plain) < 1e-4
    report = found["sum"]["text"][0]
    assert "LORA_MODEL: 66 modules at strength -0.5" in report
    folder = files.base / "output" / "loras"
    with safe_open(folder / "with_stocks.safetensors", "pt") as file:
        parts = json.loads(file.metadata()["lyco_combination"])["adapters"]
    assert [sorted(part) for part in parts] == [["name", "sha256", "strength"], ["name", "strength"]]
    assert parts[1] == {"name": "LORA_MODEL", "strength": -0.5}
    base = files.base / "models" / "diffusion_models" / "lora_plain.safetensors"
    names = ("with_stocks.safetensors", "sum_stock_00001_.safetensors")
    written, kept = (lyco.delta(folder / name, model=base) for name in names)
    assert written.keys() == kept.keys()
    assert all(torch.equal(written[key], kept[key]) for key in written)


def test_a_lora_model_is_combined_without_a_file(files: Server):
    nodes = {"there": convert(adapter="lora_of_musubi.safetensors", filename="for_a_sum")}
    nodes |= {"alone": combine(["there", 2], filename="alone")}
    files.run(nodes)
    folder = files.base / "output" / "loras"
    made, whole = lyco.delta(folder / "alone.safetensors"), lyco.delta(folder / "for_a_sum.safetensors")
    assert all(torch.allclose(made[key], -0.5 * whole[key], rtol=1e-5, atol=1e-7) for key in whole)


def test_a_sum_of_nothing_or_of_what_is_damaged_is_refused(files: Server, host):
    with pytest.raises(WorkflowError, match="there is no adapter to combine"):
        files.run({"sum": combine(None, filename="refused")})
    asked = host.combination(
        "sum", host.AS_IT_IS, 0, density=0, seed=0, to=host.AS_IT_IS, dtype=host.AS_IT_IS, base="none"
    )
    with pytest.raises(Exception, match=f"^LORA_MODEL: {Q}: down missing"):
        host.combine([], asked, "refused", overwrite=False, lora={f"{Q}.lora_up.weight": torch.ones(64, 2)})


def test_it_is_read_when_it_is_used_and_only_as_it_was_made(tmp_path, pack, host):
    """Whatever asks: also what copies a dict without asking its methods."""
    model = importlib.import_module(f"{pack.__name__}.nodes.host.model.lora_model")
    path = tmp_path / "made.safetensors"
    save_file(wan_adapter(), path)
    outline = lyco.load(path)
    made, copied, changed = (model.lora_model_in(str(path), outline) for _ in range(3))
    assert len(made) == len(wan_adapter())
    assert copied.copy().keys() == {**made}.keys() == dict(made).keys() == made.keys()
    save_file(wan_adapter("loha"), path)
    assert torch.equal(made[f"{Q}.lokr_w1"], wan_adapter()["lora_unet_blocks_0_self_attn_q.lokr_w1"])
    with pytest.raises(Exception, match=r"made\.safetensors: is gone, or not as it was made for this LORA_MODEL"):
        dict(changed)


def test_another_layout_has_no_lora_model(files: Server):
    """Whoever asks for it is told; the file is written."""
    nodes = {"there": convert(adapter="lora_of_musubi.safetensors", to="musubi", filename="no_bridge")}
    with pytest.raises(
        WorkflowError, match="no LORA_MODEL: its names are ComfyUI's own; set to to comfyui, not musubi"
    ):
        files.run(nodes | {"keep": saved(files, ["there", 2], "none")})
    assert (files.base / "output" / "loras" / "no_bridge.safetensors").exists()


def test_without_a_file_or_a_lora(files: Server):
    with pytest.raises(WorkflowError, match="'none': there is no such file in models/loras"):
        files.run(sampled("lora_plain.safetensors", ["lora", 0], lora=ours(None)))


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ("a.safetensors", "lora: is of the type str, expected tensors by name; connect a node that makes a LORA_MODEL"),
        ({Q: 1}, "lora: is of the type dict, expected tensors"),
        ({f"{Q}.lora_up.weight": torch.ones(64, 2)}, f"lora: {Q}: down missing"),
        ({f"{Q}.diff": torch.full((64, 64), float("nan"))}, "lora: .*NaN"),
    ],
)
def test_what_is_none_is_told(lora, said, host):
    with pytest.raises(Exception, match=said):
        host.adapters_of(lora)


def test_one_that_does_not_fit_is_refused(host):
    found = host.adapters_of(lokr("diffusion_model.blocks.7.self_attn.q", 64, 64, random))
    with pytest.raises(Exception, match=r"lora: 1 of 1 modules are not in the model"):
        host.load_onto(tiny_model("wan"), None, host.LORA, 1.0, partial=False, opened=found)


def test_its_tensors_are_neither_kept_from_gradients_nor_changed(host):
    """What a node made in inference mode is none that others could be trained beside."""
    with torch.inference_mode():
        tensors = lokr(Q, 64, 64, random)
    before = {key: tensor.clone() for key, tensor in tensors.items()}
    found = host.adapters_of(tensors)
    assert not any(t.is_inference() for adapter in found.adapters.values() for t in adapter.tensors.values())
    model = tiny_model("wan")
    loaded = host.load_onto(model, None, host.LORA, 0.5, partial=False, opened=found)
    key = f"{Q}.weight"
    change = patched_weight(loaded.model, key) - model.model.state_dict()[key]
    w1, a, b = (before[f"{Q}.lokr_{x}"] for x in ("w1", "w2_a", "w2_b"))
    scale = 0.5 * float(before[f"{Q}.alpha"]) / a.shape[1]
    assert torch.allclose(change, torch.kron(w1, a @ b) * scale, atol=1e-5)
    assert all(torch.equal(tensors[key], before[key]) for key in tensors)
