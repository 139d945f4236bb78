"""The family is told from keys and shapes alone, for every model, algorithm and way of spelling."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lyco_testing.tables import ARCHITECTURE_OF, MODELS, dotted_file, musubi_file, targets, weights

from lyco_core.adapter_reader import require_known
from lyco_core.adapter_set import AdapterSet
from lyco_core.architectures import ARCHITECTURES, identify, recognise
from lyco_core.errors import ArchitectureError
from lyco_core.formats import FORMATS, parse
from lyco_core.model import Model
from lyco_core.placement import place


def comfyui_paths(model: str) -> set[str]:
    return {key.removeprefix("diffusion_model.").removesuffix(".weight") for key in weights(model)}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("algorithm", ["lokr", "loha", "lora"])
def test_musubi_files(model: str, algorithm: str):
    found = identify(parse(musubi_file(targets(model), algorithm), {}))
    assert (found.architecture, found.layout) == (ARCHITECTURES[ARCHITECTURE_OF[model]], "musubi")
    assert list(found.adapters) == list(targets(model))


@pytest.mark.parametrize("model", MODELS)
def test_dotted_musubi_names(model: str):
    found = identify(parse(dotted_file(targets(model)), {}))
    assert found.architecture is ARCHITECTURES[ARCHITECTURE_OF[model]]
    assert found.format is FORMATS["comfyui"]
    assert place(found, weights(model)).complete


@pytest.mark.parametrize("model", [m for m in MODELS if m != "framepack"])
def test_dotted_comfyui_names(model: str):
    """ComfyUI's own layout, fused weights and all; FramePack there is HunyuanVideo."""
    shapes = {k.removeprefix("diffusion_model.").removesuffix(".weight"): s for k, s in weights(model).items()}
    blocks = {p: (s[0], s[1]) for p, s in shapes.items() if "blocks." in p or "layers." in p if len(s) == 2}
    found = identify(parse(dotted_file(blocks), {}))
    assert found.architecture is ARCHITECTURES[ARCHITECTURE_OF[model]]
    placement = place(found, weights(model))
    assert placement.complete
    assert len(placement.placed) == len(blocks)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_part_of_a_file_lands_on_the_same_weights(data: st.DataObject):
    """include_patterns leave few modules; then several families fit, but never another weight does."""
    model = data.draw(st.sampled_from(MODELS))
    everything = targets(model)
    names = data.draw(st.lists(st.sampled_from(list(everything)), min_size=1, max_size=6, unique=True))
    part = parse(musubi_file({name: everything[name] for name in names}), {})
    expected = ARCHITECTURES[ARCHITECTURE_OF[model]]
    with_model = identify(part, model_modules=comfyui_paths(model))
    assert place(with_model, weights(model)).complete
    try:
        alone = identify(part)
    except ArchitectureError as error:
        assert ARCHITECTURE_OF[model] in str(error)
    else:
        spots = {(p.key, p.rows is None) for p in place(alone).placed}
        wanted = {
            (f"diffusion_model.{t.path}.weight", t.rows[:2] == (0, t.rows[2]))
            for name in names
            for t in expected.locate(name, "musubi", "comfyui")
        }
        assert spots == wanted


def attention_only() -> AdapterSet:
    modules = {f"transformer_blocks.{n}.attn.to_q": (64, 64) for n in range(3)}
    return parse(musubi_file(modules), {})


def test_ambiguous_names_are_refused_and_a_word_settles_it():
    with pytest.raises(ArchitectureError, match=r"several families \(.*framepack, .*qwen_image\b"):
        identify(attention_only())
    assert identify(attention_only(), architecture="qwen_image").architecture is ARCHITECTURES["qwen_image"]
    assert identify(attention_only(), architecture="framepack").architecture is ARCHITECTURES["framepack"]


def test_the_model_settles_it_too():
    found = identify(attention_only(), model_modules=comfyui_paths("qwen_image"))
    assert found.architecture is ARCHITECTURES["qwen_image"]
    found = identify(attention_only(), model_modules=comfyui_paths("hunyuan_video"))
    assert found.architecture is ARCHITECTURES["framepack"]


def test_unknown_architecture_is_named_with_the_known_ones():
    with pytest.raises(ArchitectureError, match=r"no architecture 'flux'; known are .*flux1"):
        identify(attention_only(), architecture="flux")


def test_names_of_no_family_are_left_as_they_are():
    found = identify(parse(musubi_file({"down_blocks.0.attentions.0": (64, 64)}), {}))
    assert found.architecture is None
    assert list(found.adapters) == ["down_blocks_0_attentions_0"]


@pytest.mark.parametrize("model", [m for m in MODELS if m != "framepack"])
def test_models_are_recognised(model: str):
    found = recognise(comfyui_paths(model))
    assert found is not None
    assert (found[0].id, found[1]) in ((ARCHITECTURE_OF[model], "comfyui"), (ARCHITECTURE_OF[model], "musubi"))


def blocks_of(model: str, count: int) -> dict[str, tuple[int, int]]:
    """The first blocks of a full-size model, by diffusers' names."""
    family = ARCHITECTURES[model]
    shapes = {k.removeprefix("diffusion_model.").removesuffix(".weight"): s for k, s in weights(model).items()}
    return {
        path: (shape[0], shape[1])
        for path, shape in shapes.items()
        if path.startswith("transformer_blocks.") and len(shape) == 2
        if int(family.template_of(path, "comfyui")[1]) < count
    }


@pytest.mark.parametrize("model", ["qwen_image", "mage_flow"])
def test_blocks_that_two_families_share_are_told_as_neither(model: str):
    """The model, or a word, decides between Qwen-Image and Mage-Flow, which has the first twelve of its blocks."""
    file = parse(dotted_file(blocks_of(model, 12)), {})
    with pytest.raises(
        ArchitectureError, match=r"its modules are those of several families \(mage_flow, qwen_image\); say which"
    ):
        identify(file)
    assert identify(file, architecture="qwen_image").architecture is ARCHITECTURES["qwen_image"]
    for onto in ("qwen_image", "mage_flow"):
        found = Model.of(weights(onto)).identify(file)
        assert found.architecture is ARCHITECTURES[onto]
    assert identify(parse(dotted_file(blocks_of("qwen_image", 13)), {})).architecture is ARCHITECTURES["qwen_image"]


CONTRADICTIONS = {
    "a width": (
        {"layers.0.attention.to_q": (4096, 4096)},
        "Z-Image comes nearest, but layers.0.attention.to_q is of a model 4096 wide, Z-Image is 3840 wide",
    ),
    "two widths": (
        {"blocks.0.self_attn.q": (1536, 1536), "blocks.0.cross_attn.q": (5120, 5120)},
        "Wan 2.1/2.2 comes nearest, but blocks.0.self_attn.q is of a model 1536 wide, "
        "blocks.0.cross_attn.q of one 5120 wide, which are one in Wan 2.1/2.2",
    ),
    "proportions": (
        {"transformer_blocks.0.img_mod.1": (18432, 3072), "transformer_blocks.0.img_mlp.net.0.proj": (12288, 2048)},
        "Qwen-Image comes nearest, but transformer_blocks.0.img_mlp.net.0.proj is [12288, 2048], "
        "which are not the proportions of Qwen-Image's",
    ),
    "a depth": (
        {"transformer_blocks.60.img_mod.1": (18432, 3072)},
        "Qwen-Image comes nearest, but it has block 60 of transformer_blocks, Qwen-Image has 60",
    ),
    "the depth of its width": (
        {"blocks.30.self_attn.q": (1536, 1536)},
        "Wan 2.1/2.2 comes nearest, but it has block 30 of blocks, Wan 2.1/2.2 has 30",
    ),
    "names": (
        {f"blocks.0.self_attn.{name}": (5120, 5120) for name in ("q", "k", "z")},
        "Wan 2.1/2.2 comes nearest, but it has blocks.0.self_attn.z, which Wan 2.1/2.2 has not",
    ),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_one_contradiction_rules_a_family_out(what: str):
    modules, why = CONTRADICTIONS[what]
    found = identify(parse(dotted_file(modules, "lora"), {}))
    assert (found.architecture, found.doubt) == (None, why)
    with pytest.raises(ArchitectureError, match=re.escape(why)):
        require_known(found)


def test_one_stream_of_many_blocks_is_another_models():
    """Also on a model that has them all: attention of 24 blocks, as wide as HunyuanVideo 1.5, which has 54."""
    attention = {
        f"transformer_blocks.{n}.attn.{name}": (2048, 2048)
        for n in range(24)
        for name in ("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj")
    }
    strange, few = (parse(dotted_file(m, "lora"), {}) for m in (attention, dict(list(attention.items())[:4])))
    model = Model.of(weights("hunyuan_video_1_5"))
    for told in (identify, model.identify):
        with pytest.raises(ArchitectureError, match=r"they have attn\.to_q alone, without attn\.add_q_proj"):
            told(strange)
    assert model.identify(few).architecture is ARCHITECTURES["hunyuan_video_1_5"]


def test_the_first_blocks_of_every_sort_are_another_models():
    """Bria's: as many single blocks as FLUX.1 has not, all from the first on."""
    counts = {"transformer_blocks": 8, "single_transformer_blocks": 28}
    modules = {f"{block}.{n}.attn.to_q": (3072, 3072) for block, count in counts.items() for n in range(count)}
    with pytest.raises(ArchitectureError, match="the first 8 of 19 double_blocks and 28 of 38 single_blocks"):
        identify(parse(dotted_file(modules, "lora"), {}))


def test_fewer_blocks_of_a_family_are_a_pruned_models():
    assert identify(parse(dotted_file(blocks_of("qwen_image", 40)), {})).architecture is ARCHITECTURES["qwen_image"]


def test_a_model_of_another_width_is_no_model_of_the_family():
    shapes = {key: tuple(n * 6 // 5 if n % 3840 == 0 else n for n in s) for key, s in weights("z_image").items()}
    assert Model.of(weights("z_image")).architecture is ARCHITECTURES["z_image"]
    assert Model.of(shapes).architecture is None


def test_a_second_attention_beside_the_first_is_sd35s():
    """OneTrainer's file of one stream of SD3.5 medium: no other model has attn2 beside attn in a block."""
    queries = {f"transformer_blocks.0.attn.{name}": (1536, 1536) for name in ("to_q", "to_k", "to_v")}
    file = dotted_file({**queries, "transformer_blocks.0.attn2.to_out.0": (1536, 1536)}, "lora")
    assert identify(parse(file, {})).architecture is ARCHITECTURES["sd3"]
    with pytest.raises(ArchitectureError, match=r"they have attn\.to_q alone, without attn\.add_q_proj"):
        identify(parse(dotted_file(queries, "lora"), {}))


def test_the_last_block_of_sd35_has_no_output_for_the_text():
    names = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj")
    for number, known in ((37, True), (36, False)):
        modules = {f"transformer_blocks.{number}.attn.{name}": (2432, 2432) for name in names}
        file = parse(dotted_file(modules, "lora"), {})
        if known:
            assert identify(file).architecture is ARCHITECTURES["sd3"]
        else:
            with pytest.raises(ArchitectureError, match=r"they have attn\.to_out\.0 alone, without attn\.to_add_out"):
                identify(file)


def test_a_part_of_a_model_that_several_families_have_is_of_none():
    """The first blocks of HunyuanVideo have FLUX.1's names and shapes; an adapter's own names place it all the same."""
    everything = {key: shape for key, shape in weights("hunyuan_video").items() if re.search(r"_blocks\.[01]\.", key)}
    blocks = {key: shape for key, shape in everything.items() if re.search(r"_(attn|mlp)\.|linear\d", key)}
    model = Model.of(blocks)
    assert (model.architecture, model.prefix) == (None, "diffusion_model.")
    assert Model.of(weights("hunyuan_video")).architecture is ARCHITECTURES["hunyuan_video"]
    names = {key.removeprefix("diffusion_model.").removesuffix(".weight"): s for key, s in blocks.items()}
    assert model.place(parse(musubi_file({name: (s[0], s[1]) for name, s in names.items()}), {})).complete


def test_packed_shapes_do_not_rule_a_family_out():
    """Codes of four bits are half as wide as the weight that they stand for."""
    packed = {
        key: (shape[0], shape[1] // 2) if "layers." in key and len(shape) == 2 else shape
        for key, shape in weights("z_image").items()
    }
    assert Model.of(packed).architecture is None
    codes = {key for key, shape in packed.items() if shape != weights("z_image")[key]}
    assert Model.of(packed, packed=codes).architecture is ARCHITECTURES["z_image"]
    stored = {
        key: torch.empty(shape, dtype=torch.uint8 if key in codes else torch.bfloat16, device="meta")
        for key, shape in packed.items()
    }
    assert Model.of(stored).architecture is ARCHITECTURES["z_image"]


@pytest.mark.parametrize(
    ("modules", "family"),
    [
        ({"double_blocks.9.img_attn.qkv": (9216, 3072), "double_blocks.9.txt_attn.qkv": (9216, 3072)}, "FLUX.1"),
        ({f"single_blocks.{n}.linear1": (21504, 3072) for n in range(25, 30)}, "FLUX.1"),
    ],
)
def test_a_part_that_several_families_have_is_named_after_all_of_them(modules, family):
    """They are on the same weights of each, so that nothing is left open but the name."""
    found = identify(parse(dotted_file(modules, "lokr"), {}))
    assert found.family.startswith(f"{family} or ")
    assert found.family in repr(found)
    whole = {f"double_blocks.{n}.img_attn.qkv": (9216, 3072) for n in range(19)}
    whole |= {f"single_blocks.{n}.linear1": (21504, 3072) for n in range(38)}
    assert identify(parse(dotted_file(whole, "lokr"), {})).family == family
