"""What has no place, left out on purpose by any name that a message prints, in every node that loads or merges."""

import importlib
import re

import pytest
import torch
from lyco_testing.comfy_models import tiny_model
from lyco_testing.hosted import tiny_targets
from lyco_testing.tables import lora, musubi_file, random
from safetensors.torch import load_file, save_file

SPELLINGS = [
    r"lora_unet_blocks_9_.*",
    r"blocks\.9\..*",
    r"diffusion_model\.blocks\.9\..*\.weight",
]
NODES = ["LoadAdapter", "MergeAdapter", "MergeCheckpoint"]


def node(pack, name: str):
    module = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return getattr(importlib.import_module(f"{pack.__name__}.nodes.{module}"), name)


@pytest.fixture
def wan(loras, tmp_path, monkeypatch):
    """A Wan, as a model and as a file, and an adapter with modules of a block more than it has."""
    import folder_paths

    torch.manual_seed(5)
    tensors = musubi_file(tiny_targets("wan"), "lora", random)
    torch.manual_seed(6)
    more = {key.replace("blocks_1", "blocks_9"): t.clone() for key, t in tensors.items() if "blocks_1" in key}
    save_file(tensors | more, loras / "a.safetensors")
    save_file(tensors, loras / "fits.safetensors")
    model = tiny_model("wan")
    models = tmp_path / "models"
    models.mkdir()
    weights = {k: t.contiguous() for k, t in model.model.state_dict().items() if k.startswith("diffusion_model.")}
    save_file({f"model.{k}": t for k, t in weights.items()}, models / "wan.safetensors")
    paths = folder_paths.folder_names_and_paths
    monkeypatch.setitem(paths, "diffusion_models", ([str(models)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    return model


def run(pack, name: str, model, adapter: str, **inputs) -> tuple[set[str], str]:
    """The weights that a node changed, and what it reported."""
    made = node(pack, name)
    before = model.model.state_dict()
    if name == "MergeCheckpoint":
        import folder_paths

        inputs = {"filename": "out", "overwrite": True, **inputs}
        result = made.execute(base="diffusion_models/wan.safetensors", adapter=adapter, strength=1.0, **inputs).args
        path = f"{folder_paths.output_directory}/diffusion_models/out.safetensors"
        after = {k.removeprefix("model."): t for k, t in load_file(path).items()}
        return {k for k, t in after.items() if not torch.equal(t, before[k])}, result[1]
    result = made.execute(model=model, adapter=adapter, strength=1.0, **inputs).args
    if name == "LoadAdapter":
        return {*result[0].patches}, result[2]
    return {k for k, t in result[0].model.state_dict().items() if not torch.equal(t, before[k])}, result[1]


@pytest.mark.parametrize("name", NODES)
def test_by_every_spelling(name: str, wan, pack):
    whole, _ = run(pack, name, wan, "fits.safetensors")
    assert len(whole) > 10
    for text in [*SPELLINGS, "\n".join(f"lora_unet_{p}".replace(".", "_") for p in nines(wan))]:
        changed, report = run(pack, name, wan, "a.safetensors", exclude=text)
        assert changed == whole
        assert "left out" not in report
    for text in ("lora_unet_blocks_1_.*", r"blocks\.1\..*", r"diffusion_model\.blocks\.1\..*\.weight"):
        changed, _ = run(pack, name, wan, "a.safetensors", include=text)
        assert changed == {key for key in whole if ".blocks.1." in key}
        changed, _ = run(pack, name, wan, "fits.safetensors", block_strengths=f"{text}=0")
        assert changed == {key for key in whole if ".blocks.1." not in key}


def nines(model) -> list[str]:
    return [path.replace("blocks.1.", "blocks.9.") for path in tiny_targets("wan") if path.startswith("blocks.1.")]


@pytest.mark.parametrize("name", NODES)
def test_the_error_ends_with_both_ways_out(name: str, wan, pack):
    whole, _ = run(pack, name, wan, "fits.safetensors")
    verb = "apply" if name == "LoadAdapter" else "merge"
    with pytest.raises(
        Exception, match=rf"not in the model .*; set on_partial_match to warn to {verb} the rest"
    ) as caught:
        run(pack, name, wan, "a.safetensors")
    pattern = str(caught.value).rpartition(" by this line in exclude: ")[2]
    assert pattern == r"blocks\.9\..*"
    assert run(pack, name, wan, "a.safetensors", exclude=pattern)[0] == whole
    changed, report = run(pack, name, wan, "a.safetensors", on_partial_match="warn")
    assert changed == whole
    assert re.search(r"left out: \d+ of \d+ modules are not in the model", report)


def test_load_adapters_has_no_patterns_and_says_where_there_are(wan, pack):
    rows = {"adapter_1": "a.safetensors", "strength_1": 1.0, "on_1": True}
    with pytest.raises(Exception, match=r"apply the rest, or load this file with Load LoHa/LoKr .* exclude: blocks"):
        node(pack, "LoadAdapters").execute(model=wan, **rows)
    made = node(pack, "LoadAdapters").execute(model=wan, on_partial_match="warn", **rows).args
    assert made[0].patches


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("LoadAdapter", {"model": "", "adapter": "a.safetensors", "strength": None}),
        ("LoadAdapter", {"model": "", "adapter": "a.safetensors", "strength": 1.0, "scale": None}),
        ("LoadAdapters", {"model": "", "adapter_1": "a.safetensors", "strength_1": None, "on_1": True}),
        ("MergeAdapter", {"model": "", "adapter": "a.safetensors", "strength": None}),
        (
            "MergeCheckpoint",
            {"base": "diffusion_models/x", "adapter": "a.safetensors", "strength": None, "filename": ""},
        ),
        ("ResizeAdapter", {"adapter": "a.safetensors", "by": "error", "rank": 4, "share": None, "filename": ""}),
    ],
)
def test_what_is_no_number_is_refused_before_anything_is_looked_for(name: str, inputs: dict, value: float, pack):
    """ComfyUI compares it with the widget's bounds, and NaN is below none and above none."""
    wrong = next(key for key, given in inputs.items() if given is None)
    with pytest.raises(Exception, match=rf"^{wrong} is {value}, expected a finite number$"):
        node(pack, name).execute(**{key: value if given is None else given for key, given in inputs.items()})


@pytest.mark.parametrize("text", ["blocks.*=nan", "blocks.*=inf", "blocks.*=1e400"])
@pytest.mark.parametrize("name", NODES)
def test_block_strengths_are_numbers(name: str, text: str, wan, pack):
    with pytest.raises(Exception, match="is no block strength"):
        run(pack, name, wan, "fits.safetensors", block_strengths=text)


def test_merge_into_model_advises_what_it_has(wan, loras, pack):
    save_file(
        {k: t * 1e4 for k, t in lora("lora_unet_blocks_0_self_attn_q", 64, 64, random).items()}, loras / "b.safetensors"
    )
    model = tiny_model("wan", torch.float16)
    with pytest.raises(
        Exception, match=r"self_attn\.q\.weight: the result reaches .*; lower the strength, or use Merge"
    ):
        run(pack, "MergeAdapter", model, "b.safetensors")


def test_what_comfyuis_names_place_goes_by_its_weights_name_too(loras, host):
    """A weight that is set is no adapter of ours; ComfyUI's own names place it, and its own patch sets it."""
    tensors = musubi_file(tiny_targets("wan"), "lora", random)
    tensors["diffusion_model.blocks.0.norm3.set_weight"] = random(64)
    save_file(tensors, loras / "a.safetensors")
    model = tiny_model("wan")
    for include in (
        "diffusion_model.blocks.0.norm3.weight",
        "blocks.0.norm3",
        r"diffusion_model\.blocks\.0\.norm3\.set_weight",
    ):
        loaded = host.load_onto(
            model, None, "a.safetensors", 1.0, partial=False, selection=host.selection(include, "", "")
        )
        assert {*loaded.model.patches} == {"diffusion_model.blocks.0.norm3.weight"}
