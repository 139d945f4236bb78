"""What was found by reading and by fuzzing: each of these once raised another error, or did not end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lyco_testing.hostile import Raw, examine, file_of, lora, packed, within

from lyco_core.adapter_reader import read_adapter_set
from lyco_core.blocks import by_block
from lyco_core.errors import FormatError

Q = "lora_unet_blocks_0_self_attn_q"
DOTTED = "transformer.blocks.0.x"
PEFT = {f"{DOTTED}.lora_B.weight": Raw(shape=(4, 2)), f"{DOTTED}.lora_A.weight": Raw(shape=(2, 4))}
FULL_LOKR = {f"{DOTTED}.lokr_w1": Raw(shape=(2, 2)), f"{DOTTED}.lokr_w2": Raw(shape=(2, 2))}
PARTS = "a." * 480

REFUSED = {
    "a rescale alone": ({f"{Q}.rescale": Raw()}, "oft_blocks missing"),
    "butterflies beyond counting": ({f"{Q}.oft_blocks": Raw("F16", (20_000, 1, 2, 2))}, "20000 butterflies"),
    "GLoRA of vectors": ({f"{Q}.{x}.weight": Raw(shape=(4,)) for x in ("a1", "a2", "b1", "b2")}, "a1 has shape"),
    "GLoRA of numbers": ({f"{Q}.{x}.weight": Raw(shape=()) for x in ("a1", "a2", "b1", "b2")}, "a1 has shape"),
    "a Kronecker product of terabytes": (
        {f"{Q}.lokr_w{n}": Raw("F16", (2**10, 2**9)) for n in (1, 2)},
        "larger than any model has",
    ),
    "a product of terabytes": (
        {f"{Q}.lora_up.weight": Raw("F16", (2**17, 1)), f"{Q}.lora_down.weight": Raw("F16", (1, 2**17))},
        "larger than any model has",
    ),
    "a name of control characters": ({"\U000e0001" * 1000 + ".lora_up.weight": Raw()}, "down missing"),
    "a name of a megabyte": ({"a." * 500_000: Raw()}, "a name of 1000000 characters, expected at most 1024"),
    "a number of 5000 digits": (lora(f"diffusion_model.blocks.{'9' * 5000}.self_attn.q"), "a name of"),
    "32 dimensions and one": ({f"{Q}.diff": Raw(shape=(1,) * 33)}, "at most 32 dimensions"),
    "no rows and no end of columns": ({f"{Q}.diff": Raw(shape=(0, 2**40))}, "a difference of shape"),
    "an alpha of infinity": (lora(Q) | {f"{Q}.alpha": Raw("F32", (), b"\x00\x00\x80\x7f")}, "alpha is inf"),
    "an alpha that is a vector": (lora(Q) | {f"{Q}.alpha": Raw("F32", (9,))}, "expected one number"),
}
FINE = {
    "a name that says {n}": lora("diffusion_model.blocks.{n}.self_attn.q"),
    "an underscored name that says {n}": lora("lora_unet_blocks_{n}_self_attn_q"),
    "a long number": lora(f"diffusion_model.blocks.{'9' * 900}.self_attn.q"),
    "many blocks in one name": lora("diffusion_model." + "blocks.0." * 100 + "\n"),
    "weights that are lone numbers": lora("lora_unet_layers_1_attention_to_q"),
    "another weight that is one": lora("lora_unet_blocks_0_self_attn_k"),
    "rows that a lone number has": {
        "lora_unet_blocks_0_self_attn_k.weight": Raw(),
        "lora_unet_blocks_0_self_attn_k.on_input": Raw(),
    },
    "more kinds of blocks than a page can show": {f"diffusion_model.k{n}x.1.diff": Raw() for n in range(3000)},
    "more alphas than a page can show": {
        key: raw
        for n in range(1, 2000)
        for key, raw in (lora(f"x.{n}") | {f"x.{n}.alpha": Raw("F16", (), n.to_bytes(2, "little"))}).items()
    },
}
CONFIGS = {
    "a rank beyond floats": (PEFT, '{"r": 1' + "0" * 400 + "}"),
    "a rank below zero": (FULL_LOKR, '{"r": -1, "lora_alpha": 1, "use_rslora": true}'),
    "a scale of infinity": (FULL_LOKR, '{"r": 1e-320, "lora_alpha": 1e300}'),
    "an alpha that is none": (PEFT, '{"r": 1, "lora_alpha": NaN}'),
    "a list": (PEFT, "[1]"),
    "deep": (PEFT, "[" * 100_000),
    "no UTF-8": (PEFT, "\udcff"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.safetensors"


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_a_line(name: str, path: Path):
    tensors, message = REFUSED[name]
    path.write_bytes(file_of(tensors.items()))
    with within(20):
        refused = examine(path)
    assert len(refused) == 4
    assert all(message in found for found in refused)


@pytest.mark.parametrize("name", FINE)
def test_taken_as_it_is(name: str, path: Path):
    path.write_bytes(file_of(FINE[name].items()))
    with within(20):
        assert examine(path) == []


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_is_not_trusted_either(name: str, path: Path):
    tensors, config = CONFIGS[name]
    path.write_bytes(file_of(tensors.items()))
    path.with_name("adapter_config.json").write_bytes(config.encode("utf-8", "surrogateescape"))
    assert len(examine(path)) == 4
    path.with_name("adapter_config.json").unlink()
    if "\udcff" not in config:
        path.write_bytes(file_of(tensors.items(), {"lora_adapter_metadata": config}))
        assert len(examine(path)) == 4


def test_thousands_of_patterns_and_parts(path: Path):
    """Each pattern was rewritten for each module, and each end of a name made of it."""
    tensors = {k: raw for n in range(1000) for k, raw in _peft(f"transformer.{PARTS}{n}").items()}
    path.write_bytes(file_of(tensors.items()))
    patterns = {f"{'b.' * n}x": 1 for n in range(900)}
    path.with_name("adapter_config.json").write_text(json.dumps({"r": 1, "lora_alpha": 1, "rank_pattern": patterns}))
    with within(8):
        assert examine(path) == []


def _peft(prefix: str) -> dict[str, Raw]:
    return {f"{prefix}.lora_B.weight": Raw(shape=(4, 2)), f"{prefix}.lora_A.weight": Raw(shape=(2, 4))}


def test_a_host_may_stumble_over_the_names(path: Path):
    """ComfyUI renames a FLUX control LoRA, told by two of its keys, and reads the shape of a third one."""
    names = ("img_in.lora_A.weight", "single_blocks.0.norm.key_norm.scale")
    path.write_bytes(file_of((name, Raw()) for name in names))
    with pytest.raises(
        FormatError, match=r"^a.safetensors: .* lack what those have \(KeyError: 'img_in.lora_B.weight'"
    ):
        read_adapter_set(path, lambda tensors: tensors | {"new": tensors["img_in.lora_B.weight"]})


def test_an_outline_does_no_arithmetic(tmp_path: Path):
    """On the meta device a product made torch load its compiler, for ten seconds of a server that draws a card."""
    (tmp_path / "peft").mkdir()
    bias = PEFT | {f"{DOTTED}.lora_B.bias": Raw(shape=(4,)), f"{DOTTED}.alpha": Raw("F32", ())}
    (tmp_path / "bias.safetensors").write_bytes(file_of(bias.items()))
    (tmp_path / "peft" / "lokr.safetensors").write_bytes(file_of(FULL_LOKR.items()))
    (tmp_path / "peft" / "adapter_config.json").write_text('{"r": 1, "lora_alpha": 3}')
    program = (
        "import sys; from lyco_core.inspection import inspect_file\n"
        "for path in sys.argv[1:]: assert inspect_file(path).adapter_set.adapters\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    files = [str(tmp_path / name) for name in ("bias.safetensors", "peft/lokr.safetensors")]
    done = subprocess.run(
        [sys.executable, "-c", program, *files],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


HEADERS = {
    "a name twice": ('{"a":%s,"a":%s}', "a: is in the header twice"),
    "metadata twice": ('{"__metadata__":{},"a":%s,"__metadata__":{}}', "__metadata__ twice"),
    "a note twice": ('{"__metadata__":{"n":"","n":""},"a":%s}', "has n twice"),
    "metadata that is a tensor": ('{"__metadata__":%s}', "not a table of strings"),
    "a lone surrogate": ('{"\\ud800":%s}', "a string in Unicode"),
    "a lone surrogate in a note": ('{"__metadata__":{"a":"\\udfff"},"a":%s}', "a string in Unicode"),
    "raw surrogates": ('{"\ud800":%s}', "not JSON in UTF-8"),
    "a field twice": (
        '{"a":{"dtype":"F32","dtype":"F16","shape":[0],"data_offsets":[0,0]}}',
        "a: its entry is not JSON",
    ),
    "UTF-16": ("{}".encode("utf-16"), "not JSON"),
    "a comma too many": ('{"a":%s,}', "a string in Unicode"),
    "a comma too few": ('{"a":%s "b":%s}', "expected a comma"),
    "a second table": ('{"a":%s}{}', "expected a comma, or the end"),
    "no end": ('{"a":%s', "expected a comma, or the end"),
    "a number with a zero before it": ('{"a":{"dtype":"F32","shape":[00],"data_offsets":[0,0]}}', "a: its entry"),
    "a gap in a shape": ('{"a":{"dtype":"F32","shape":[0,,0],"data_offsets":[0,0]}}', "a: its entry"),
    "not a number": ('{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,0]}}', "a: its entry"),
    "infinity": ('{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,1e999]}}', "a: its entry"),
    "digits without end": (
        f'{{"a":{{"dtype":"F32","shape":[{"9" * 5000}],"data_offsets":[0,0]}}}}',
        "a: its entry is not JSON",
    ),
    "an entry of lists": ('{"a":[' + "[]," * 50_000 + "[]]}", "a: its entry is not JSON"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers(name: str, path: Path):
    text, message = HEADERS[name]
    empty = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    path.write_bytes(packed(text.replace("%s", empty) if isinstance(text, str) else text))
    refused = examine(path)
    assert len(refused) == 4
    assert all(message in found for found in refused)


def test_headers_that_are_spelled_otherwise_are_read(path: Path):
    """Fields in any order, with others beside them, spaces and escapes: all of it is JSON."""
    entry = '{ "data_offsets" : [0 ,32], "more": {"x": [1.5, null]}, "shape":[ 4,2 ],\n"dtype":"F32"}'
    other = '{"dtype" : "F32" , "shape" : [ 2 , 4 ] , "data_offsets" : [ 32 , 64 ] }'
    names = ("transformer.\\u0061.lora_B.weight", "transformer.a.lora_A.weight")
    path.write_bytes(packed(f' {{"{names[0]}":{entry} ,\t"{names[1]}": {other}, "__metadata__":null }}  ', b"\1" * 64))
    assert examine(path) == []


def test_a_card_of_many_blocks_is_small():
    paths = [f"{kind}_blocks.{number}.q" for kind in map(str, range(40)) for number in range(1000)]
    assert len(json.dumps(by_block(paths, paths))) < 80_000
