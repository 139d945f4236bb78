"""Where noise goes, and what a model is asked: of steps of σ, and of a flow."""

import pytest
import torch

from lyco_core.errors import TrainError
from lyco_core.train.noise import NoiseOptions
from lyco_core.train.process import FLOW, Discrete, FlowFromSigmas, FlowToData

SIGMAS = ((1 - (a := torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0))) / a).sqrt()
"""Stable Diffusion's."""


def test_every_step_is_drawn_and_none_is_moved_by_rounding():
    process = Discrete(SIGMAS, velocity=False)
    ends = 1 - torch.arange(1000) / 1000  # as timestep_sampling sigma has them
    assert torch.equal(process.sigma(ends), SIGMAS.flip(0))
    inside = (torch.arange(1000) + 0.5) / 1000
    assert torch.equal(process.sigma(inside), SIGMAS)
    assert process.sigma(torch.zeros(1)) == SIGMAS[0]


@pytest.mark.parametrize("velocity", [False, True])
def test_what_a_model_of_steps_is_asked(velocity: bool):
    process = Discrete(SIGMAS, velocity=velocity)
    x_0, noise = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    sigma = process.sigma(torch.tensor([0.2, 0.9]))
    kept = (1 / (1 + sigma**2)).view(-1, 1, 1, 1)  # of the signal's power
    assert torch.allclose(
        process.noised(x_0, noise, sigma) * kept.sqrt(), kept.sqrt() * x_0 + (1 - kept).sqrt() * noise
    )
    expected = kept.sqrt() * noise - (1 - kept).sqrt() * x_0 if velocity else noise
    assert torch.allclose(process.target(x_0, noise, sigma), expected, atol=1e-6)


def test_min_snr_is_the_paper_s():
    sigma = torch.tensor([0.1, 1.0, 10.0])  # SNR 100, 1, 0.01
    options = NoiseOptions(min_snr_gamma=5.0)
    noise, v = (Discrete(SIGMAS, velocity=velocity) for velocity in (False, True))
    assert noise.weights(options, sigma).tolist() == pytest.approx([0.05, 1, 1])
    assert v.weights(options, sigma).tolist() == pytest.approx([5 / 101, 0.5, 0.01 / 1.01], rel=1e-5)
    assert noise.weights(NoiseOptions(), sigma).tolist() == [1, 1, 1]


def test_options_that_mean_nothing_for_it_are_refused():
    with pytest.raises(TrainError, match="min_snr_gamma is for models that predict noise or v"):
        FLOW.under(NoiseOptions(min_snr_gamma=5.0))
    with pytest.raises(TrainError, match="weighting_scheme is cosmap, which weights a flow's loss"):
        Discrete(SIGMAS, velocity=False).under(NoiseOptions(weighting_scheme="cosmap"))
    for process in (FLOW, Discrete(SIGMAS, velocity=True)):
        for name in ("noise_scale_start", "noise_scale_end", "noise_clip_std"):
            with pytest.raises(TrainError, match=f"{name} is 2, and is for HiDream-O1 alone"):
                process.under(NoiseOptions(**{name: 2.0}))
    with pytest.raises(TrainError, match="weighting_scheme is mode, and Musubi Tuner trains this model with none"):
        FlowToData(8.0, 8.0).under(NoiseOptions(weighting_scheme="mode", timestep_sampling="uniform"))


def test_a_flow_that_is_learned_as_data_has_its_own_noise():
    """Musubi's of HiDream-O1: (1 - σ)·x_0 + σ·ε·s, s from the noise's end to the data's; it says (x - x_0) / σ."""
    x_0, noise, sigma = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.tensor([0.25, 5e-4])
    asked = NoiseOptions(timestep_sampling="uniform", noise_scale_start=6.0, noise_scale_end=2.0)
    for process, scales in (
        (FlowToData(8.0, 8.0).under(asked), (3.0, 2.002)),
        (FlowToData(8.0, 8.0).under(NoiseOptions(timestep_sampling="uniform")), (8.0, 8.0)),
        (FlowToData(8.0, 8.0).under(NoiseOptions(timestep_sampling="uniform", noise_scale_start=7.5)), (7.5, 7.5)),
    ):
        x = process.noised(x_0, noise, sigma)
        for n, scale in enumerate(scales):
            expected = (1 - sigma[n]) * x_0[n] + sigma[n] * scale * noise[n]
            assert torch.allclose(x[n], expected, atol=1e-5)
        said = (x - x_0) / sigma.clamp(min=1e-3).view(-1, 1, 1, 1)
        assert torch.allclose(process.predicted(said, x, sigma), process.target(x_0, noise, sigma), atol=1e-5)


def test_a_flow_counted_by_sigma_ends_where_its_sampler_does():
    process = FlowFromSigmas(sigma_max=80.0)
    assert process.sigma(torch.tensor([0.5, 1.0])).tolist() == pytest.approx([1.0, 80.0], rel=1e-5)
    x_0, noise = torch.randn(1, 2, 2), torch.randn(1, 2, 2)
    flow = FLOW.noised(x_0, noise, torch.tensor([0.75]))
    assert torch.allclose(process.noised(x_0, noise, process.sigma(torch.tensor([0.75]))) * 0.25, flow)
