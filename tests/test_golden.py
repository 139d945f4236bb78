"""Files that the real Musubi Tuner saved, against the delta weights of its own merge code."""

from pathlib import Path

import pytest
import torch
from lyco_testing.tables import GOLDEN
from safetensors.torch import load_file

from lyco_core.delta import write_delta
from lyco_core.inspect import inspect_file

FILES = sorted(p for p in GOLDEN.glob("*/*.safetensors") if ".expected" not in p.name)
ARCHITECTURES = {"wan_t2v": "wan", "z_image": "z_image", "hunyuan_video": "hunyuan_video"}
every_file = pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")


@every_file
def test_delta(path: Path, tmp_path: Path):
    expected = load_file(path.with_suffix(".expected.safetensors"))
    write_delta(path, tmp_path / "delta.safetensors")
    found = load_file(tmp_path / "delta.safetensors")
    assert found.keys() == expected.keys()
    for key, delta in expected.items():
        assert found[key].dtype == torch.float32
        assert float((found[key] - delta).norm() / delta.norm()) < 2e-6


@every_file
def test_inspect(path: Path):
    found = inspect_file(path).as_json()
    algorithm = path.stem.split("_")[0]
    assert found["format"] == "musubi"
    assert found["architecture"] == ARCHITECTURES[path.parent.name]
    assert found["algorithms"] == {algorithm: found["modules"]}
    assert found["unrecognised_keys"] == []
    assert found["metadata"]["ss_network_module"].startswith("networks.")


@every_file
@pytest.mark.parametrize("layout", ["musubi", "diffusers"])
def test_other_layouts_hold_the_same_rows(path: Path, layout: str, tmp_path: Path):
    expected = load_file(path.with_suffix(".expected.safetensors"))
    write_delta(path, tmp_path / "delta.safetensors", layout=layout)
    found = load_file(tmp_path / "delta.safetensors")
    total = sum(float(delta.double().square().sum()) for delta in expected.values())
    assert sum(float(delta.double().square().sum()) for delta in found.values()) == pytest.approx(total, rel=1e-6)
