"""Hypothesis' strategies for files that nobody would write by mistake."""

import base64
import json
from typing import Any

from hypothesis import strategies as st

from lyco_core.formats.suffixes import BIAS_SUFFIXES, NUMBERS, OTHER_SUFFIXES, TENSOR_SUFFIXES
from lyco_core.io.header_table import DTYPE_BITS

from .hostile import Raw, file_of, lora, packed
from .tables import WRITERS
from .trainers import ALGORITHMS

SUFFIXES = sorted({*TENSOR_SUFFIXES, *BIAS_SUFFIXES, *OTHER_SUFFIXES, *NUMBERS, "weight", "bias", "", "alpha.alpha"})
STARTS = (
    "lora_unet_", "lora_unet__", "lora_te1_", "lora_transformer_", "lycoris_", "diffusion_model.", "text_encoders.",
    "base_model.model.", "transformer.", "unet.", "text_encoder.", "",
)  # fmt: skip
PATHS = (
    "blocks.0.self_attn.q", "blocks.0.self_attn.k", "layers.0.attention.to_q", "layers.1.attention.to_k",
    "layers.0.attention.qkv", "double_blocks.0.img_attn.qkv", "blocks.{n}.self_attn.q", "blocks.01.ffn.0",
    "blocks.٣.ffn.0", "blocks.99999999999999999999.ffn.0", "blocks.-1.ffn.0", "single_blocks.0.linear1", "x", "", ".",
    "..", "...bias", "x.bias", "blocks.0.self_attn.q.bias", "\n", "\x00", "../../etc/passwd", "<img src=x>", "\u202e",
    "a" * 1000, "blocks.0." * 100, "blocks_" * 140, "{n}", "{n}.{n}", "to_out", "x.processor.to_out", "𝔘.0.𝔘",
)  # fmt: skip
FILLS = (b"\x00", b"\x01", b"\xff", b"\x7f", b"\x00\x00\x80\x3f", b"\x00\x00\x80\x7f", b"\x80\x3f", b"\x00\x7c")
"""Zero, least, NaN, huge, one, infinity, and those two in half the width."""

names = st.builds(
    lambda start, path, flat: start + (path.replace(".", "_") if flat else path),
    st.sampled_from(STARTS), st.sampled_from(PATHS), st.booleans(),
)  # fmt: skip
shapes = st.one_of(
    st.sampled_from([(), (1,), (4,), (4, 2), (2, 4), (4, 1), (1, 4), (2, 2), (4, 2, 1, 1), (2, 4, 3, 3), (1, 2, 2, 2)]),
    st.lists(st.integers(0, 5), max_size=5).map(tuple),
    st.sampled_from([(1,) * 32, (1,) * 33, (0, 2**62), (2**31, 0, 2**31), (0,), (300, 300), (40, 1, 2, 2)]),
)
dtypes = st.one_of(st.sampled_from(["F32", "F16", "BF16"]), st.sampled_from([*DTYPE_BITS, "F8", "", "f32", "Q4_0"]))
raws = st.builds(Raw, dtypes, shapes, st.sampled_from(FILLS))


@st.composite
def adapters(draw: st.DrawFn) -> list[tuple[str, Raw]]:
    """What a trainer writes, and then something done to it; or suffixes at random."""
    tensors: list[tuple[str, Raw]] = []
    writers = {**ALGORITHMS, **WRITERS}
    for _ in range(draw(st.integers(1, 3))):
        name = draw(names)
        if draw(st.booleans()):
            written = writers[draw(st.sampled_from(sorted(writers)))](name, 4, 4)
            tensors += [(key, Raw(shape=tuple(tensor.shape))) for key, tensor in written.items()]
        else:
            suffixes = draw(st.lists(st.sampled_from(SUFFIXES), min_size=1, max_size=5))
            tensors += [(f"{name}.{suffix}", draw(raws)) for suffix in suffixes]
    for _ in range(draw(st.integers(0, 3))):
        index = draw(st.integers(0, len(tensors) - 1))
        key, raw = tensors[index]
        change = draw(st.sampled_from(["other", "dtype", "fill", "gone", "twice", "elsewhere"]))
        if change == "other":
            tensors[index] = key, draw(raws)
        elif change == "dtype":
            tensors[index] = key, Raw(draw(dtypes), raw.shape, raw.fill)
        elif change == "fill":
            tensors[index] = key, Raw(raw.dtype, raw.shape, draw(st.sampled_from(FILLS)))
        elif change == "gone" and len(tensors) > 1:
            del tensors[index]
        elif change == "twice":
            tensors.append((key, raw))
        else:
            tensors.append((f"{draw(names)}.{draw(st.sampled_from(SUFFIXES))}", raw))
    return tensors


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.sampled_from([0, 1, -1, 2**53, 2**64, 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
PARTS = ("", "", "", "transformer.", "unet.")
CONFIG_KEYS = ("r", "lora_alpha", "alpha", "rank_pattern", "alpha_pattern", "use_rslora")
extremes = st.sampled_from(
    [0, 1, 2, 8, 0.5, -1, -0.0, 1e-320, 1e308, float("inf"), float("nan"), 10**400, "4", "1e999"]
)
patterns = st.dictionaries(st.sampled_from([*PATHS[:5], "q", "^x$", "self_attn.q"]), extremes, max_size=3)
configs = st.one_of(
    st.tuples(
        st.sampled_from(PARTS),
        st.dictionaries(st.sampled_from(CONFIG_KEYS), st.one_of(extremes, extremes, patterns, json_values), max_size=5),
    ).map(lambda pair: {pair[0] + key: value for key, value in pair[1].items()}),
    json_values,
).map(json.dumps)
thumbnails = st.one_of(
    st.sampled_from(["", "é", "====", "iVBORw0KGgo", "a\n"]),
    st.binary(max_size=40).map(lambda data: base64.b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + data).decode()),
    st.binary(max_size=40).map(lambda data: base64.b64encode(b"\xff\xd8\xff" + data).decode()),
    st.binary(max_size=40).map(lambda data: base64.b64encode(b"RIFF\0\0\0\0WEBP" + data).decode()),
).map("data:image/png;base64,{}".format)
tags = st.dictionaries(st.text(max_size=3), st.dictionaries(st.text(max_size=5), json_values)).map(json.dumps)
texts = st.one_of(
    st.text(max_size=20), st.sampled_from(["[" * 5000, "1" * 5000, "\x00" * 400, "<script>", "wan", "None", "a\u202eb"])
)
NOTES = (
    "ss_network_args", "modelspec.title", "lyco_architecture", "modelspec.trigger_phrase", "ss_steps", "ss_resolution",
)  # fmt: skip
notes = st.builds(
    lambda ours, others: others | ours,
    st.fixed_dictionaries(
        {},
        optional={
            "lora_adapter_metadata": configs | texts,
            "modelspec.thumbnail": thumbnails | texts,
            "ss_tag_frequency": tags | texts,
        },
    ),
    st.dictionaries(st.sampled_from(NOTES), texts, max_size=3),
)

adapter_files = st.builds(file_of, adapters(), st.none() | notes)

NUMBERS_IN_JSON = ("0", "4", "8", "32", "-1", "1.0", "1e999", "NaN", "Infinity", "9" * 25, "7" * 5000, "true", "null")
values = st.one_of(
    st.sampled_from([*NUMBERS_IN_JSON, '"F32"', '"U4"', '"\\ud800"', "[0]", "[4,2]", "[0,32]", "{}", "[[", "[0,0]"]),
    st.lists(st.sampled_from(NUMBERS_IN_JSON), max_size=4).map(lambda parts: "[" + ",".join(parts) + "]"),
    json_values.map(json.dumps),
)
fields = st.lists(
    st.tuples(st.sampled_from(['"dtype"', '"shape"', '"data_offsets"', '"more"', "dtype", "1"]), values), max_size=4
).map(lambda pairs: "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}")
usual = st.builds(
    '{{"dtype":{},"shape":{},"data_offsets":{}}}'.format,
    values,
    st.sampled_from(["[0]", "[4,2]", "[]", "[1]"]) | values,
    st.sampled_from(["[0,0]", "[0,32]", "[0,4]"]) | values,
)
keys = st.one_of(
    st.sampled_from(['"__metadata__"', '"a"', '"b.alpha"', '"\\ud83d"', '""', "a", '"a\x01"', '"\ud800"']),
    st.text(max_size=9).map(json.dumps),
)
headers = st.builds(
    lambda entries, before, between, after, tail: packed(
        before + between.join(f"{key}:{value}" for key, value in entries) + after, bytes(tail)
    ),
    st.lists(st.tuples(keys, st.one_of(usual, fields, values)), max_size=4),
    st.sampled_from(["{", "{", "{", " \n{", "", "[", "\ufeff{"]),
    st.sampled_from([",", ",", " ,\t", ",,", ""]),
    st.sampled_from(["}", "}", "}", "}  ", "", "}}", ",}"]),
    st.sampled_from([0, 4, 32, 64]),
)

PEFT = {
    "lora": lora("transformer.blocks.0.self_attn.q"),
    "lokr": {f"transformer.blocks.0.self_attn.q.lokr_w{n}": Raw(shape=(2, 2)) for n in (1, 2)},
}
"""Such as take their scale from a configuration, and rank from it where they have none."""

GOOD = (
    file_of(lora().items(), {"ss_network_module": "networks.lora"}),
    file_of({**lora("transformer.blocks.0.x"), "x.alpha": Raw("F16", ())}.items(), {"lora_adapter_metadata": "{}"}),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good file with bytes of it changed, cut out, doubled or put in."""
    data = bytearray(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        change = draw(st.sampled_from(["flip", "cut", "splice", "grow", "end"]))
        if change == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif change == "cut":
            del data[at : at + draw(st.integers(1, 9))]
        elif change == "splice":
            data[at:at] = data[at // 2 : at // 2 + 20]
        elif change == "grow":
            data[at:at] = draw(st.binary(max_size=9))
        else:
            del data[at:]
    return bytes(data)
