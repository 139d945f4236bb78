"""Models of no family that is known here: adapters go onto them by the checkpoint's own names, in every command."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from lyco_testing.own_names import OWN_NAMES
from lyco_testing.tables import WRITERS, lora, random
from safetensors.torch import load_file, save_file
from torch import Tensor

import lyco_core as lyco
from lyco_core.cli import main
from lyco_core.formats import parse
from lyco_core.model import Model

SHAPES = {
    **{
        f"trunk.{n}.{name}": shape
        for n in range(2)
        for name, shape in {
            "mixer_a.in_proj": (48, 16),
            "mixer_a.out": (16, 16),
            "gate_up": (64, 16),
            "conv": (8, 16, 3),
        }.items()
    },
    "head.to_pixels": (12, 16),
}
"""Weights of a model that nobody has: module -> shape. Fused ones, and names that have underscores of their own."""

PREFIXES = ("", "diffusion_model.", "model.diffusion_model.", "model.model.", "net.", "model.", "transformer.")
"""What ComfyUI's loader takes off, and diffusers' pipelines put before."""

SPELLINGS: dict[str, Callable[[str], str]] = {
    "lora_unet_": lambda path: "lora_unet_" + path.replace(".", "_"),
    "lora_transformer_": lambda path: "lora_transformer_" + path.replace(".", "_"),
    "lycoris_": lambda path: "lycoris_" + path.replace(".", "_"),
    "diffusion_model.": "diffusion_model.{}".format,
    "transformer.": "transformer.{}".format,
    "base_model.model.": "base_model.model.{}".format,
    "bare": str,
}
"""How trainers write a module's name."""


def checkpoint(folder: Path, prefix: str, more: Mapping[str, Tensor] = {}) -> Path:
    torch.manual_seed(0)
    weights = {f"{prefix}{path}.weight": torch.randn(shape) for path, shape in SHAPES.items()}
    weights |= {f"{prefix}{path}.bias": torch.randn(shape[0]) for path, shape in SHAPES.items()}
    path = folder / "model.safetensors"
    save_file(weights | dict(more), path)
    return path


def adapter(folder: Path, spelled: Callable[[str], str]) -> tuple[Path, dict[str, Tensor]]:
    """A file with a LoRA on every weight, and the change of each by its module."""
    torch.manual_seed(1)
    tensors: dict[str, Tensor] = {}
    changes: dict[str, Tensor] = {}
    for path, (rows, *columns) in SHAPES.items():
        up, down = torch.randn(rows, 2), torch.randn(2, *columns)
        if len(columns) > 1:
            up = up[:, :, None]
        tensors |= {
            f"{spelled(path)}.lora_up.weight": up,
            f"{spelled(path)}.lora_down.weight": down,
            f"{spelled(path)}.alpha": torch.tensor(1.0),
        }
        changes[path] = 0.5 * (up.flatten(1) @ down.flatten(1)).reshape(rows, *columns)
    file = folder / "adapter.safetensors"
    save_file(tensors, file)
    return file, changes


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_command_places_it(prefix: str, spelling: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    base = checkpoint(tmp_path, prefix, {"first_stage.decoder.weight": torch.ones(3, 3)})
    file, changes = adapter(tmp_path, SPELLINGS[spelling])
    before = load_file(base)

    assert main(["inspect", str(file), "--model", str(base)]) == 0
    assert f"{len(SHAPES)} of {len(SHAPES)} modules on {len(SHAPES)} weights" in (out := capsys.readouterr().out)
    assert f"{len(SHAPES)} of them by the model's own names" in out

    merged = tmp_path / "merged.safetensors"
    assert main(["merge", "--base", str(base), "--adapter", f"{file}@0.5", "-o", str(merged)]) == 0
    after = load_file(merged)
    assert after.keys() == before.keys()
    for path, change in changes.items():
        key = f"{prefix}{path}.weight"
        assert torch.allclose(after.pop(key), before.pop(key) + 0.5 * change, atol=1e-6)
    assert all(torch.equal(after[key], before[key]) for key in before)

    delta = tmp_path / "delta.safetensors"
    assert main(["delta", str(file), "-o", str(delta), "--model", str(base)]) == 0
    assert "names of model.safetensors" in capsys.readouterr().out
    found = load_file(delta)
    assert found.keys() == {f"{prefix}{path}.weight" for path in changes}
    assert all(torch.allclose(found[f"{prefix}{path}.weight"], change, atol=1e-6) for path, change in changes.items())


@pytest.mark.parametrize("algorithm", ["lora", "lokr"])
@pytest.mark.parametrize("spelling", ["diffusion_model.", "lora_unet_", "bare"])
@pytest.mark.parametrize("model", OWN_NAMES)
def test_comfyuis_models_without_a_table(model: str, spelling: str, algorithm: str, tmp_path: Path):
    """Each module of them, by all of its rows, in what `lyco merge` writes."""
    base, file, out = (tmp_path / f"{name}.safetensors" for name in ("model", "adapter", "out"))
    torch.manual_seed(0)
    before = {f"model.diffusion_model.{path}.weight": torch.zeros(shape) for path, shape in OWN_NAMES[model].items()}
    tensors: dict[str, Tensor] = {}
    changes: dict[str, Tensor] = {}
    for path, (rows, columns) in OWN_NAMES[model].items():
        module = WRITERS[algorithm](SPELLINGS[spelling](path), rows, columns, random)
        (adapter,) = parse(module, {}).adapters.values()
        tensors, changes[path] = tensors | module, adapter.delta_weight()
    save_file(before, base)
    save_file(tensors, file)
    assert Model.of(before).architecture is None
    assert main(["merge", "--base", str(base), "--adapter", str(file), "-o", str(out)]) == 0
    after = load_file(out)
    assert after.keys() == before.keys()
    for path, change in changes.items():
        assert torch.allclose(after[f"model.diffusion_model.{path}.weight"], change, atol=1e-6)


def test_the_library_takes_a_model_too(tmp_path: Path):
    base = checkpoint(tmp_path, "net.")
    file, changes = adapter(tmp_path, SPELLINGS["lora_unet_"])
    for model in (base, Model.of(load_file(base))):
        found = lyco.delta(file, model=model)
        assert all(torch.allclose(found[f"net.{path}.weight"], change, atol=1e-6) for path, change in changes.items())


def test_names_as_the_checkpoint_has_them_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A trainer that loads the file as it is writes what ComfyUI takes off too."""
    base = checkpoint(tmp_path, "net.")
    file, _ = adapter(tmp_path, lambda path: "lora_unet_net_" + path.replace(".", "_"))
    assert main(["inspect", str(file), "--model", str(base), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["matched"] == len(SHAPES)


def test_a_few_names_with_net_are_the_models_own():
    """ComfyUI takes `net.` for a prefix where more than five keys have it."""
    assert Model.of({"net.a.weight": (2, 2), "body.a.weight": (2, 2)}).prefix == ""
    assert Model.of({f"net.{n}.weight": (2, 2) for n in range(6)}).prefix == "net."


def test_a_known_family_under_what_comfyui_takes_off():
    shapes = {
        f"net.layers.{n}.attention.{name}.weight": shape
        for n in range(3)
        for name, shape in {"qkv": (192, 64), "out": (64, 64)}.items()
    }
    found = Model.of(shapes)
    assert (found.architecture and found.architecture.id, found.prefix) == ("z_image", "net.")


@pytest.mark.parametrize("command", ["inspect", "merge", "delta"])
def test_what_it_lacks_is_refused(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    base, file, out = checkpoint(tmp_path, "net."), tmp_path / "adapter.safetensors", tmp_path / "out.safetensors"
    save_file(lora("lora_unet_elsewhere_0", 8, 8, random), file)
    arguments = {
        "inspect": ["inspect", str(file), "--model", str(base)],
        "merge": ["merge", "--base", str(base), "--adapter", str(file), "-o", str(out)],
        "delta": ["delta", str(file), "-o", str(out), "--model", str(base)],
    }[command]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert {
        "inspect": "nothing of it has a place in model.safetensors, a model of no known family",
        "merge": "none of its modules (lora_unet_elsewhere_0) is in model.safetensors, a model of no known family (",
        "delta": "1 of 1 modules are not in the model (lora_unet_elsewhere_0)",
    }[command] in error
    assert not out.exists()


def test_one_module_more_than_it_has_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    base = checkpoint(tmp_path, "")
    file, _ = adapter(tmp_path, str)
    save_file(load_file(file) | lora("trunk.7.gate_up", 64, 16, random), file)
    out = tmp_path / "out.safetensors"
    command = ["merge", "--base", str(base), "--adapter", str(file), "-o", str(out)]
    assert main(command) == 1
    assert f"1 of {len(SHAPES) + 1} modules are not in the model (trunk.7.gate_up)" in capsys.readouterr().err
    assert main([*command, "--on-partial-match", "warn"]) == 0


def test_one_of_another_shape_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    base, file = checkpoint(tmp_path, ""), tmp_path / "adapter.safetensors"
    save_file(lora("trunk.0.gate_up", 64, 15, random), file)
    assert main(["merge", "--base", str(base), "--adapter", str(file), "-o", str(tmp_path / "out.safetensors")]) == 1
    assert "the model's weight is [64, 16], the adapter's [64, 15]" in capsys.readouterr().err


def test_two_weights_of_one_underscored_name_are_no_guess(tmp_path: Path):
    shapes = {"a.b_c.weight": (8, 8), "a_b.c.weight": (8, 8)}
    found = Model.of(shapes).place(parse(lora("lora_unet_a_b_c", 8, 8, random), {}))
    assert found.homeless == ("a_b_c",)
    dotted = Model.of(shapes).place(parse(lora("diffusion_model.a.b_c", 8, 8, random), {}))
    assert [p.key for p in dotted.placed] == ["a.b_c.weight"]
