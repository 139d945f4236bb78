"""Files that the real Musubi Tuner saved, against the delta weights of its own merge code."""

from pathlib import Path

import pytest
import torch
from lyco_testing.tables import GOLDEN
from safetensors.torch import load_file

from lyco_core.architectures import ARCHITECTURES
from lyco_core.delta_weights import write_delta
from lyco_core.inspection import inspect_file
from lyco_core.layouts import Layout

FILES = sorted(p for p in GOLDEN.glob("*/*.safetensors") if ".expected" not in p.name)
HERE = {name: ARCHITECTURES[{"wan_t2v": "wan"}.get(name, name)] for name in ("wan_t2v", "z_image", "hunyuan_video")}
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
    assert found["architecture"] == HERE[path.parent.name].id
    assert found["algorithms"] == {algorithm: found["modules"]}
    assert found["unrecognised_keys"] == []
    assert found["metadata"]["ss_network_module"].startswith("networks.")


@every_file
@pytest.mark.parametrize("layout", ["musubi", "diffusers"])
def test_other_layouts_hold_the_same_rows(path: Path, layout: Layout, tmp_path: Path):
    """Every row of every delta, put where the architecture's table says it comes from."""
    expected = load_file(path.with_suffix(".expected.safetensors"))
    write_delta(path, tmp_path / "delta.safetensors", layout=layout)
    found = load_file(tmp_path / "delta.safetensors")
    architecture = HERE[path.parent.name]
    rebuilt = {key: torch.zeros_like(delta) for key, delta in expected.items()}
    for key, delta in found.items():
        for target in architecture.locate(key.removesuffix(".weight"), layout, "comfyui"):
            whole = rebuilt[f"diffusion_model.{target.path}.weight"]
            start, stop, of = (n * whole.shape[0] // target.rows[2] for n in target.rows)
            assert of == whole.shape[0]
            first, last, _ = (n * delta.shape[0] // target.source[2] for n in target.source)
            whole[start:stop] = delta[first:last]
    for key, delta in expected.items():
        assert float((rebuilt[key] - delta).norm() / delta.norm()) < 2e-6


def test_there_are_golden_files():
    assert len(FILES) == 6
