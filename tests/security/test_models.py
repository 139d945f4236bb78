"""Models from a stranger: GGUF headers, and what a file says of its formats. Success, or one good line."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lyco_testing.gguf_files import TYPES, gguf_bytes, random_q8
from lyco_testing.hostile import LONGEST_MESSAGE, Raw, file_of, within
from lyco_testing.tables import dotted_file, random
from safetensors.torch import save_file

from lyco_core.errors import LycoError
from lyco_core.merging import MergeOptions, Source, merge_checkpoint
from lyco_core.model import Model

from .test_fuzz import bounded

MODULE = "blocks.0.self_attn.q"
OTHERS = ("blocks.0.ffn.0.weight", "blocks.0.cross_attn.k.weight", "head.head.weight", "patch_embedding.weight")
"""By which a Wan is known."""
PLAIN = [(key, Raw("F32", (64, 64))) for key in OTHERS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    save_file(dotted_file({MODULE: (64, 64)}, "lora", random), made / "adapter.safetensors")
    return made


def examined(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    out = path.with_name(f"out{path.suffix}")
    with within(10):
        for step in (
            lambda: Model.of_file(path),
            lambda: merge_checkpoint(path, [Source(path.with_name("adapter.safetensors"))], out, overwrite=True),
        ):
            try:
                step()
            except LycoError as error:
                assert "\n" not in str(error)
                assert len(str(error)) < LONGEST_MESSAGE


sizes = st.sampled_from([0, 1, 2, 4, 16, 32, 64, 128])
shapes = st.lists(sizes, max_size=3).map(tuple)
dtypes = st.sampled_from(["U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F32", "F16", "BF16", "F64", "I64", "BOOL"])
fills = st.sampled_from([b"\x00", b"\x01", b"\xff", b"\x7f", b"\x80\x3f", b"\x00\x00\x80\x3f", b"\x00\x00\xc0\x7f"])
raws = st.builds(Raw, dtypes, shapes, fills)
said = st.dictionaries(
    st.sampled_from(["format", "convrot", "convrot_groupsize", "group_size", "params"]),
    st.sampled_from(["int8_tensorwise", "nvfp4", True, None, 0, -1, 1, 16, 64, 256, 2**70, 1.5, [], {"group_size": 0}]),
)
formats = st.sampled_from(
    ["int8_tensorwise", "float8_e4m3fn", "float8_e5m2", "nvfp4", "mxfp8", "convrot_w4a4", "asym_w4a8_int8", "x"]
)
scales = ("weight_scale", "scale_weight", "weight_scale_2", "pre_quant_scale", "weight_s_rel", "weight_s_channel")
roles = st.sampled_from([*scales, "weight_codebook", "weight_correction", "bias", "input_scale"])


@st.composite
def likely(draw: st.DrawFn, name: str) -> list[tuple[str, Raw]]:
    """What nearly makes a form: one tensor may be anything."""
    fill = draw(fills)
    made = {
        "int8_tensorwise": {"weight": ("I8", (64, 64)), "weight_scale": ("F32", draw(st.sampled_from([(), (64, 1)])))},
        "float8_e4m3fn": {"weight": ("F8_E4M3", (64, 64)), "weight_scale": ("F32", ())},
        "nvfp4": {"weight": ("U8", (64, 32)), "weight_scale": ("F8_E4M3", (128, 4)), "weight_scale_2": ("F32", ())},
        "mxfp8": {"weight": ("F8_E4M3", (64, 64)), "weight_scale": ("F8_E8M0", (128, 4))},
        "convrot_w4a4": {"weight": ("I8", (64, 32)), "weight_scale": ("F32", (64,))},
        "asym_w4a8_int8": {
            "weight": ("I8", (64, 32)),
            "weight_s_rel": ("F8_E4M3", (64, 4)),
            "weight_s_channel": ("F32", (64,)),
            "weight_codebook": ("F32", (16,)),
        },
    }.get(name, {"weight": ("F8_E5M2", (64, 64))})
    return [(f"{MODULE}.{role}", Raw(dtype, shape, fill)) for role, (dtype, shape) in made.items()]


@st.composite
def models(draw: st.DrawFn) -> bytes:
    name = draw(formats)
    tensors = dict(draw(likely(name)))
    for role in draw(st.lists(st.one_of(roles, st.just("weight")), max_size=2)):
        tensors[f"{MODULE}.{role}"] = draw(raws)
    entry = {"format": name, "convrot_groupsize": 64} | draw(said)
    text = draw(st.one_of(st.just(json.dumps(entry)), st.text(max_size=20), st.just("[" * 100_000)))
    if draw(st.booleans()):
        quant = text.encode("utf-8", "surrogatepass")
        tensors[f"{MODULE}.comfy_quant"] = Raw("U8", (len(quant),), quant or b"\0")
        return file_of([*tensors.items(), *PLAIN])
    layers = json.dumps({"layers": {MODULE: entry}})
    notes = {"_quantization_metadata": draw(st.one_of(st.just(layers), st.text(max_size=20)))}
    return file_of([*tensors.items(), *PLAIN], notes)


@settings(bounded, max_examples=2 * bounded.max_examples)
@given(models())
def test_forms(folder: Path, data: bytes):
    examined(folder / "model.safetensors", data)


GGUF = {MODULE + ".weight": random_q8(64, 64, 0)}
GGUF |= dict.fromkeys(OTHERS, ("F32", (64, 64), b"\x00" * 4 * 64 * 64))
GOOD = gguf_bytes(GGUF, {"note": "x", "list": ["a", "b"], f"comfy.gguf.orig_shape.{MODULE}.weight": [64, 8, 8]})


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A good file, some of whose header is other numbers."""
    data = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, 700))
        data[at : at + 8] = draw(st.one_of(st.binary(max_size=8), st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\1" * 4])))
    return bytes(data[: draw(st.sampled_from([None, None, 100, 600, len(data) - 1]))])


@bounded
@given(changed())
def test_gguf_headers(folder: Path, data: bytes):
    examined(folder / "model.gguf", data)


@bounded
@given(
    st.dictionaries(
        st.one_of(st.sampled_from([*GGUF, "x"]), st.text(max_size=5)),
        st.tuples(st.sampled_from(sorted(TYPES)), st.lists(st.sampled_from([0, 1, 32, 64, 256]), max_size=3), fills),
        max_size=4,
    )
)
def test_gguf_tensors(folder: Path, chosen: dict):
    tensors = {}
    for key, (kind, shape, fill) in chosen.items():
        _, block, each = TYPES[kind]
        size = math.prod(shape) // block * each
        tensors[key] = kind, tuple(shape), (fill * (size // len(fill) + 1))[:size]
    examined(
        folder / "model.gguf", gguf_bytes(tensors | {k: v for k, v in GGUF.items() if k in OTHERS and k not in tensors})
    )


def test_a_model_option_is_read(folder: Path):
    """What the above write is a model, when it is not damaged."""
    (folder / "model.gguf").write_bytes(GOOD)
    made = merge_checkpoint(
        folder / "model.gguf", [Source(folder / "adapter.safetensors")], folder / "o.gguf", MergeOptions()
    )
    assert made.weights == 1
