"""Moments of the flow as Musubi draws them, and what their loss weighs."""

import math

import pytest
import torch
from lyco_testing.tables import TRAINED

from lyco_core.errors import TrainError
from lyco_core.train.noise import NoiseOptions, resolve_sampling
from lyco_core.train.timesteps import SAMPLINGS, loss_weights, sample_times

COUNT = 40_000
PARTS = torch.linspace(0.02, 0.98, 49)
NORMAL = torch.distributions.Normal(0.0, 1.0)


def drawn(size: tuple[int, int] = (128, 128), **options: object) -> torch.Tensor:
    times = sample_times(NoiseOptions(**options), COUNT, size, torch.Generator().manual_seed(0))
    assert times.shape == (COUNT,)
    assert times.dtype == torch.float32
    return times


def shifted(t: torch.Tensor, k: float) -> torch.Tensor:
    return k * t / (1 + (k - 1) * t)


def flux_k(tokens: int, far: int = 4096, high: float = 1.15) -> float:
    return math.exp(0.5 + (high - 0.5) * (tokens - 256) / (far - 256))


SIGMOID = torch.sigmoid(NORMAL.icdf(PARTS))
QUANTILES = {
    "uniform": ({}, PARTS),
    "sigmoid": ({"sigmoid_scale": 2.0}, torch.sigmoid(2 * NORMAL.icdf(PARTS))),
    "shift": ({"discrete_flow_shift": 3.0}, shifted(SIGMOID, 3.0)),
    "flux_shift": ({}, shifted(SIGMOID, flux_k(64 * 64))),
    "flux2_shift": ({}, shifted(SIGMOID, flux_k(128 * 128))),
    "qwen_shift": ({}, shifted(SIGMOID, flux_k(64 * 64, 8192, 0.9))),
    "krea2_shift": ({}, shifted(SIGMOID, flux_k(64 * 64, 6400))),
    "ideogram4_shift": ({}, torch.sigmoid(math.log(4) + 1.5 * NORMAL.icdf(PARTS))),
    "logsnr": ({"logit_mean": 1.0, "logit_std": 2.0}, torch.sigmoid(-(1 + 2 * NORMAL.icdf(1 - PARTS)) / 2)),
    "sigma": ({}, PARTS),
}
"""Sampling -> options, and the quantiles that its definition has at PARTS."""


@pytest.mark.parametrize("name", SAMPLINGS)
def test_the_distribution_is_the_definition_s(name: str):
    options, expected = QUANTILES[name]
    found = torch.quantile(drawn(timestep_sampling=name, **options), PARTS)
    assert float((found - expected).abs().max()) < 0.015


@pytest.mark.parametrize("name", SAMPLINGS)
def test_dealt_it_is_the_same_distribution(name: str):
    """Every one of so many in a row lies in a part of its own, so the quantiles are met more exactly."""
    options, expected = QUANTILES[name]
    dealt = (torch.arange(COUNT) + 0.5) / COUNT
    asked = NoiseOptions(timestep_sampling=name, **options)
    found = sample_times(asked, COUNT, (128, 128), torch.Generator(), dealt=dealt)
    assert float((torch.quantile(found, PARTS) - expected).abs().max()) < 0.002


@pytest.mark.parametrize(("name", "first", "second"), [("qinglong_flux", 0.79, 0.9), ("qinglong_qwen", 0.95, 0.95)])
def test_qinglong_is_a_mixture(name: str, first: float, second: float):
    """What Musubi mixes: a shift, log-SNR of the options, and of N(5.36, 1)."""
    shift = QUANTILES["flux_shift" if name == "qinglong_flux" else "qwen_shift"][1]
    middle = torch.sigmoid(-(1 + 2 * NORMAL.icdf(1 - PARTS)) / 2)
    near = torch.sigmoid(-(5.36 + NORMAL.icdf(1 - PARTS)) / 2)
    found = drawn(timestep_sampling=name, logit_mean=1.0, logit_std=2.0)
    for at in (0.05, 0.1, 0.3, 0.5, 0.8):
        below = [float((part < at).double().mean()) for part in (shift, middle, near)]
        expected = first * below[0] + (second - first) * below[1] + (1 - second) * below[2]
        assert float((found < at).double().mean()) == pytest.approx(expected, abs=0.02)


def test_shifts_of_a_picture_of_1024_pixels():
    """What Musubi's functions give: μ 1.15 for FLUX, 0.69355 for Qwen-Image; FLUX.2's latent is half as wide."""
    shifts = {name: SAMPLINGS[name][1] for name in ("flux_shift", "qwen_shift", "flux2_shift")}
    options = NoiseOptions()
    assert math.log(shifts["flux_shift"](options, (128, 128))) == pytest.approx(1.15)
    assert math.log(shifts["qwen_shift"](options, (128, 128))) == pytest.approx(0.69355, abs=1e-5)
    assert math.log(shifts["flux2_shift"](options, (64, 64))) == pytest.approx(1.15)


@pytest.mark.parametrize(
    ("scheme", "density"),
    [
        ("logit_normal", lambda u: torch.sigmoid(0.5 + 0.7 * NORMAL.icdf(u))),
        ("mode", lambda u: 1 - u - 1.29 * (torch.cos(math.pi * u / 2) ** 2 - 1 + u)),
    ],
)
def test_sigma_is_drawn_by_the_scheme(scheme: str, density):
    options = {"weighting_scheme": scheme, "logit_mean": 0.5, "logit_std": 0.7}
    found = drawn(timestep_sampling="sigma", **options)
    expected = 1 - density(torch.rand(COUNT, generator=torch.Generator().manual_seed(5)))
    assert float((found.quantile(PARTS) - expected.quantile(PARTS)).abs().max()) < 0.02
    assert torch.allclose((found * 1000).round() / 1000, found, atol=1e-6)
    assert float(found.min()) > 0.0009
    assert float(found.max()) <= 1


@pytest.mark.parametrize("keep", [False, True])
def test_bounds(keep: bool):
    found = drawn(timestep_sampling="sigmoid", min_timestep=200, max_timestep=400, preserve_distribution_shape=keep)
    assert 0.2 <= float(found.min()) < 0.21
    assert 0.39 < float(found.max()) <= 0.4
    if keep:
        whole = drawn(timestep_sampling="sigmoid")
        expected = whole[(whole >= 0.2) & (whole <= 0.4)]
    else:
        expected = drawn(timestep_sampling="sigmoid") * 0.2 + 0.2
    assert float((found.quantile(PARTS) - expected.quantile(PARTS)).abs().max()) < 0.005


def test_bounds_that_cannot_be():
    with pytest.raises(TrainError, match="min_timestep is 500, expected less than max_timestep, 500"):
        NoiseOptions(min_timestep=500, max_timestep=500)
    options = NoiseOptions(
        timestep_sampling="sigmoid", sigmoid_scale=0.01, max_timestep=10, preserve_distribution_shape=True
    )
    with pytest.raises(TrainError, match="of 4000 timesteps that sigmoid draws 0 lie between min_timestep 0 and"):
        sample_times(options, 4, (8, 8), torch.Generator())


SIGMAS = torch.tensor([0.001, 0.001, 0.002, 0.002, 0.003, 0.251, 1.0, 1.0])
"""What Musubi looks up for the timesteps 1000·t + 1 of `MOMENTS`: the nearest of 1, 2, … 1000, the higher of two."""
MOMENTS = torch.tensor([0.0, 0.0004, 0.0005, 0.001, 0.0016, 0.25, 0.9995, 1.0])


def test_weights():
    assert loss_weights(NoiseOptions(), MOMENTS).tolist() == [1] * 8
    of = {"sigma_sqrt": SIGMAS**-2, "cosmap": 2 / (math.pi * (1 - 2 * SIGMAS + 2 * SIGMAS**2))}
    for scheme, expected in of.items():
        options = NoiseOptions(weighting_scheme=scheme, timestep_sampling="uniform")
        assert loss_weights(options, MOMENTS).tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    found = loss_weights(NoiseOptions(weighting_scheme="sigma_sqrt"), torch.tensor([0.001, 0.002, 1.0]))
    assert found.tolist() == pytest.approx([1e6, 25e4, 1], rel=1e-6)  # sigma: on the grid already


def test_auto_is_what_the_pages_say():
    found = resolve_sampling(NoiseOptions(timestep_sampling="auto", sigmoid_scale=2.0), TRAINED["wan"])
    assert found == NoiseOptions(timestep_sampling="shift", discrete_flow_shift=3.0, sigmoid_scale=2.0)
    recommended = {name: (family.sampling, family.shift) for name, family in TRAINED.items() if family.by_musubi}
    assert recommended == {
        "wan": ("shift", 3.0),  # docs/wan.md
        "hunyuan_video": ("shift", 7.0),  # docs/hunyuan_video.md
        "hunyuan_video_1_5": ("shift", 2.0),  # docs/hunyuan_video_1_5.md
        "framepack": ("shift", 3.0),  # docs/framepack.md
        "flux1": ("flux_shift", 1.0),  # docs/flux_kontext.md, whose command names no flow shift
        "flux2": ("flux2_shift", 1.0),  # docs/flux_2.md, the same
        "qwen_image": ("shift", 2.2),  # docs/qwen_image.md
        "z_image": ("shift", 2.0),  # docs/zimage.md
    }
    assert (TRAINED["krea2"].sampling, TRAINED["krea2"].shift) == ("shift", 2.5)  # docs/krea2.md
    assert TRAINED["ideogram4"].sampling == "ideogram4_shift"  # docs/ideogram4.md
    assert {family.sampling for family in TRAINED.values()} <= SAMPLINGS.keys()
    same = NoiseOptions(timestep_sampling="uniform")
    assert resolve_sampling(same, TRAINED["wan"]) is same
