"""*LoRA/LoHa/LoKr Stack Loader*: rows of files onto one model, in process and over the API."""

import pytest
import torch
from lyco_testing.comfy import Server, WorkflowError
from lyco_testing.comfy_models import patched_weight, tiny_model
from lyco_testing.tables import lokr, random
from lyco_testing.tiny_wan import latents, wan_adapter, wan_checkpoint, workflow
from safetensors.torch import save_file

Q = "diffusion_model.blocks.0.self_attn.q"
KEY = f"{Q}.weight"


@pytest.fixture
def three(loras):
    torch.manual_seed(4)
    save_file(lokr(Q, 64, 64, random), loras / "one.safetensors")
    save_file({f"{Q}.diff": random(64, 64)}, loras / "two.safetensors")
    save_file(lokr("lora_unet_double_blocks_0_img_attn_qkv", 192, 64, random), loras / "flux.safetensors")


def test_rows_add_up_and_rows_that_are_off_do_not(three, host):
    model = tiny_model("wan")
    rows = [
        host.Row("one.safetensors", 0.5, True),
        host.Row("none", 1.0, True),
        host.Row("two.safetensors", 9.0, False),
        host.Row("two.safetensors", -0.25, True),
    ]
    loaded = host.load_rows(model, None, rows, partial=False, mode="auto")
    before = model.model.state_dict()[KEY]
    chained = host.load_onto(model, None, "one.safetensors", 0.5, partial=False).model
    chained = host.load_onto(chained, None, "two.safetensors", -0.25, partial=False).model
    assert torch.equal(patched_weight(loaded.model, KEY), patched_weight(chained, KEY))
    assert not torch.equal(patched_weight(loaded.model, KEY), before)
    assert loaded.report.count("strength") == 2


def test_no_row_is_no_change(three, host):
    model = tiny_model("wan")
    loaded = host.load_rows(model, None, [host.Row("one.safetensors", 1.0, False)], partial=False, mode="auto")
    assert loaded.model is model
    assert "nothing is applied" in loaded.report


def test_adapters_of_another_architecture_are_named_before_anything_is_applied(three, host):
    model = tiny_model("wan")
    rows = [host.Row("one.safetensors", 1.0, True), host.Row("flux.safetensors", 1.0, True)]
    message = (
        r"the model is Wan 2.1/2.2, but 1 of 2 adapters are for others: flux.safetensors is for FLUX.1; switch them"
    )
    with pytest.raises(Exception, match=message):
        host.load_rows(model, None, rows, partial=True, mode="auto")
    assert not model.patches


def test_another_packs_list_of_files(three, loras, host):
    """Under the other system's slashes too, without the ending, and as a path, as some packs name files."""
    (loras / "deep").mkdir()
    (loras / "one.safetensors").rename(loras / "deep" / "one.safetensors")
    for name in ("deep/one.safetensors", r"deep\one.safetensors", "deep/one", str(loras / "deep" / "one.safetensors")):
        (row,) = host.rows_of_stack([("None", 1.0, 1.0), (name, 0.5, 0)])
        assert host.load_rows(tiny_model("wan"), None, [row], partial=False, mode="auto").report.startswith(row.name)
        assert (row.strength, row.for_text_encoder, row.takes_part) == (0.5, 0.0, True)
    rows = [row, host.Row("two.safetensors", 2.0, True), host.Row("two.safetensors", 2.0, False)]
    assert host.stack_of(rows) == [(row.name, 0.5, 0.0), ("two.safetensors", 2.0, 2.0)]
    assert host.rows_of_stack(host.stack_of(rows))[0] == row


@pytest.mark.parametrize(
    ("stack", "said"),
    [
        ("one.safetensors", "lora_stack is of the type str, expected a list of .file, strength"),
        ([("one.safetensors", 1.0)], "entry 1 is .*expected .file, strength, strength for the text encoder"),
        ([("None", 1, 1), ("one.safetensors", "1", 1.0)], "entry 2 is "),
        ([("one.safetensors", float("nan"), 1.0)], "finite"),
        ([{"name": "one.safetensors", "strength": 1.0}], "entry 1 is {'name': .*expected .file, strength"),
        (["one.safetensors"], "entry 1 is 'one.safetensors', expected"),
        ([("gone", 1.0, 1.0)], "'gone': there is no such file in models/loras"),
        ([("/etc/passwd", 1.0, 1.0)], "'/etc/passwd': there is no such file in models/loras"),
    ],
)
def test_a_list_that_is_none_is_told(stack, said, three, host):
    with pytest.raises(Exception, match=said):
        host.rows_of_stack(stack)


@pytest.fixture(scope="module")
def files(server: Server) -> Server:
    save_file(wan_checkpoint(), server.base / "models" / "diffusion_models" / "rows_wan.safetensors")
    save_file(wan_adapter(), server.base / "models" / "loras" / "rows_a.safetensors")
    return server


def rows_workflow(**rows: object) -> dict:
    prompt = workflow("rows_wan.safetensors", "rows_a.safetensors")
    load = next(key for key, node in prompt.items() if node["class_type"] == "LycoLoadAdapter")
    inputs = {"adapter_1": "none", "strength_1": 1.0, "on_1": True}
    prompt[load] = {
        "class_type": "LycoLoadAdapters",
        "inputs": inputs | {"model": prompt[load]["inputs"]["model"]} | rows,
    }
    return prompt


@pytest.mark.every_host
def test_rows_over_the_api_are_what_chained_loaders_are(files: Server):
    half = workflow("rows_wan.safetensors", "rows_a.safetensors", strength=0.75)
    expected = latents(files, files.run(half))
    rows = {"adapter_1": "rows_a.safetensors", "strength_1": 0.5, "adapter_4": "rows_a.safetensors", "strength_4": 0.25}
    found = latents(files, files.run(rows_workflow(**rows)))
    plain = latents(files, files.run(rows_workflow(adapter_3="rows_a.safetensors", on_3=False)))
    assert (found - expected).norm() < 1e-5 * (expected - plain).norm()


def test_a_file_that_is_not_there_is_said(files: Server):
    with pytest.raises(WorkflowError, match=r"adapter_2|nowhere"):
        files.run(rows_workflow(adapter_2="nowhere.safetensors"))


@pytest.mark.every_host
def test_a_stack_is_loaded_before_the_rows_and_handed_on(files: Server):
    """What one loader hands on, and a row, are what both say together."""
    both = {"strength_1": 0.5, "adapter_12": "rows_a.safetensors", "strength_12": 0.25}
    expected = latents(files, files.run(rows_workflow(adapter_1="rows_a.safetensors", **both)))
    prompt = rows_workflow(adapter_1="rows_a.safetensors", strength_1=0.25)
    loader = next(key for key, node in prompt.items() if node["class_type"] == "LycoLoadAdapters")
    first = {"adapter_1": "rows_a.safetensors", "strength_1": 0.5, "on_1": True}
    prompt["first"] = {
        "class_type": "LycoLoadAdapters",
        "inputs": first | {"model": prompt[loader]["inputs"]["model"]},
    }
    prompt[loader]["inputs"]["lora_stack"] = ["first", 3]
    found = latents(files, files.run(prompt))
    plain = latents(files, files.run(rows_workflow()))
    assert (found - expected).norm() < 1e-5 * (expected - plain).norm()


def test_the_values_of_an_older_workflow_are_where_they_were(files: Server):
    """ComfyUI keeps them in the order of the inputs; 0.1.0 had these."""
    said = files.get("/object_info/LycoLoadAdapters")["LycoLoadAdapters"]["input_order"]
    widgets = [name for name in [*said["required"], *said["optional"]] if name not in {"model", "clip", "lora_stack"}]
    rows = [f"{name}_{number}" for number in range(1, 7) for name in ("adapter", "strength", "on")]
    assert widgets[: len(rows) + 2] == [*rows, "on_partial_match", "mode"]
