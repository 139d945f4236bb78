"""Adapters of less rank: the best there is for each algorithm, and nothing else of the file changes."""

from pathlib import Path

import pytest
import torch
from lyco_testing.tables import loha, lokr, lora, random
from lyco_testing.zoo import CASES, Case, normal
from safetensors.torch import load_file, save_file

from lyco_core.adapter_reader import read_adapter_set
from lyco_core.adapters import DoRA, LoHa, LoKr, LoRA
from lyco_core.approximate.less_rank import resized
from lyco_core.approximate.options import Limits, RankTooSmall
from lyco_core.approximate.resize import resize_file
from lyco_core.errors import LycoError


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.reshape(expected.shape) - expected).norm() / expected.norm())


@pytest.mark.parametrize("case", [c for c in CASES if not c.name.startswith("full")], ids=lambda c: c.name)
def test_every_form_keeps_its_kind_and_shape(case: Case):
    adapter = case.make()
    made = resized(adapter, Limits(rank=1))
    if made is None:
        assert adapter.rank in (None, 1)
        return
    assert type(made) is type(adapter)
    assert made.rank == 1
    assert made.delta_weight().numel() == adapter.delta_weight().numel()
    assert relative(made.delta_weight(), adapter.delta_weight()) < 1


def test_a_lora_is_the_best_of_its_rank():
    adapter = LoRA(normal(30, 8), normal(8, 20), alpha=3.0)
    values = torch.linalg.svdvals(adapter.delta_weight())
    made = resized(adapter, Limits(rank=3))
    assert relative(made.delta_weight(), adapter.delta_weight()) == pytest.approx(
        float(values[3:].norm() / values.norm()), rel=1e-4
    )


@pytest.mark.parametrize(
    "adapter",
    [
        LoKr(w1=normal(3, 4), w2_a=normal(20, 6), w2_b=normal(6, 14), alpha=2.0),
        LoKr(w1=normal(3, 4), w2=normal(20, 14), alpha=99.0),
        LoKr(w1_a=normal(6, 2), w1_b=normal(2, 5), w2=normal(20, 14), alpha=3.0),
        LoKr(w1=normal(2, 3), w2=normal(20, 4, 3, 3)),
    ],
    ids=["low", "full", "low w1", "conv"],
)
def test_a_lokrs_error_is_its_factors(adapter: LoKr):
    a, b = adapter.factor2(torch.float32, torch.device("cpu"))
    values = torch.linalg.svdvals(a if b is None else a @ b)
    made = resized(adapter, Limits(rank=4))
    assert isinstance(made, LoKr)
    assert made.rank == 4
    assert made.shape == adapter.shape
    assert relative(made.delta_weight(), adapter.delta_weight()) == pytest.approx(
        float(values[4:].norm() / values.norm()), rel=1e-4
    )


def test_by_error_the_least_rank():
    for adapter in (LoRA(normal(30, 8), normal(8, 20)), LoKr(w1=normal(2, 2), w2=normal(20, 14))):
        made = resized(adapter, Limits(max_error=0.4))
        assert relative(made.delta_weight(), adapter.delta_weight()) <= 0.4
        less = resized(adapter, Limits(rank=made.rank - 1))
        assert relative(less.delta_weight(), adapter.delta_weight()) > 0.4


def test_a_loha_by_rank_and_by_error():
    a, b = normal(30, 1), normal(1, 20)
    adapter = LoHa(torch.cat([a, 0.01 * normal(30, 3)], 1), torch.cat([b, normal(3, 20)]), normal(30, 4), normal(4, 20))
    made = resized(adapter, Limits(rank=2))
    assert made.rank == 2
    near = resized(adapter, Limits(max_error=0.2))
    if near is not None:
        assert near.rank < 4
        assert relative(near.delta_weight(), adapter.delta_weight()) <= 0.2


@pytest.mark.parametrize(
    "adapter",
    [
        LoRA(normal(30, 8), normal(8, 20)),
        LoKr(w1=normal(2, 2), w2=normal(20, 14)),
        LoKr(w1=normal(2, 2), w2_a=normal(20, 9), w2_b=normal(9, 14)),
        LoHa(normal(30, 8), normal(8, 20), normal(30, 8), normal(8, 20)),
        DoRA.of(LoRA(normal(30, 8), normal(8, 20)), normal(30, 1).abs() + 1),
    ],
    ids=["lora", "lokr-full", "lokr", "loha", "dora"],
)
def test_a_rank_and_an_error_hold_both_or_it_says_what_would(adapter, tmp_path):
    with pytest.raises(RankTooSmall) as refused:
        resized(adapter, Limits(rank=2, max_error=0.1))
    needed = refused.value.needed
    assert needed > 2
    near = resized(adapter, Limits(rank=needed, max_error=0.1))
    if near is not None:  # else it stays as it is
        bare = (near.inner, adapter.inner) if isinstance(adapter, DoRA) else (near, adapter)
        assert near.rank == needed
        assert relative(*(a.delta_weight() for a in bare)) <= 0.1


def test_a_file_of_which_modules_need_more_is_refused_with_the_rank_that_is_enough(tmp_path):
    torch.manual_seed(4)
    tensors = {}
    for n, rank in enumerate((1, 5, 7)):
        tensors |= {f"lora_unet_blocks_{n}_ffn_0.lora_up.weight": random(16, rank)}
        tensors |= {f"lora_unet_blocks_{n}_ffn_0.lora_down.weight": random(rank, 12)}
    save_file(tensors, tmp_path / "a.safetensors")
    out = tmp_path / "b.safetensors"
    message = r"2 modules cannot have rank 2 and an error of at most 0.02 \(lora_unet_blocks_1_ffn_0: rank 5, .*rank 7,"
    with pytest.raises(LycoError, match=message):
        resize_file(tmp_path / "a.safetensors", out, Limits(rank=2, max_error=0.02))
    assert not out.exists()


def test_what_a_dtype_cannot_hold_is_refused(tmp_path):
    tensors = lora("lora_unet_blocks_0_ffn_0", 16, 8, random)
    tensors["lora_unet_blocks_0_ffn_0.lora_up.weight"] *= 1e11
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(
        LycoError, match=r"blocks_0_ffn_0\.lora_\w+\.weight: its .* beyond what float16 holds, 65504; store"
    ):
        resize_file(tmp_path / "a.safetensors", tmp_path / "b.safetensors", Limits(rank=1), dtype=torch.float16)
    assert not (tmp_path / "b.safetensors").exists()


def test_a_doras_magnitudes_stay():
    adapter = DoRA.of(LoRA(normal(12, 4), normal(4, 9)), normal(12, 1).abs() + 1)
    made = resized(adapter, Limits(rank=2))
    assert isinstance(made, DoRA)
    assert made.rank == 2
    weight = made.add_to_(normal(12, 9))
    assert torch.allclose(weight.norm(dim=1, keepdim=True), adapter.magnitude, rtol=1e-5)


def test_a_file_keeps_everything_else(tmp_path: Path):
    torch.manual_seed(2)
    tensors = lora("lora_unet_blocks_0_ffn_0", 16, 8, random)
    big = {"lora_up.weight": random(16, 6), "lora_down.weight": random(6, 8), "alpha": torch.tensor(3.0)}
    tensors |= {f"lora_unet_blocks_0_ffn_2.{k}": v for k, v in big.items()} | {"lora_unet_x.set_weight": random(4)}
    tensors |= lokr("lora_unet_blocks_1_ffn_0", 16, 8, random) | loha("lora_unet_blocks_1_ffn_2", 16, 8, random)
    save_file(tensors, tmp_path / "a.safetensors", {"ss_network_dim": "6", "ss_network_alpha": "3", "title": "x"})
    report = resize_file(tmp_path / "a.safetensors", tmp_path / "b.safetensors", Limits(rank=2))
    made = load_file(tmp_path / "b.safetensors")
    assert [m.name for m in report.modules] == ["blocks_0_ffn_2"]
    assert made.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert torch.equal(made[key], tensor) == (not key.startswith("lora_unet_blocks_0_ffn_2")), key
    before, after = (read_adapter_set(tmp_path / name) for name in ("a.safetensors", "b.safetensors"))
    assert after.metadata["title"] == "x"
    assert after.metadata["ss_network_dim"] == "2"
    found = relative(after.adapters["blocks_0_ffn_2"].delta_weight(), before.adapters["blocks_0_ffn_2"].delta_weight())
    assert found == pytest.approx(report.modules[0].error, rel=1e-3)


def test_nothing_to_make_smaller_is_refused(tmp_path: Path):
    save_file(lokr("lora_unet_blocks_0_ffn_0", 16, 8, random), tmp_path / "a.safetensors")
    with pytest.raises(LycoError, match="nothing in it can be made smaller as asked"):
        resize_file(tmp_path / "a.safetensors", tmp_path / "b.safetensors", Limits(rank=8))
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, None, None), "say how small"),
        ((0, None, None), "rank is 0"),
        ((None, 1.5, None), "energy is 1.5"),
        ((None, None, 2.0), "the error is 2"),
    ],
)
def test_what_was_asked_must_make_sense(given, message):
    with pytest.raises(LycoError, match=message):
        Limits.of(*given)


def written(path: Path, tensors: dict[str, torch.Tensor], asked: Limits) -> tuple:
    save_file(tensors, path / "a.safetensors")
    resize_file(path / "a.safetensors", path / "out" / "b.safetensors", asked)
    return read_adapter_set(path / "a.safetensors"), read_adapter_set(path / "out" / "b.safetensors")


def peft(name: str, rank: int, rows: int = 16, columns: int = 12) -> dict[str, torch.Tensor]:
    prefix = f"base_model.model.{name}"
    return {f"{prefix}.lora_A.weight": random(rank, columns), f"{prefix}.lora_B.weight": random(rows, rank)}


@pytest.mark.parametrize("other", ["lora", "lokr"])
def test_a_configurations_scales_stay_where_the_configuration_does_not(other: str, tmp_path: Path):
    """adapter_config.json lies beside the old file only, and its rank is no longer true."""
    torch.manual_seed(3)
    (tmp_path / "out").mkdir()
    (tmp_path / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 6, "alpha": 6, "use_rslora": false}')
    tensors = peft("blocks.0.ffn.0", 4) | peft("blocks.0.ffn.2", 2)
    tensors |= {"base_model.model.blocks.0.ffn.0.lora_B.bias": random(16)}
    if other == "lokr":
        tensors |= {
            k: t for k, t in lokr("base_model.model.blocks.1.ffn.0", 16, 12, random).items() if "alpha" not in k
        }
        full = "base_model.model.blocks.1.ffn.2"
        tensors |= {f"{full}.lokr_w1": random(4, 4), f"{full}.lokr_w2": random(4, 3)}
    before, after = written(tmp_path, tensors, Limits(rank=2))
    assert before.adapters.keys() == after.adapters.keys()
    for path, adapter in before.adapters.items():
        found, expected = after.adapters[path].delta_weight(), adapter.delta_weight()
        if path == "blocks.0.ffn.0":
            values = torch.linalg.svdvals(expected)
            assert relative(found, expected) == pytest.approx(float(values[2:].norm() / values.norm()), rel=1e-3)
        else:
            assert relative(found, expected) < 1e-6, path


def test_a_configuration_beside_the_new_file_does_not_scale_it_again(tmp_path: Path):
    """Its rank is no longer true, and what it scaled is scaled."""
    torch.manual_seed(3)
    (tmp_path / "adapter_config.json").write_text('{"r": 4, "alpha": 8}')
    tensors = {k: t for k, t in lokr("base_model.model.blocks.0.ffn.0", 32, 24, random).items() if "alpha" not in k}
    full = "base_model.model.blocks.1.ffn.2"
    tensors |= {f"{full}.lokr_w1": random(4, 4), f"{full}.lokr_w2": random(2, 2)}
    save_file(tensors, tmp_path / "a.safetensors")
    report = resize_file(tmp_path / "a.safetensors", tmp_path / "b.safetensors", Limits(rank=1))
    assert report.exact == 1
    before, after = (read_adapter_set(tmp_path / name) for name in ("a.safetensors", "b.safetensors"))
    for path, adapter in before.adapters.items():
        error = next((m.error for m in report.modules if m.name == path), 0.0)
        found = relative(after.adapters[path].delta_weight(), adapter.delta_weight())
        assert found == pytest.approx(error, rel=1e-3, abs=1e-6), path


def test_the_spelling_of_the_keys_stays(tmp_path: Path):
    torch.manual_seed(3)
    (tmp_path / "out").mkdir()
    keys = {"lora_A.weight": random(6, 12), "lora_B.weight": random(16, 6), "magnitude": random(16)}
    _, after = written(tmp_path, {f"diffusion_model.blocks.0.ffn.0.{k}": t for k, t in keys.items()}, Limits(rank=2))
    made = load_file(tmp_path / "out" / "b.safetensors")
    assert made.keys() == {f"diffusion_model.blocks.0.ffn.0.{k}" for k in keys}
    assert after.ranks == [2]


def test_a_module_of_zeros_is_no_obstacle(tmp_path: Path):
    (tmp_path / "out").mkdir()
    tensors = peft("blocks.0.ffn.0", 4) | {k: torch.zeros_like(t) for k, t in peft("blocks.0.ffn.2", 4).items()}
    _, after = written(tmp_path, tensors, Limits(max_error=0.5))
    assert not after.adapters["blocks.0.ffn.2"].delta_weight().any()
