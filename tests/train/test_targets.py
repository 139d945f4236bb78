"""What is trained of each architecture is what Musubi trains, in every way to choose."""

import dataclasses
import logging
import re

import pytest
from lyco_testing.tables import ARCHITECTURE_OF, MODELS, OTHERS, targets, weights
from lyco_testing.toy import WIDTH, described, flux1, z_image

from lyco_core.architectures import ARCHITECTURES
from lyco_core.errors import TrainError
from lyco_core.model import Model
from lyco_core.train.network import Network
from lyco_core.train.network_options import NetworkOptions
from lyco_core.train.targets import TargetChoice, choose_targets

LOKR = NetworkOptions("lokr", 4)


def choose(shapes: dict[str, tuple[int, ...]], **patterns: list[str]) -> TargetChoice:
    return choose_targets(Model.of(shapes), NetworkOptions("lokr", 4, **patterns))


def trained(choice: TargetChoice) -> list[str]:
    return [target.module_path for target in choice.targets]


@pytest.mark.parametrize("model", MODELS)
def test_the_targets_are_musubis(model: str):
    """The lists were taken from Musubi's own models; FramePack's modules lie on HunyuanVideo's weights here."""
    family = ARCHITECTURES[ARCHITECTURE_OF[model]]
    shapes = weights(model)
    choice = choose_targets(Model.of(shapes), LOKR, architecture=family)
    assert choice.architecture is family
    assert {target.module_path: target.shape for target in choice.targets} == targets(model)
    for target in choice.targets:
        start, stop = target.rows or (0, shapes[target.key][0])
        assert (stop - start, shapes[target.key][1]) == target.shape


COUNTS = {
    "flux1_kontext": 228, "flux2_dev": 160, "flux2_klein_4b": 80, "framepack": 440, "hunyuan_video": 240,
    "hunyuan_video_1_5": 756, "qwen_image": 840, "wan21_i2v_14b": 480, "wan21_t2v_14b": 400, "z_image": 210,
}  # fmt: skip


@pytest.mark.parametrize("model", COUNTS)
def test_as_many_as_musubi_counts(model: str):
    family = ARCHITECTURES[ARCHITECTURE_OF[model]]
    assert len(choose_targets(Model.of(weights(model)), LOKR, architecture=family).targets) == COUNTS[model]


def test_default_excludes_that_match_nothing_exclude_nothing():
    """Musubi's patterns for these two miss their modulation, so it is trained."""
    assert "transformer_blocks.0.img_mod.1" in trained(choose(weights("qwen_image")))
    assert "double_blocks.0.txt_mod.linear" in trained(choose(weights("hunyuan_video_1_5")))


def test_fused_weights_are_trained_by_rows():
    by_path = {t.module_path: t for t in choose(z_image()).targets}
    key = "diffusion_model.layers.1.attention.qkv.weight"
    assert [by_path[f"layers.1.attention.to_{x}"].rows for x in "qkv"] == [(0, 24), (24, 48), (48, 72)]
    assert {by_path[f"layers.1.attention.to_{x}"].key for x in "qkv"} == {key}
    assert by_path["layers.1.attention.to_out.0"].rows is None
    assert by_path["layers.1.feed_forward.w2"].shape == (WIDTH, 64)


def test_excludes_come_on_top_of_the_architectures_own():
    choice = choose(z_image(), exclude_patterns=[r".*\.feed_forward\..*"])
    assert trained(choice) == [
        f"layers.{n}.attention.{name}" for n in (0, 1) for name in ("to_q", "to_k", "to_v", "to_out.0")
    ]
    reasons = {target.module_path: pattern for target, pattern in choice.excluded}
    assert reasons["layers.0.feed_forward.w1"] == r".*\.feed_forward\..*"
    assert reasons["layers.0.adaLN_modulation.0"] == ".*(_modulation|_refiner).*"
    assert len(choice.targets) + len(choice.excluded) == 2 * 8 + 8


def test_includes_bring_back_what_is_excluded_and_narrow_nothing():
    everything = trained(choose(z_image()))
    assert trained(choose(z_image(), include_patterns=[r"layers\..*to_q"])) == everything
    modulation = trained(choose(z_image(), include_patterns=[r".*adaLN_modulation\.0"]))
    assert set(modulation) - set(everything) == {
        f"{block}.adaLN_modulation.0" for block in ("layers.0", "layers.1", "noise_refiner.0")
    }
    alone = choose(z_image(), exclude_patterns=[".*"], include_patterns=[r"layers\..*to_q"])
    assert trained(alone) == ["layers.0.attention.to_q", "layers.1.attention.to_q"]


def test_patterns_match_whole_names():
    assert trained(choose(z_image(), exclude_patterns=["layers"])) == trained(choose(z_image()))


def test_a_pattern_that_matches_nothing_is_told(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, logger="lyco"):
        choose(z_image(), exclude_patterns=["layers", ".*to_q"])
    assert [r.getMessage() for r in caplog.records] == [
        "the pattern 'layers' matches none of the 24 modules that could be trained"
    ]


def test_nothing_left():
    with pytest.raises(TrainError, match=r"leave nothing of Z-Image to train; .* such as layers\.0\.attention\.to_q"):
        choose(z_image(), exclude_patterns=[".*"])


def test_kandinsky_is_refused():
    shapes = {f"visual_transformer_blocks.{n}.self_attention.to_query.weight": (1792, 1792) for n in range(2)}
    with pytest.raises(TrainError, match="Kandinsky 5: Musubi Tuner trains it with LoRA only, and which modules"):
        choose(shapes)


UNTRAINED = [m for m, id in OTHERS.items() if not (ARCHITECTURES[id].training or ARCHITECTURES[id].musubi_lora_only)]


@pytest.mark.parametrize("model", UNTRAINED)
def test_a_family_that_is_not_trained_is_refused(model: str):
    title = ARCHITECTURES[OTHERS[model]].title
    with pytest.raises(TrainError, match=f"^{re.escape(title)}: its adapters are used here but not trained; train it"):
        choose({key.removeprefix("diffusion_model."): shape for key, shape in weights(model).items()})


def test_an_unknown_architecture_is_refused():
    with pytest.raises(TrainError, match="architecture is unknown"):
        choose({"down_blocks.0.attentions.0.to_q.weight": (64, 64)})


def test_a_layout_that_splits_a_module_is_refused():
    """HunyuanVideo's qkv is one module in Musubi, three weights in diffusers'."""
    shapes = {
        f"transformer_blocks.{n}.attn.{name}.weight": (24, 24)
        for n in range(2)
        for name in ("to_q", "to_k", "to_v", "to_out.0")
    }
    with pytest.raises(TrainError, match=r"img_attn_qkv lies on 3 weights .*load the model in ComfyUI's or Musubi's"):
        found = dataclasses.replace(Model.of(shapes), layout="diffusers")
        choose_targets(found, LOKR, architecture=ARCHITECTURES["hunyuan_video"])


def test_rows_that_do_not_divide_are_refused():
    shapes = z_image() | {"diffusion_model.layers.0.attention.qkv.weight": (71, 24)}
    with pytest.raises(TrainError, match=r"attention\.qkv\.weight is \[71, 24\], expected a matrix of a multiple of 3"):
        choose_targets(Model.of(shapes), LOKR, architecture=ARCHITECTURES["z_image"])


def test_the_listing_tells_all():
    options = NetworkOptions("lokr", 2, 4.0, exclude_patterns=[".*mlp.*"])
    listing = Network.initial(choose_targets(described(flux1()), options), options).listing().splitlines()
    assert listing[0] == "FLUX.1: 6 modules are trained, 7 are not"
    assert "double_blocks.0.img_attn.qkv [72, 24]: LoKr, dim 2, alpha 4" in listing
    assert "double_blocks.0.txt_mlp.2 [24, 96]: not trained, '.*mlp.*' excludes it" in listing
    assert len(listing) == 14
    full = NetworkOptions("lokr", 24, 4.0)
    listing = Network.initial(choose_targets(described(z_image()), full), full).listing()
    fused = "(rows 24:48 of diffusion_model.layers.0.attention.qkv.weight)"
    assert f"layers.0.attention.to_k [24, 24] {fused}: LoKr, W2 a full matrix" in listing


BY_COMFYUI = {
    "anima": 280, "auraflow": 280, "chroma": 228, "ernie_image": 252, "hunyuan_image": 240, "ideogram4": 170,
    "krea2": 264, "ltx_2": 480, "ltx_video_13b": 480, "lumina2": 150, "mage_flow": 144, "sd15": 160,
    "sd35_medium": 215, "sdxl": 722,
}  # fmt: skip
"""Model -> how many of its modules are trained: of SDXL and Krea 2 as many as kohya and Musubi train."""


@pytest.mark.parametrize("model", BY_COMFYUI)
def test_of_other_families_the_linears_of_blocks_are_trained_but_for_what_modulates(model: str):
    choice = choose(weights(model))
    found = trained(choice)
    assert len(found) == BY_COMFYUI[model]
    assert not [path for path in found if re.search("modulation|_mod\\.|audio|norm", path)]
    for target in choice.targets:
        assert len(weights(model)[target.key]) == 2
