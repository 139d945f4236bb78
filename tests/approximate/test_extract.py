"""An adapter from two checkpoints: as near as the algebra allows, with the error that is said."""

import json
from pathlib import Path

import pytest
import torch
from lyco_testing.files import unmapped
from lyco_testing.zoo import normal
from safetensors.torch import load, save_file

from lyco_core.adapter_reader import load_adapter_set
from lyco_core.adapters import LoHa, LoKr, LoRA
from lyco_core.approximate.extract import extract_file
from lyco_core.approximate.hadamard import nearest_loha
from lyco_core.approximate.kronecker import nearest_lokr
from lyco_core.approximate.options import ExtractOptions, Limits
from lyco_core.approximate.svd import truncated
from lyco_core.errors import LycoError
from lyco_core.merging import Source, merge_checkpoint
from lyco_core.selection import Selection

SHAPES = {
    "blocks.0.self_attn.q.weight": (48, 32),
    "blocks.0.self_attn.k.weight": (48, 32),
    "blocks.0.ffn.0.weight": (96, 48),
    "blocks.0.ffn.2.weight": (48, 96),
    "patch_embedding.weight": (32, 16, 1, 2, 2),
    "blocks.0.norm3.weight": (48,),
    "blocks.0.ffn.0.bias": (96,),
    "blocks.0.modulation": (1, 6, 48),
    "head.modulation": (1, 2, 48),
    "x_pad_token": (1, 48),
    "blocks.0.norm.scale": (48,),
}
OTHERS = 6  # no weights of linear modules and convolutions


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path, dict[str, torch.Tensor]]:
    """A base, a tuned one under ComfyUI's prefix, and the differences; k is not trained."""
    torch.manual_seed(1)
    base = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    deltas = {name: torch.randn(shape) / 9 for name, shape in SHAPES.items() if ".k." not in name}
    save_file(base, tmp_path / "base.safetensors")
    tuned = {f"model.diffusion_model.{k}": v + deltas.get(k, 0) for k, v in base.items()}
    save_file(tuned, tmp_path / "tuned.safetensors")
    deltas = {k: tuned[f"model.diffusion_model.{k}"] - base[k] for k in deltas}
    return tmp_path / "base.safetensors", tmp_path / "tuned.safetensors", deltas


def extracted(two, tmp_path, algorithm, asked, **options):
    out = tmp_path / "out.safetensors"
    report = extract_file(two[0], two[1], out, ExtractOptions(algorithm, asked, **options), overwrite=True)
    return report, load_adapter_set(out, architecture="wan"), out


def test_a_lora_is_the_best_of_its_rank(two, tmp_path):
    report, found, _ = extracted(two, tmp_path, "lora", Limits(rank=5))
    assert report.unchanged == 1
    assert report.exact == OTHERS
    assert len(report.modules) == 4
    for module in report.modules:
        delta = two[2][module.name + ".weight"]
        values = torch.linalg.svdvals(delta.flatten(1))
        best = float(values[5:].norm() / values.norm())
        adapter = found.adapters[module.name]
        assert adapter.rank == 5
        assert module.error == pytest.approx(best, rel=1e-4)
        assert relative(adapter.delta_weight(), delta) == pytest.approx(module.error, rel=1e-4)
    for name, key in (("blocks.0.norm3", "blocks.0.norm3.weight"), ("blocks.0.ffn.0.bias", "blocks.0.ffn.0.bias")):
        assert torch.allclose(found.adapters[name].delta_weight(), two[2][key], atol=1e-7)


@pytest.mark.parametrize("asked", [Limits(max_error=0.3), Limits.of(None, 0.91, None)], ids=["error", "energy"])
def test_the_least_rank_that_is_near_enough(two, tmp_path, asked):
    report, _, _ = extracted(two, tmp_path, "lora", asked)
    for module in report.modules:
        values = torch.linalg.svdvals(two[2][module.name + ".weight"].flatten(1))
        assert module.error <= asked.max_error
        assert float(values[module.rank - 1 :].norm() / values.norm()) > asked.max_error


def test_all_ranks_are_the_difference_itself(two, tmp_path):
    report, _, out = extracted(two, tmp_path, "lora", Limits(rank=1000))
    assert report.error < 1e-5
    merged = tmp_path / "merged.safetensors"
    merge_checkpoint(two[0], [Source(out)], merged)
    tuned = unmapped(two[1])
    for key, tensor in unmapped(merged).items():
        assert torch.allclose(tensor, tuned[f"model.diffusion_model.{key}"], atol=2e-5), key


@pytest.mark.parametrize("shape", [(24, 36), (36, 24), (40, 12, 3, 3), (6, 35)])
@pytest.mark.parametrize("factor", [-1, 2, 3])
def test_a_kronecker_product_is_found_again(shape, factor):
    first = nearest_lokr(normal(*shape), factor, None)
    delta = first.delta_weight()
    again = nearest_lokr(delta, factor, None)
    assert relative(again.delta_weight(), delta) < 1e-5


def test_no_kronecker_product_of_these_factors_is_nearer():
    """Eckart and Young, on the rearranged difference written out by hand."""
    delta = normal(12, 20)
    found = nearest_lokr(delta, 4, None)
    assert found.w1.shape == (3, 4)
    rows = [delta[4 * i : 4 * i + 4, 5 * j : 5 * j + 5].flatten() for i in range(3) for j in range(4)]
    values = torch.linalg.svdvals(torch.stack(rows))
    assert relative(found.delta_weight(), delta) == pytest.approx(float(values[1:].norm() / values.norm()), rel=1e-4)
    low = nearest_lokr(delta, 4, 2)
    w2 = torch.linalg.svdvals(found.w2)
    assert low.rank == 2
    assert relative(low.delta_weight(), found.delta_weight()) == pytest.approx(
        float(w2[2:].norm() / w2.norm()), rel=1e-3
    )


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_a_loha_is_nearer_than_the_lora_of_its_rank(rank):
    delta = normal(40, 28)
    u, s, v = truncated(delta, rank)
    lora = relative(LoRA(u * s, v.t().contiguous()).delta_weight(), delta)
    loha = nearest_loha(delta, rank)
    found = relative(loha.delta_weight(), delta)
    assert found < (lora if rank > 1 else 1.0001 * lora)


def test_a_loha_is_found_again_better_than_by_a_lora():
    truth = LoHa(normal(40, 2), normal(2, 28), normal(40, 2) + 1, normal(2, 28) - 1).delta_weight()
    u, s, v = truncated(truth, 2)
    assert relative(nearest_loha(truth, 2).delta_weight(), truth) < 0.7 * relative((u * s) @ v.t(), truth)


@pytest.mark.parametrize("algorithm", ["loha", "lokr"])
def test_other_algorithms_say_their_error(two, tmp_path, algorithm):
    report, found, out = extracted(two, tmp_path, algorithm, Limits(rank=3), dtype=torch.bfloat16)
    kind = {"loha": LoHa, "lokr": LoKr}[algorithm]
    for module in report.modules:
        adapter = found.adapters[module.name]
        assert isinstance(adapter, kind)
        delta = two[2][module.name + ".weight"]
        assert relative(adapter.delta_weight().reshape(delta.shape), delta) == pytest.approx(module.error, rel=1e-4)
    assert all(t.dtype == torch.bfloat16 for k, t in unmapped(out).items() if not k.endswith("alpha"))


def test_patterns_choose(two, tmp_path):
    report, _, _ = extracted(two, tmp_path, "lora", Limits(rank=2), selection=Selection.of([r".*ffn\.\d"]))
    assert {m.name for m in report.modules} == {"blocks.0.ffn.0", "blocks.0.ffn.2"}


def test_the_file_says_where_it_is_from(two, tmp_path):
    from lyco_core.io import read_header

    _, _, out = extracted(two, tmp_path, "lora", Limits(rank=2))
    metadata = read_header(out).metadata
    record = json.loads(metadata["lyco_extraction"])
    assert (record["base"], record["tuned"]) == ("base.safetensors", "tuned.safetensors")
    assert metadata["ss_network_dim"] == "2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: {k: v for k, v in t.items() if ".q." not in k},
            r"1 weights of the base are not in it \(blocks.0.self_attn.q",
        ),
        (lambda t: t | {"model.diffusion_model.new.weight": torch.ones(2, 2)}, r"1 weights are not in the base \(new"),
        (lambda t: t | {"model.diffusion_model.blocks.0.ffn.2.weight": torch.ones(8, 96)}, "1 have another shape"),
        (lambda t: t | {"model.diffusion_model.blocks.0.ffn.2.weight": torch.full((48, 96), torch.nan)}, "NaN"),
    ],
)
def test_two_that_do_not_compare_are_refused(two, tmp_path, change, message):
    save_file(change(load(two[1].read_bytes())), two[1])
    with pytest.raises(LycoError, match=message):
        extracted(two, tmp_path, "lora", Limits(rank=2))
    assert not (tmp_path / "out.safetensors").exists()


def test_every_tensor_that_differs_is_there_or_named(two, tmp_path):
    report, found, out = extracted(two, tmp_path, "lora", Limits(rank=2), dtype=torch.bfloat16)
    assert len(report.modules) + report.exact == len(two[2])
    assert found.adapters.keys() == {key.removesuffix(".weight") for key in two[2]}
    assert {"diffusion_model.blocks.0.modulation.diff", "diffusion_model.x_pad_token.diff"} <= unmapped(out).keys()
    for name in ("blocks.0.modulation", "head.modulation", "x_pad_token", "blocks.0.norm.scale"):
        assert torch.equal(found.adapters[name].delta_weight(), two[2][name].bfloat16().float())


@pytest.mark.parametrize(
    ("ours", "theirs", "what"),
    [
        (torch.arange(4), torch.arange(4) + 1, "a tensor of int64"),
        (torch.tensor(0.5), torch.tensor(0.6), "a lone number"),
    ],
    ids=["integers", "a number"],
)
def test_what_no_adapter_can_express_is_named(two, tmp_path, ours, theirs, what):
    save_file(unmapped(two[0]) | {"blocks.0.steps": ours}, two[0])
    tuned = unmapped(two[1])
    save_file(tuned | {"model.diffusion_model.blocks.0.steps": theirs}, two[1])
    with pytest.raises(LycoError, match=rf"tuned.safetensors: .*blocks.0.steps: {what} differs .*exclude blocks.0.st"):
        extracted(two, tmp_path, "lora", Limits(rank=2))
    without = Selection.of(exclude=["blocks.0.steps"])
    assert extracted(two, tmp_path, "lora", Limits(rank=2), selection=without)[0].unchanged == 1
    save_file(tuned | {"model.diffusion_model.blocks.0.steps": ours}, two[1])
    assert extracted(two, tmp_path, "lora", Limits(rank=2))[0].unchanged == 2


def test_what_is_left_out_need_not_be_in_both(two, tmp_path):
    save_file({k: v for k, v in unmapped(two[1]).items() if "pad_token" not in k}, two[1])
    with pytest.raises(LycoError, match=r"1 weights of the base are not in it \(x_pad_token"):
        extracted(two, tmp_path, "lora", Limits(rank=2))
    report, _, _ = extracted(two, tmp_path, "lora", Limits(rank=2), selection=Selection.of(exclude=["x_pad_token"]))
    assert report.exact == OTHERS - 1


def test_scales_of_float8_are_no_tensors_of_the_model(two, tmp_path):
    """A base in float8 with a scale, a tuned one in float32: what stands beside the weight is in one alone."""
    base = unmapped(two[0])
    scaled = (base["blocks.0.ffn.0.weight"] / 0.02).to(torch.float8_e4m3fn)
    base["blocks.0.ffn.0.weight"] = scaled
    base |= {"blocks.0.ffn.0.scale_weight": torch.tensor(0.02), "blocks.0.ffn.0.scale_input": torch.tensor(1.0)}
    save_file(base | {"scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)}, two[0])
    _, found, _ = extracted(two, tmp_path, "lora", Limits(rank=1000))
    delta = unmapped(two[1])["model.diffusion_model.blocks.0.ffn.0.weight"] - scaled.float() * 0.02
    assert relative(found.adapters["blocks.0.ffn.0"].delta_weight(), delta) < 1e-5


@pytest.mark.parametrize("name", ["blocks.0.ffn.0.weight", "blocks.0.norm3.weight", "head.modulation"])
def test_a_number_that_the_dtype_cannot_hold_is_refused(two, tmp_path, name):
    tuned = unmapped(two[1])
    tuned[f"model.diffusion_model.{name}"] += 1e11
    save_file(tuned, two[1])
    path = name.removesuffix(".weight")
    with pytest.raises(
        LycoError, match=rf"{path}.*: its [\d.e+]* is beyond what float16 holds, 65504; store it as bfloat"
    ):
        extracted(two, tmp_path, "lora", Limits(rank=1), dtype=torch.float16)
    assert not (tmp_path / "out.safetensors").exists()
    extracted(two, tmp_path, "lora", Limits(rank=1), dtype=torch.bfloat16)


def test_a_rank_and_an_error_hold_both_or_it_says_what_would(two, tmp_path):
    _, found, _ = extracted(two, tmp_path, "lora", Limits(max_error=0.3))
    needed = {n: a.rank for n, a in found.adapters.items() if a.rank is not None}
    most = max(needed.values())
    with pytest.raises(LycoError, match=rf"modules cannot have rank 2 and an error of at most 0.3 .*give rank {most},"):
        extracted(two, tmp_path, "lora", Limits(rank=2, max_error=0.3))
    report, _, _ = extracted(two, tmp_path, "lora", Limits(rank=most, max_error=0.3))
    assert {m.name: m.rank for m in report.modules} == needed


def test_an_error_holds_for_what_is_stored(two, tmp_path):
    """The rounding of the storage dtype counts; an error that it alone may make is refused."""
    report, _, _ = extracted(two, tmp_path, "lora", Limits(max_error=0.006), dtype=torch.bfloat16)
    assert max(m.error for m in report.modules) <= 0.006
    with pytest.raises(LycoError, match=r"the error is 0.002, and rounding to bfloat16 alone may make one of 0.004"):
        extracted(two, tmp_path, "lora", Limits(max_error=0.002), dtype=torch.bfloat16)


def test_twice_the_same_is_refused(two, tmp_path):
    with pytest.raises(LycoError, match="none of its selected weights differs"):
        extracted((two[0], two[0]), tmp_path, "lora", Limits(rank=2))
