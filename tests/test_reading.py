"""A file is opened once: told by its header, refused by that alone where it must be, then filled with its numbers."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lyco_testing.tables import GOLDEN, lora, musubi_file, random
from lyco_testing.trainers import TRAINERS, file_of
from safetensors.torch import save_file
from torch import Tensor

from lyco_core.adapter_file import AdapterFile
from lyco_core.adapter_reader import load_adapter_set
from lyco_core.adapter_set import AdapterSet
from lyco_core.adapters import is_outline
from lyco_core.architectures import detect, identify
from lyco_core.cli import main
from lyco_core.delta_weights import write_delta
from lyco_core.errors import AdapterError, ArchitectureError, FormatError, LycoError
from lyco_core.inspection import inspect_file
from lyco_core.io import SafetensorsFile
from lyco_core.io.header import Header
from lyco_core.merging import Source, merge_checkpoint
from lyco_core.placement import place

Tensors = dict[str, Tensor]
WRITTEN = [(t, a) for t in TRAINERS for a in t.algorithms]
WAN = GOLDEN / "wan_t2v" / "lora.safetensors"


def filled(path: Path) -> AdapterSet:
    with AdapterFile(path) as file:
        outline = identify(file.outline, architecture="wan")
        assert all(is_outline(adapter) for adapter in outline.adapters.values())
        return file.read(outline)


def assert_same(found: AdapterSet, expected: AdapterSet) -> None:
    assert list(found.adapters) == list(expected.adapters)
    for path, adapter in expected.adapters.items():
        mine = found.adapters[path]
        assert (type(mine), mine.alpha, mine.tensors.keys()) == (type(adapter), adapter.alpha, adapter.tensors.keys())
        assert all(torch.equal(mine.tensors[name], tensor) for name, tensor in adapter.tensors.items())
    for field in ("prefixes", "metadata", "foreign", "idle", "exceptions", "names"):
        assert dict(getattr(found, field)) == dict(getattr(expected, field)), field
    assert (found.architecture, found.layout, found.format) == (expected.architecture, expected.layout, expected.format)
    for field in ("alpha_tensors", "unrecognised"):
        mine, theirs = getattr(found, field), getattr(expected, field)
        assert list(mine) == list(theirs)
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize(("trainer", "algorithm"), WRITTEN, ids=lambda c: c if isinstance(c, str) else c.title)
def test_a_filled_outline_is_the_file(trainer, algorithm: str, tmp_path: Path):
    torch.manual_seed(0)
    names = {"musubi": "self_attn.{}", "comfyui": "self_attn.{}", "diffusers": "attn1.to_{}"}[trainer.layout]
    modules = {f"blocks.{n}.{names.format(x)}": (1536, 1536) for n in range(2) for x in "qkv"}
    tensors = file_of(trainer, algorithm, modules)
    tensors = {key: torch.randn(t.shape) if t.is_meta else t for key, t in tensors.items()}
    tensors |= {"lokr_factor": torch.tensor(4), "nobody.knows": torch.ones(2)}
    save_file(tensors, tmp_path / "a.safetensors", {"note": "x"})
    expected = load_adapter_set(tmp_path / "a.safetensors", architecture="wan")
    assert len(expected.adapters) in (6, 12)
    assert expected.unrecognised
    assert_same(filled(tmp_path / "a.safetensors"), expected)
    with AdapterFile(tmp_path / "a.safetensors") as file:
        outline = identify(file.outline, architecture="wan")
    assert_same(
        dataclasses.replace(outline, adapters=file.on_demand(outline), unrecognised=expected.unrecognised), expected
    )


def _told_twice(first: float, second: float) -> Tensors:
    """Two blocks' output under two prefixes each, with alphas of their own."""
    torch.manual_seed(0)
    factors = torch.randn(1536, 2), torch.randn(2, 1536)
    made: Tensors = {}
    for n in range(2):
        for prefix, size, alpha in (("diffusion_model", first, 2.0), ("transformer", second, 1.0)):
            name = f"{prefix}.blocks.{n}.self_attn.o"
            made[f"{name}.lora_up.weight"], made[f"{name}.lora_down.weight"] = factors[0] * size, factors[1].clone()
            made[f"{name}.alpha"] = torch.tensor(alpha)
    return made


def _under_two_layouts(first: float, second: float) -> Tensors:
    """The same module under ComfyUI's name and under diffusers'."""
    twice = _told_twice(first, second)
    renamed = {key.replace("transformer.", "diffusion_model.").replace("self_attn.o", "attn1.to_out.0"): t
               for key, t in twice.items() if key.startswith("transformer")}  # fmt: skip
    plain = {key: t for key, t in twice.items() if key.startswith("diffusion_model")}
    more = {f"diffusion_model.blocks.{n}.self_attn.{x}.lora_{w}.weight": torch.randn(s)
            for n in range(2) for x in "qkv" for w, s in (("up", (1536, 2)), ("down", (2, 1536)))}  # fmt: skip
    return plain | renamed | more


@pytest.mark.parametrize("make", [_told_twice, _under_two_layouts])
@pytest.mark.parametrize(("first", "second"), [(1.0, 2.0), (0.0, 1.0), (1.0, 0.0)])
def test_numbers_decide_which_of_two_modules_counts(
    make: Callable[[float, float], Tensors], first: float, second: float, tmp_path: Path
):
    """alpha 2 of the one and twice the factor at alpha 1 of the other are one change."""
    save_file(make(first, second), tmp_path / "a.safetensors")
    found = filled(tmp_path / "a.safetensors")
    expected = load_adapter_set(tmp_path / "a.safetensors", architecture="wan")
    assert_same(found, expected)
    placement = place(found).require_complete()
    assert_same(placement.adapter_set, place(expected).adapter_set)
    assert len(placement.adapter_set.idle) == 2
    (counted,) = (p for p in placement.placed if p.key == "diffusion_model.blocks.0.self_attn.o.weight")
    if not (first and second):  # else either will do
        assert placement.part(counted).alpha == (2.0 if first else 1.0)


@pytest.mark.parametrize("make", [_told_twice, _under_two_layouts])
def test_numbers_that_contradict_each_other_are_refused_when_they_are_read(make, tmp_path: Path):
    save_file(make(1.0, 3.0), tmp_path / "a.safetensors")
    with AdapterFile(tmp_path / "a.safetensors") as file:
        outline = identify(file.outline, architecture="wan")
        place(outline)
        with pytest.raises(AdapterError, match=r"the same module is there twice|both change .*, and not alike"):
            place(file.read(outline))


def test_an_outline_of_other_names_is_not_used(tmp_path: Path):
    """A host renames keys when it reads them; then the architecture is told anew."""
    save_file(musubi_file({"blocks.0.self_attn.q": (1536, 1536)}, "lora", random), tmp_path / "a.safetensors")

    def rename(tensors: Tensors) -> Tensors:
        return {key.replace("self_attn_q", "self_attn_k"): tensor for key, tensor in tensors.items()}

    with AdapterFile(tmp_path / "a.safetensors") as file:
        found = file.read(identify(file.outline, architecture="wan"), rename)
    assert (list(found.adapters), found.architecture) == (["blocks_0_self_attn_k"], None)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often a header was read, and the families looked through for modules."""
    counts = {"headers": 0, "readings": 0}
    read_header, readings = SafetensorsFile._read_header, detect._told

    def counting_header(self: SafetensorsFile, file) -> Header:
        counts["headers"] += 1
        return read_header(self, file)

    def counting_readings(*args, **options):
        counts["readings"] += 1
        return readings(*args, **options)

    monkeypatch.setattr(SafetensorsFile, "_read_header", counting_header)
    monkeypatch.setattr(detect, "_told", counting_readings)
    return counts


def base_for(adapter: Path, folder: Path) -> Path:
    from safetensors.torch import load_file

    deltas = load_file(adapter.with_suffix(".expected.safetensors"))
    save_file({key: torch.zeros(delta.shape) for key, delta in deltas.items()}, folder / "base.safetensors")
    return folder / "base.safetensors"


def test_a_header_is_read_once(tmp_path: Path, counted: dict[str, int]):
    write_delta(WAN, tmp_path / "delta.safetensors")
    assert counted == {"headers": 1, "readings": 1}
    base = base_for(WAN, tmp_path)
    counted.update(headers=0, readings=0)
    merge_checkpoint(base, [Source(str(WAN))], tmp_path / "merged.safetensors")
    assert counted == {"headers": 2, "readings": 1}  # the base's too
    counted.update(headers=0, readings=0)
    inspect_file(WAN, base)
    assert counted == {"headers": 2, "readings": 1}
    counted.update(headers=0, readings=0)
    assert main(["inspect", str(WAN), str(WAN), "--model", str(base)]) == 0
    assert counted == {"headers": 3, "readings": 2}  # the model's once for all


@pytest.fixture
def no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever reads more of a tensor than an alpha fails."""
    tensor = SafetensorsFile.tensor

    def numbers_only(self: SafetensorsFile, key: str) -> Tensor:
        assert self.header.tensors[key].bytes <= 8, f"{key} was read"
        return tensor(self, key)

    monkeypatch.setattr(SafetensorsFile, "tensor", numbers_only)


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        ({"a.weight": torch.ones(4)}, FormatError, r"a\.safetensors: holds no adapter; found keys like a\.weight"),
        (lora("lora_unet_who_knows", 4, 4, random), ArchitectureError, r"its modules are of no known architecture"),
        ({"lora_unet_blocks_0_self_attn_q.lora_up.weight": torch.ones(4, 2)}, AdapterError, r"down missing"),
        (
            musubi_file({"blocks.0.self_attn.q": (1536, 1536), "blocks.0.who": (4, 4)}, "lora", random),
            ArchitectureError,
            r"Wan 2.1/2.2 comes nearest, but it has blocks_0_who, which Wan 2.1/2.2 has not; say which",
        ),
    ],
)
def test_a_header_is_refused_before_numbers_are_read(
    tensors: Tensors, error: type[LycoError], message: str, tmp_path: Path, request: pytest.FixtureRequest
):
    save_file(tensors, tmp_path / "a.safetensors")
    base = base_for(WAN, tmp_path)
    request.getfixturevalue("no_numbers")
    with pytest.raises(error, match=message):
        write_delta(tmp_path / "a.safetensors", tmp_path / "delta.safetensors", architecture=None)
    with pytest.raises(LycoError, match=r"a\.safetensors: "):
        merge_checkpoint(base, [Source(str(tmp_path / "a.safetensors"))], tmp_path / "merged.safetensors")
