"""Trainers whose tensors mean what their metadata, or a note beside them, says: their formulas in float64."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from lyco_testing.zoo import normal
from safetensors.torch import save_file
from torch import Tensor

from lyco_core.adapter_reader import load_adapter_set, read_adapter_set, require_known
from lyco_core.adapters import Adapter, DoRA, OFTv2
from lyco_core.errors import AdapterError, FormatError, PlacementError
from lyco_core.formats import FORMATS, emit, parse, unread
from lyco_core.placement import place

Tensors = dict[str, Tensor]
OUT, IN, OWN, DOTTED = 12, 20, "lora_unet_model_x_0_attn_to_q.", "diffusion_model.x.0.attn.to_q."
W = normal(OUT, IN).double()
FORK = {"ss_network_module": "networks.lora_ltx2", "ss_network_dim": "2", "ss_network_alpha": "1"}
LORA = {"up": normal(OUT, 2) / 2, "down": normal(2, IN) / 2}
LOKR = {"lokr_w1": normal(4, 5), "lokr_w2_a": normal(3, 2) / 2, "lokr_w2_b": normal(2, 4), "alpha": torch.tensor(1.0)}
MAGNITUDE, NORM = normal(OUT).abs() + 1, W.norm(dim=1).float()


def only(tensors: Tensors, metadata: dict[str, str], prefix: str = DOTTED) -> Adapter:
    """The one adapter of a file."""
    found = parse({prefix + name: tensor for name, tensor in tensors.items()}, metadata)
    assert not found.unrecognised
    (adapter,) = found.adapters.values()
    return adapter


def assert_makes(adapter: Adapter, expected: Tensor) -> None:
    found = adapter.add_to_(W.clone())
    assert float((found - expected).norm() / (expected - W).norm()) < 1e-6


def lokr_delta() -> Tensor:
    return torch.kron(LOKR["lokr_w1"].double(), LOKR["lokr_w2_a"].double() @ LOKR["lokr_w2_b"].double()) / 2


def lora_delta() -> Tensor:
    return LORA["up"].double() @ LORA["down"].double()


def rotation(vectors: Tensor, size: int, scaled: bool = True) -> Tensor:
    """Five terms of the series, blocks on the diagonal."""
    above = torch.triu_indices(size, size, 1)
    skew = torch.zeros(len(vectors), size, size, dtype=torch.float64)
    skew[:, above[0], above[1]] = vectors.double() / (2 * math.sqrt(size - 1) if scaled else 1)
    skew = skew - skew.transpose(1, 2)
    terms = [torch.eye(size, dtype=torch.float64), 2 * skew, 2 * skew @ skew, 2 * skew @ skew @ skew]
    whole = sum(terms) + skew @ skew @ skew @ skew
    return torch.block_diag(*(whole if len(vectors) > 1 else whole.repeat(IN // size, 1, 1)))


def notes(size: int, **options: float) -> Tensors:
    """What the fork has beside `oft_R.weight`."""
    named = {"oft_block_size_metadata": size, "oft_block_share_metadata": 0, "oft_coft_metadata": 0}
    named |= {"coft_eps_metadata": 6e-5, "scaled_oft_metadata": 1} | options
    made = {name: torch.tensor(float(number)) for name, number in named.items()}
    return made | ({"oft_R.scaled_oft": torch.tensor(1.0)} if named["scaled_oft_metadata"] else {})


def test_alpha_is_divided_by_lokr_dim_where_the_rank_of_w1_was_cut():
    tensors = {"lokr_w1_a": normal(4, 3), "lokr_w1_b": normal(3, 5), "lokr_w2": normal(3, 4)}
    delta = torch.kron((tensors["lokr_w1_a"] @ tensors["lokr_w1_b"]).double(), tensors["lokr_w2"].double())
    beside = {"alpha": torch.tensor(4.0), "lokr_dim": torch.tensor(16.0)}
    for prefix in (OWN, DOTTED):
        assert_makes(only(tensors | beside, FORK, prefix), W + delta * 4 / 16)
    assert_makes(only(tensors | {"alpha": beside["alpha"]}, FORK), W + delta * 4 / 3)
    with pytest.raises(AdapterError, match="lokr_dim is 0, expected the rank"):
        only(tensors | beside | {"lokr_dim": torch.tensor(0.0)}, FORK)


def test_an_alpha_is_kept_where_both_factors_are_whole():
    full = {
        "lokr_w1": normal(4, 5),
        "lokr_w2": normal(3, 4),
        "alpha": torch.tensor(4.0),
        "lokr_dim": torch.tensor(16.0),
    }
    assert only(full, FORK).scale == 1.0


@pytest.mark.parametrize("alpha", [1e6, 1e10, 9999999999.0])
@pytest.mark.parametrize("kind", ["LoRA", "LoHa", "LoKr", "LoKr of full matrices"])
def test_a_huge_alpha_says_that_the_scale_is_in_the_tensors(kind: str, alpha: float):
    hada = {"hada_w1_a": normal(OUT, 2), "hada_w1_b": normal(2, IN), "hada_w2_a": normal(OUT, 2) + 1}
    tensors = {
        "LoRA": {"lora_up.weight": LORA["up"], "lora_down.weight": LORA["down"]},
        "LoHa": hada | {"hada_w2_b": normal(2, IN) - 1},
        "LoKr": {name: tensor for name, tensor in LOKR.items() if name != "alpha"},
        "LoKr of full matrices": {"lokr_w1": normal(4, 5), "lokr_w2": normal(3, 4)},
    }[kind]
    adapter = only(tensors | {"alpha": torch.tensor(alpha)}, {})
    assert adapter.scale == 1.0
    assert torch.equal(adapter.add_to_(W.clone()), only(tensors, {}).add_to_(W.clone()))
    under_99 = only(tensors | {"alpha": torch.tensor(100.0)}, {})
    assert under_99.scale == (1.0 if "full" in kind else 50.0)


@pytest.mark.parametrize("inner", ["LoRA", "LoKr"])
def test_magnitudes_of_the_forks_own_file_and_of_its_converters(inner: str):
    """The converter multiplies them by ‖W‖ / ‖W + ΔW‖, so that ComfyUI's norm, ‖W‖, cancels."""
    lora = {"lora_up.weight": LORA["up"], "lora_down.weight": LORA["down"], "alpha": torch.tensor(2.0)}
    dotted = {"lora_B.weight": LORA["up"], "lora_A.weight": LORA["down"]}
    delta = lora_delta() if inner == "LoRA" else lokr_delta()
    expected = (W + delta) / (W + delta).norm(dim=1, keepdim=True) * MAGNITUDE.double()[:, None]
    own = (lora if inner == "LoRA" else LOKR | {"initial_norm": NORM}) | {"lora_magnitude_vector.weight": MAGNITUDE}
    assert_makes(only(own, FORK, OWN), expected)
    scale = MAGNITUDE.double() * W.norm(dim=1) / (W + delta).norm(dim=1)
    theirs = (dotted if inner == "LoRA" else LOKR) | {"dora_scale": scale.float()[:, None]}
    assert_makes(only(theirs, FORK), expected)
    assert_makes(only(theirs, {"ss_adapter": "dora"}), expected)  # Fizgig's
    assert_makes(only(theirs | {"initial_norm": NORM}, {}), expected)  # the note alone tells it
    true = theirs | {"dora_scale": MAGNITUDE[:, None]}
    for metadata in ({}, {"ss_network_module": "lycoris.kohya"}):
        assert_makes(only(true, metadata), expected)
    assert_makes(only({n.replace("lora_B", "lora_up"): t for n, t in true.items()}, {}), expected)
    if inner == "LoKr":
        assert_makes(only(true, FORK, OWN), expected)  # LyCORIS's rule under other names than the converter's


def test_magnitudes_along_the_inputs_have_one_norm_in_comfyui_too():
    tensors = {"lora_B.weight": LORA["up"], "lora_A.weight": LORA["down"], "dora_scale": normal(1, IN).abs() + 1}
    total = W + lora_delta()
    assert_makes(only(tensors, FORK), total / total.norm(dim=0) * tensors["dora_scale"].double())


def test_which_norm_is_meant_is_written_and_read_again():
    theirs = LOKR | {"dora_scale": MAGNITUDE[:, None]}
    found = parse({DOTTED + name: tensor for name, tensor in theirs.items()}, FORK)
    tensors, metadata = emit(found, FORMATS["comfyui"])
    assert "lyco_dora_norm" not in metadata  # what the fork wrote tells it
    for kept, by_base in ((FORK | metadata, True), ({}, False)):
        (again,) = parse(tensors, kept).adapters.values()
        assert isinstance(again, DoRA)
        assert again.by_base == by_base
    (alone,) = parse(tensors, {"lyco_dora_norm": "weight"}).adapters.values()
    assert isinstance(alone, DoRA)
    assert alone.by_base
    with pytest.raises(PlacementError, match="its DoRA magnitudes are made for the norm that ComfyUI's own loader"):
        emit(found, FORMATS["peft"])
    with pytest.raises(FormatError, match="lyco_dora_norm is 'x', expected weight or change"):
        parse(tensors, {"lyco_dora_norm": "x"})


def test_true_magnitudes_stay_true_under_the_converters_names():
    """Where the metadata would tell otherwise, the file says so itself."""
    tensors = {"lora_B.weight": LORA["up"], "lora_A.weight": LORA["down"], "lora_magnitude_vector.weight": MAGNITUDE}
    found = parse({f"base_model.model.x.0.attn.to_q.{name}": tensor for name, tensor in tensors.items()}, FORK)
    written, metadata = emit(found, FORMATS["comfyui"])
    assert DOTTED + "dora_scale" in written
    assert metadata["lyco_dora_norm"] == "change"
    (again,) = parse(written, metadata).adapters.values()
    assert_makes(again, found.adapters["x.0.attn.to_q"].add_to_(W.clone()))


def loha() -> tuple[Tensors, Tensor]:
    names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    tensors = dict(zip(names, (normal(OUT, 2), normal(2, IN), normal(OUT, 2) + 1, normal(2, IN) - 1), strict=True))
    a, b, c, d = (t.double() for t in tensors.values())
    return tensors, (a @ b) * (c @ d)


def test_a_lohas_alpha_that_the_converter_left_out_is_in_the_metadata():
    tensors, product = loha()
    metadata = FORK | {"ss_network_module": "networks.loha", "ss_network_args": "{}"}
    assert_makes(only(tensors, metadata), W + product / 2)
    assert_makes(only(tensors, metadata | {"ss_network_module": "lycoris.kohya"}), W + product / 2)
    assert_makes(only(tensors | {"alpha": torch.tensor(3.0)}, metadata), W + product * 3 / 2)
    args = {"audio_dim": "4", "audio_alpha": "8"}
    assert_makes(only(tensors, metadata | {"ss_network_args": json.dumps(args)}), W + product / 2)
    assert_makes(
        only(tensors, metadata | {"ss_network_dim": "8", "ss_network_args": '{"audio_dim": "2"}'}), W + product / 2
    )


@pytest.mark.parametrize(
    "metadata",
    [{}, {"ss_network_dim": "8"}, {"ss_network_args": '{"audio_dim": 2, "audio_alpha": 5}'}, {"ss_network_args": "{"}],
)
def test_a_lohas_alpha_that_nothing_tells_is_refused(metadata: dict[str, str]):
    tensors, _ = loha()
    known = {"ss_network_module": "networks.loha"} | (FORK | {"ss_network_module": "networks.loha"} if metadata else {})
    with pytest.raises(AdapterError, match=r"to_q: its alpha was left out when the file was converted, .* of rank 2;"):
        only(tensors, known | metadata)


@pytest.mark.parametrize("prefix", [OWN, DOTTED])
@pytest.mark.parametrize("blocks", [5, 1], ids=["", "shared"])
@pytest.mark.parametrize("scaled", [True, False])
def test_the_forks_oft(prefix: str, blocks: int, scaled: bool):
    vectors = 0.3 * normal(blocks, 6)
    tensors = {"oft_R.weight": vectors} | notes(4, scaled_oft_metadata=scaled, oft_block_share_metadata=blocks == 1)
    turn = rotation(vectors, 4, scaled)
    assert_makes(only(tensors | {"alpha": torch.tensor(4.0)}, FORK, prefix), W @ turn.t())
    gain = MAGNITUDE.double() / NORM.double()
    dora = tensors | {"dora_scale": MAGNITUDE[:, None], "initial_norm": NORM[:, None]}
    assert_makes(only(dora, FORK, prefix), gain[:, None] * (W @ turn.t()))


def test_the_forks_oft_that_is_held_to_a_norm():
    vectors, eps = 0.3 * normal(5, 6), 0.7
    limit = eps / math.sqrt(5)
    norms = math.sqrt(2) * vectors.double().norm(dim=1, keepdim=True)
    assert (norms > limit).any()
    held = vectors.double() * (limit / norms).clamp(max=1)
    tensors = {"oft_R.weight": vectors} | notes(4, oft_coft_metadata=1, coft_eps_metadata=eps)
    assert_makes(only(tensors, FORK), W @ rotation(held, 4).t())


def test_dokr_with_the_forks_oft():
    vectors = 0.3 * normal(5, 6)
    total = W + lokr_delta()
    expected = total / total.norm(dim=1, keepdim=True) * MAGNITUDE.double()[:, None] @ rotation(vectors, 4).t()
    tensors = LOKR | {"oft_R.weight": vectors, "initial_norm": NORM} | notes(4)
    own = tensors | {"lora_magnitude_vector.weight": MAGNITUDE}
    assert_makes(only(own, FORK, OWN), expected)
    scale = (MAGNITUDE.double() * W.norm(dim=1) / total.norm(dim=1)).float()[:, None]
    assert_makes(only(tensors | {"dora_scale": scale}, FORK), expected)
    old = {
        name: tensor for name, tensor in own.items() if name in ("oft_R.weight", "lora_magnitude_vector.weight", *LOKR)
    }
    assert_makes(only(old, FORK, OWN), expected)  # before it said so: always scaled
    adapter = only(own, FORK, OWN)
    assert adapter.title == "LoKr with DoRA and OFTv2"


def test_what_does_not_fit_an_oft_is_refused():
    vectors = normal(5, 6)
    for tensors, message in (
        ({"oft_R.weight": vectors} | notes(5), "oft_block_size_metadata is 5, oft_R.weight has blocks of 4"),
        (LOKR | {"oft_R.weight": vectors}, "oft_R.weight beside LoKr; expected a LoKr with DoRA, or nothing"),
        ({"oft_R.weight": vectors, "dora_scale": MAGNITUDE}, "initial_norm missing"),
    ):
        with pytest.raises(AdapterError, match=message):
            only(tensors, FORK)


def test_onetrainers_oft_has_no_configuration_and_pefts_needs_one(tmp_path: Path):
    """OneTrainer's marker is a truth value; PEFT's rotation is an option that stands beside the file."""
    vectors = 0.3 * normal(5, 6)
    marked = {"oft_R.weight": vectors, "oft_R.scaled_oft": torch.tensor(True)}
    for prefix in ("lora_transformer_x_0_to_q.", DOTTED, "transformer.x.0.to_q."):
        assert_makes(only(marked, {}, prefix), W @ rotation(vectors, 4).t())
    assert_makes(only({"oft_R.weight": vectors}, {}, DOTTED), W @ rotation(vectors, 4, scaled=False).t())
    plain = {"oft_R.weight": vectors}
    assert_makes(only(plain, {"ot_branch": "master"}, "transformer.x.0.to_q."), W @ rotation(vectors, 4, False).t())
    with pytest.raises(AdapterError, match=r"to_q: oft_R.weight as PEFT saves it .*; put PEFT's adapter_config.json"):
        only(plain, {}, "base_model.model.x.0.to_q.")
    save_file(
        {f"base_model.model.x.0.to_q.{name}": tensor for name, tensor in plain.items()}, tmp_path / "a.safetensors"
    )
    config = {"peft_type": "OFT", "use_cayley_neumann": True, "num_cayley_neumann_terms": 5}
    for version, readable in (
        ("0.18.0", True),
        ("0.21.2@abc", True),
        ("1.0.0", True),
        ("0.17.1", False),
        (None, False),
    ):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"peft_version": version}))
        if not readable:
            with pytest.raises(AdapterError, match="use_cayley_neumann and num_cayley_neumann_terms"):
                read_adapter_set(tmp_path / "a.safetensors")
            continue
        found = read_adapter_set(tmp_path / "a.safetensors")
        assert_makes(found.adapters["x.0.to_q"], W @ rotation(vectors, 4, scaled=False).t())
        tensors, metadata = emit(found)
        (again,) = parse(tensors, metadata).adapters.values()  # without the configuration
        assert isinstance(again, OFTv2)
        assert again.of_peft
    with pytest.raises(FormatError, match="lyco_oftv2 is 'many', expected a number of terms or cayley"):
        parse(plain, {"lyco_oftv2": "many"})


@pytest.mark.parametrize("rank", [2, None])
def test_glokr_is_a_lokr_by_another_name_with_magnitudes_on_both_sides(rank: int | None):
    w2 = {"glokr_w2_a": normal(3, 2), "glokr_w2_b": normal(2, 4)} if rank else {"glokr_w2": normal(3, 4)}
    tensors = {"glokr_w1": normal(4, 5), **w2, "alpha": torch.tensor(6.0)}
    product = w2["glokr_w2_a"].double() @ w2["glokr_w2_b"].double() if rank else w2["glokr_w2"].double()
    delta = torch.kron(tensors["glokr_w1"].double(), product) * (6 / 2 if rank else 1)
    assert_makes(only(tensors, {}, "lora_unet_x."), W + delta)
    both = {"bora_m_row": normal(OUT, 1).abs() + 1, "bora_m_col": normal(1, IN).abs() + 1}
    rows = (W + delta) / (W + delta).norm(dim=1, keepdim=True) * both["bora_m_row"].double()
    expected = rows / rows.norm(dim=0, keepdim=True) * both["bora_m_col"].double()
    adapter = only(tensors | both, {"ss_network_spec": "glokr"}, "lora_unet_x.")
    assert adapter.title == "LoKr with BoRA"
    assert_makes(adapter, expected)
    for wrong in ({"bora_m_row": both["bora_m_row"]}, both | {"dora_scale": MAGNITUDE[:, None]}):
        with pytest.raises(AdapterError, match=r"magnitudes of a BoRA .* expected bora_m_row and bora_m_col"):
            only(tensors | wrong, {}, "lora_unet_x.")


def kohyas_oft(blocks: Tensor, alpha: float, rows: Tensor) -> Tensor:
    """sd-scripts' networks/oft.py and oft_flux.py: Cayley's transform, the norm of all Q held to alpha * rows."""
    skew = blocks.double() - blocks.double().transpose(1, 2)
    skew = skew * min(1.0, alpha * len(rows) / float(skew.norm()))
    eye = torch.eye(blocks.shape[-1], dtype=torch.float64)
    return torch.block_diag(*((eye + skew) @ torch.linalg.inv(eye - skew))).t() @ rows


@pytest.mark.parametrize("alpha", [1e-3, 1.0])
def test_kohyas_oft_of_flux_splits_what_is_fused(alpha: float):
    q, k, v = 0.2 * normal(2, 2, 2), 0.2 * normal(2, 2, 2) + 0.1, 0.3 * normal(2, 2, 2)
    parts = {f"oft_blocks.{index}": blocks for index, blocks in enumerate((q, k, v))} | {"alpha": torch.tensor(alpha)}
    expected = torch.cat([kohyas_oft(b, alpha, W[n : n + 4]) for b, n in ((q, 0), (k, 4), (v, 8))])
    assert_makes(only(parts, {}, "oft_unet_double_blocks_0_img_attn_qkv."), expected)
    whole = 0.2 * normal(3, 4, 4)
    alone = {"oft_blocks.0": whole, "alpha": torch.tensor(alpha)}
    assert_makes(only(alone, {}, "oft_unet_double_blocks_0_img_attn_proj."), kohyas_oft(whole, alpha, W))
    assert_makes(only({"oft_blocks": whole, "alpha": torch.tensor(alpha)}, {}, OWN), kohyas_oft(whole, alpha, W))
    with pytest.raises(AdapterError, match="parts of oft_blocks are missing, or others beside them"):
        only({"oft_blocks.0": q, "oft_blocks.2": v}, {}, OWN)


def tlora(prefix: str) -> Tensors:
    """As LyCORIS 4.1 saves it."""
    shapes = {"q_layer.weight": (4, IN), "p_layer.weight": (OUT, 4), "lambda_layer": (1, 4)}
    made = {prefix + name: normal(*shape).bfloat16() for name, shape in shapes.items()}
    return made | {prefix + "alpha": torch.tensor(1.0)}


def test_tlora_is_refused_by_its_name(tmp_path: Path):
    found = parse(tlora("lycoris_transformer_blocks_0_attn_to_q."), {})
    assert not found.adapters
    with pytest.raises(
        FormatError, match=r"holds T-LoRA \(its change is measured from singular vectors .*not read here"
    ):
        require_known(found)
    lora = {DOTTED + "lora_A.weight": LORA["down"], DOTTED + "lora_B.weight": LORA["up"]}
    save_file(lora | tlora("diffusion_model.x.1.attn.to_q."), tmp_path / "a.safetensors")
    mixed = load_adapter_set(tmp_path / "a.safetensors")
    with pytest.raises(PlacementError, match=r"4 keys belong to no adapter .*; among them are T-LoRA \("):
        place(mixed, {"diffusion_model.x.0.attn.to_q.weight": (OUT, IN)}).require_complete()


def test_what_is_known_and_not_read_is_told_from_what_is_unknown():
    assert unread(["a.b.set_weight", "a.b.reshape_weight", "a.c.strange"]) == [
        "ComfyUI's set_weight and reshape_weight (only ComfyUI itself applies them)"
    ]
    lora = {"a.b.lora_A.weight": LORA["down"], "a.b.lora_B.weight": LORA["up"], "a.b.strange": normal(3)}
    with pytest.raises(
        FormatError, match=r"holds adapters with tensors that are not known here \(strange; half of one"
    ):
        require_known(parse(lora, {}))
    with pytest.raises(FormatError, match=r"holds no adapter; found keys like a\.b\.strange"):
        require_known(parse({"a.b.strange": normal(3)}, {}))
