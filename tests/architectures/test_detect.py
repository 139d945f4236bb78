"""The family is told from keys and shapes alone, for every model, algorithm and way of spelling."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lyco_testing.tables import ARCHITECTURE_OF, MODELS, dotted_file, musubi_file, targets, weights

from lyco_core.adapter_set import AdapterSet
from lyco_core.architectures import ARCHITECTURES, identify, recognise
from lyco_core.errors import ArchitectureError
from lyco_core.formats import FORMATS, parse
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
    with pytest.raises(ArchitectureError, match="framepack and of qwen_image"):
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
