"""Numbers at the ends: what the stored dtype cannot hold is refused, and what the base has of NaN stays where it is."""

from pathlib import Path

import pytest
import torch
from lyco_testing.tables import GOLDEN
from safetensors.torch import load_file, save_file

from lyco_core.errors import MergeError
from lyco_core.merging import MergeOptions, Source, merge_checkpoint, round_to

ADAPTER = GOLDEN / "wan_t2v" / "lora.safetensors"
DELTAS = load_file(ADAPTER.with_suffix(".expected.safetensors"))
KEY = "diffusion_model.blocks.0.self_attn.q.weight"
OTHER = "diffusion_model.head.head.weight"


def merge(tmp_path: Path, change: dict[str, torch.Tensor], strength: float = 1.0, **options: object):
    torch.manual_seed(4)
    save_file({k: torch.randn(d.shape) for k, d in DELTAS.items()} | change, tmp_path / "base.safetensors")
    out = tmp_path / "out.safetensors"
    asked = MergeOptions(**options)  # pyright: ignore[reportArgumentType]
    merge_checkpoint(tmp_path / "base.safetensors", [Source(ADAPTER, strength)], out, asked)
    return load_file(out)


def with_one(value: float, at: tuple[int, int] = (3, 5)) -> torch.Tensor:
    weight = torch.randn(64, 64)
    weight[at] = value
    return weight


def test_a_weight_that_nothing_changes_is_named_where_it_does_not_fit(tmp_path: Path):
    with pytest.raises(MergeError, match=rf"{OTHER}: the result reaches 70000, float16 ends at 65504"):
        merge(tmp_path, {OTHER: with_one(7e4)}, dtype=torch.float16)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_hides_none_that_is_too_large(value: float):
    with pytest.raises(MergeError, match="the result reaches 70000"):
        round_to(torch.tensor([1.0, value, -7e4]), torch.float16)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_of_the_base_stays_where_it_is(value: float, dtype: torch.dtype | None, tmp_path: Path):
    base = with_one(value)
    found = merge(tmp_path, {KEY: base}, dtype=dtype)[KEY].float()
    expected = base + DELTAS[KEY]
    assert torch.allclose(found, expected, rtol=2**-7, atol=2**-7, equal_nan=True)
    assert int((~torch.isfinite(found)).sum()) == 1


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_a_sum_beyond_all_numbers_is_refused(dtype: torch.dtype | None, tmp_path: Path):
    with pytest.raises(
        MergeError, match=r"is NaN or infinite where the base is not; lower the strength|the result reaches"
    ):
        merge(tmp_path, {KEY: torch.full((64, 64), 3.4e38)}, 1e38, dtype=dtype)
    with pytest.raises(MergeError, match=r"strength times scale is 5e\+47; lower the strength"):
        merge(tmp_path, {}, 1e48, dtype=dtype)
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("shape", [(), (64, 1), (64, 4, 1)], ids=["whole", "rows", "blocks"])
def test_scaled_float8_of_what_is_no_number_is_refused(shape: tuple[int, ...], tmp_path: Path):
    stored = with_one(float("nan")).to(torch.float8_e4m3fn)
    with pytest.raises(MergeError, match=r"self_attn\.q\.weight .*cannot be scaled"):
        merge(tmp_path, {KEY: stored, KEY + "_scale": torch.full(shape, 0.01)})


@pytest.mark.parametrize("shape", [(), (64, 1)], ids=["whole", "rows"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_scale_of_few_digits_is_never_0_and_never_too_small(
    dtype: torch.dtype, shape: tuple[int, ...], tmp_path: Path
):
    """float16 has no 1e-8, and near it so few digits that numbers over the scale would be cut off at 448."""
    scale = torch.full(shape, 6.2e-5).to(dtype)
    stored = torch.randn(64, 64) / 10
    stored[7] = 0
    stored = stored.to(torch.float8_e4m3fn)
    change = {KEY: stored, KEY + "_scale": scale}
    found = merge(tmp_path, change, 1e-5)
    exact = stored.double() * scale.double() + 1e-5 * DELTAS[KEY].double()
    made = found[KEY].double() * found[KEY + "_scale"].double()
    assert bool(torch.isfinite(made).all())
    step = found[KEY + "_scale"].double() * 2**-9
    assert bool(((made - exact).abs() <= exact.abs() / 16 * 1.01 + step).all())
