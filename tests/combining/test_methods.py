"""The methods against what their papers say, written out number by number in float64."""

import math
from pathlib import Path

import pytest
import torch
from lyco_testing.files import unmapped
from lyco_testing.tables import musubi_file, random
from safetensors.torch import save_file
from torch import Tensor

import lyco_core as lyco
from lyco_core.adapters import LoKr, LoRA
from lyco_core.approximate.options import Limits
from lyco_core.combining import CombineOptions, methods
from lyco_core.combining.knots import knots
from lyco_core.errors import LycoError

SHAPES = {"blocks.0.self_attn.q": (64, 64), "blocks.0.ffn.0": (160, 64)}


def numbers(count: int, *shape: int) -> list[Tensor]:
    torch.manual_seed(count)
    return [torch.randn(shape) for _ in range(count)]


def seeded(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(n) for n in range(count)]


def top(change: Tensor, share: float) -> Tensor:
    """The share of the largest numbers, by sorting."""
    flat = change.double().flatten()
    kept = torch.zeros_like(flat)
    order = flat.abs().argsort(descending=True)[: round(share * len(flat))]
    kept[order] = flat[order]
    return kept.reshape(change.shape)


def mean_of_the_elected(changes: list[Tensor]) -> Tensor:
    """Number by number, in Python: TIES' steps 2 and 3."""
    made = torch.zeros_like(changes[0], dtype=torch.float64)
    for place in range(made.numel()):
        values = [float(change.flatten()[place]) for change in changes]
        sign = math.copysign(1, sum(values)) if sum(values) else 0
        agreed = [value for value in values if value * sign > 0]
        made.view(-1)[place] = sum(agreed) / len(agreed) if agreed else 0
    return made


def near(found: Tensor, expected: Tensor) -> bool:
    return float((found.double() - expected).norm()) <= 1e-6 * float(expected.norm())


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_ties(count: int, density: float):
    changes = numbers(count, 12, 10)
    assert near(methods.ties(changes, density), mean_of_the_elected([top(c, density) for c in changes]))


def test_dare_drops_and_rescales_by_its_seed():
    changes = numbers(2, 200, 100)
    found = methods.dare(changes, 0.3, seeded(2))
    expected = torch.zeros(200, 100, dtype=torch.float64)
    for change, generator in zip(changes, seeded(2), strict=True):
        expected += change.double() * (torch.rand(200, 100, generator=generator) < 0.3) / 0.3
    assert near(found, expected)
    alone = methods.dare(changes[:1], 0.3, seeded(1))
    assert abs(float((alone != 0).float().mean()) - 0.3) < 0.02
    assert torch.allclose(alone[alone != 0], changes[0][alone != 0] / 0.3)
    assert not torch.equal(found, methods.dare(changes, 0.3, seeded(3)[1:]))


def test_della_drops_small_numbers_of_a_row_more_often():
    changes, epsilon, density = numbers(2, 6, 9), 0.4, 0.5
    found = methods.della(changes, density, epsilon, seeded(2))
    pruned = []
    for change, generator in zip(changes, seeded(2), strict=True):
        draws, made = torch.rand(6, 9, generator=generator), torch.zeros(6, 9, dtype=torch.float64)
        for row in range(6):
            order = sorted(range(9), key=lambda n, r=change[row]: -abs(float(r[n])))
            for place, column in enumerate(order):
                drop = (1 - density) - epsilon / 2 + epsilon / 9 * place
                if draws[row, column] < 1 - drop:
                    made[row, column] = change[row, column].double() / (1 - drop)
        pruned.append(made)
    assert near(found, mean_of_the_elected(pruned))


def test_breadcrumbs_masks_both_tails():
    changes = numbers(3, 20, 25)
    expected = torch.zeros(20, 25, dtype=torch.float64)
    for change in changes:
        flat = change.double().flatten()
        order = flat.abs().argsort(descending=True)[10 : 10 + 150]  # 2 % are outliers, 30 % stay
        expected.view(-1)[order] += flat[order]
    assert near(methods.breadcrumbs(changes, 0.3, 0.02), expected)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_slerp_goes_along_the_arc(share: float):
    first, second = numbers(2, 8, 9)
    a, b = first.double(), second.double()
    angle = math.acos(float((a * b).sum() / (a.norm() * b.norm())))
    expected = (math.sin((1 - share) * angle) * a + math.sin(share * angle) * b) / math.sin(angle)
    assert near(methods.slerp(first, second, share), expected)
    same = torch.randn(4, 4)
    assert near(methods.slerp(same, 2 * same, share), same.double() * (1 + share)), "one direction: straight"


@pytest.mark.parametrize("low", [True, False], ids=["from factors", "dense"])
def test_knots_is_ties_in_the_shared_space(low: bool):
    torch.manual_seed(3)
    if low:
        parts = [LoRA(torch.randn(40, 2), torch.randn(2, 30), alpha=n) for n in (1.0, 3.0)]
    else:
        parts = [LoKr(w1=torch.randn(4, 3), w2=torch.randn(10, 10)) for _ in range(2)]
    deltas = [part.delta_weight(torch.float64) for part in parts]
    u, s, vh = torch.linalg.svd(torch.cat(deltas, 1), full_matrices=False)
    kept = s > 1e-6 * s[0]
    shared = [s[kept, None] * half for half in vh[kept].split(30, 1)]
    expected = u[:, kept] @ mean_of_the_elected([top(change, 0.4) for change in shared])
    found = knots(parts, (40, 30), 0.4)
    assert float((found.delta_weight(torch.float64) - expected).norm() / expected.norm()) < 3e-5


def two(folder: Path) -> dict[Path, float]:
    torch.manual_seed(11)
    for n, algorithm in enumerate(("lora", "lokr")):
        save_file(musubi_file(SHAPES, algorithm, random), folder / f"{n}.safetensors")
    return {folder / "0.safetensors": 0.8, folder / "1.safetensors": 0.5}


def test_files_by_each_method_and_form_measured(tmp_path: Path):
    """At full rank nothing is lost; the error of less is that of the file."""
    files = two(tmp_path)
    changes = [{key: strength * d for key, d in lyco.delta(path).items()} for path, strength in files.items()]
    for form, rank in (("lora", 64), ("lora", 5), ("lokr", None), ("loha", 4)):
        out = tmp_path / f"{form}{rank}.safetensors"
        made = lyco.combine(files, out, method="ties", algorithm=form, rank=rank, density=0.3)
        assert set(made.adapter_set.algorithms) == {form}
        error, whole = 0.0, 0.0
        for key, delta in lyco.delta(out).items():
            expected = mean_of_the_elected([top(change[key], 0.3) for change in changes])
            error, whole = error + (delta - expected).square().sum(), whole + expected.square().sum()
        assert made.report.error == pytest.approx(math.sqrt(error / whole), rel=1e-3, abs=1e-6)
        assert (made.report.error < 2e-6) == (rank == 64)


def test_draws_depend_on_the_seed_and_the_file_not_on_the_order_of_modules(tmp_path: Path):
    files = two(tmp_path)

    def made(seed: int, **options: object) -> dict[str, Tensor]:
        out = tmp_path / "dare.safetensors"
        lyco.combine(files, out, method="dare", rank=64, seed=seed, overwrite=True, **options)
        return unmapped(out)

    first = made(1)
    assert all(torch.equal(t, made(1)[key]) for key, t in first.items())
    assert not all(torch.equal(t, made(2)[key]) for key, t in first.items())


def test_slerp_takes_strengths_for_shares(tmp_path: Path):
    files = two(tmp_path)
    lyco.combine(files, tmp_path / "out.safetensors", method="slerp", rank=64)
    a, b = (lyco.delta(path) for path in files)
    for key, found in lyco.delta(tmp_path / "out.safetensors").items():
        assert float((found - methods.slerp(a[key], b[key], 0.5 / 1.3)).norm() / found.norm()) < 2e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "mean"}, "the method is 'mean', expected sum, ties"),
        ({"method": "ties"}, "ties makes .* of no low rank, so it has no exact form; .* give a rank"),
        ({"method": "ties", "density": 0.0, "limits": Limits(2)}, "density is 0, expected a share above 0"),
        ({"method": "della", "density": 0.95, "limits": Limits(2)}, "epsilon is 0.2, expected that density 0.95"),
        ({"method": "breadcrumbs", "density": 1.0, "limits": Limits(2)}, "gamma is 0.007, expected at most 1"),
        ({"form": "dora"}, "the form is 'dora', expected lora, loha, lokr"),
        ({"form": "loha", "limits": Limits(max_error=0.1)}, "an energy or an error chooses the rank of a LoRA"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(LycoError, match=message):
        CombineOptions(**options)
