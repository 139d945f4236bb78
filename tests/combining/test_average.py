"""Averages over checkpoints: their shares, Musubi Tuner's post-hoc EMA, and on what they are taken."""

import math
from pathlib import Path

import pytest
import torch
from lyco_testing.tables import musubi_file, random
from safetensors.torch import load_file, save_file

import lyco_core as lyco
from lyco_core.combining import Average
from lyco_core.errors import LycoError

SHAPES = {"blocks.0.self_attn.q": (64, 64), "blocks.0.ffn.0": (160, 64)}


def checkpoints(folder: Path, count: int = 4, algorithm: str = "lokr", *, one: bool = True) -> list[Path]:
    torch.manual_seed(12)
    made = []
    for n in range(count):
        notes = {"ss_session_id": "7" if one else str(n), "ss_steps": str(n)}
        made.append(folder / f"{n}.safetensors")
        save_file(musubi_file(SHAPES, algorithm, random), made[-1], notes)
    return made


def as_musubi(files: list[Path], sigma_rel: float) -> dict[str, torch.Tensor]:
    """The recursion of Algorithm 2 of arXiv:2312.02696 as the trainer runs it over files."""
    t = sigma_rel**-2
    low, high = 0.0, 1e6
    for _ in range(200):  # the one positive root of the cubic
        gamma = (low + high) / 2
        low, high = (gamma, high) if gamma**3 + 7 * gamma**2 + (16 - t) * gamma + 12 - t < 0 else (low, gamma)
    state = {key: tensor.double() for key, tensor in load_file(files[0]).items()}
    for step, file in enumerate(files[1:], 1):
        beta = (1 - 1 / step) ** (gamma + 1)
        state = {key: state[key] * beta + tensor.double() * (1 - beta) for key, tensor in load_file(file).items()}
    return state


def test_post_hoc_is_musubis(tmp_path: Path):
    files = checkpoints(tmp_path, 5)
    made = lyco.combine(files, tmp_path / "out.safetensors", average=Average("post-hoc", sigma_rel=0.15))
    found, expected = load_file(tmp_path / "out.safetensors"), as_musubi(files, 0.15)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.allclose(found[key].double(), tensor, rtol=1e-6, atol=1e-7), key
    assert "averaged on the factors: the files are of one training" in made.lines()
    assert made.adapter_set.metadata["ss_steps"] == "4", "what is true of the last checkpoint"


@pytest.mark.parametrize("kind", ["uniform", "ema"])
def test_shares(kind: str):
    shares = Average(kind, beta=0.9).shares(4)
    assert shares == pytest.approx([0.25] * 4 if kind == "uniform" else [0.9**3, 0.1 * 0.81, 0.1 * 0.9, 0.1])
    assert math.fsum(Average("post-hoc").shares(9)) == pytest.approx(1)


def test_of_other_trainings_it_is_taken_on_the_changes(tmp_path: Path):
    files = checkpoints(tmp_path, 3, "lora", one=False)
    made = lyco.combine(files, tmp_path / "out.safetensors", average=Average())
    assert "averaged on the changes: the files do not say that they are of one training" in made.lines()
    parts = [lyco.delta(path) for path in files]
    for key, found in lyco.delta(tmp_path / "out.safetensors").items():
        expected = sum(part[key].double() for part in parts) / 3
        assert float((found - expected).norm() / expected.norm()) < 2e-6
    said = lyco.combine(files, tmp_path / "said.safetensors", average=Average(on="factors"))
    assert said.adapter_set.ranks == [2], "a person may say that they are of one training"
    same = checkpoints(tmp_path, 3, "lora")
    assert lyco.combine(same, tmp_path / "w.safetensors", average=Average(on="weights")).adapter_set.ranks == [6]


def test_what_is_refused(tmp_path: Path):
    files = checkpoints(tmp_path, 2)
    with pytest.raises(LycoError, match="an average gives each checkpoint its share; leave the strengths at 1"):
        lyco.combine({files[0]: 0.5, files[1]: 1}, tmp_path / "out.safetensors", average=Average())
    with pytest.raises(LycoError, match="an average is a sum of shares, which slerp is not"):
        lyco.combine(files, tmp_path / "out.safetensors", method="slerp", rank=4, average=Average())
    for wrong in ({"kind": "mean"}, {"beta": 1.0}, {"sigma_rel": 0.3}, {"on": "all"}):
        with pytest.raises(LycoError):
            Average(**wrong)
