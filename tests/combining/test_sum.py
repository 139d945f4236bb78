"""The sum of adapters in one file: what loading all of them does, in every algorithm, format and trained family."""

import re
from pathlib import Path

import pytest
import torch
from lyco_testing.tables import ARCHITECTURE_OF, WRITERS, musubi_file, random, targets
from lyco_testing.zoo import CASES, Case
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import lyco_core as lyco
from lyco_core.adapters import Full, LoHa, LoKr, LoRA
from lyco_core.combining.exact import cancels, summed
from lyco_core.combining.options import selections
from lyco_core.errors import LycoError
from lyco_core.selection import Selection

EXACT = 2e-6
Q, K, FFN = "blocks.0.self_attn.q", "blocks.0.self_attn.k", "blocks.0.ffn.0"
SHAPES = {Q: (64, 64), K: (64, 64), FFN: (160, 64)}


TRAINED = {family: model for model, family in ARCHITECTURE_OF.items()}
"""Family -> a model of it."""
SMALLER = 32
"""So many times: a family tells a toy by its proportions."""


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double().reshape(expected.shape) - expected).norm() / expected.norm())


def write(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Path:
    save_file(tensors, path, metadata)
    return path


def sums(*files: tuple[Path, float], **options) -> dict[str, torch.Tensor]:
    """What all of the files add to each weight, in float64."""
    total: dict[str, torch.Tensor] = {}
    for path, strength in files:
        for key, delta in lyco.delta(path, **options).items():
            total[key] = total.get(key, 0) + strength * delta.double()
    return total


def require_equal(found: Path, *files: tuple[Path, float], error: float = EXACT, **options) -> None:
    expected, made = sums(*files, **options), lyco.delta(found, **options)
    assert made.keys() == expected.keys()
    for key, delta in expected.items():
        assert relative(made[key], delta) < error, key


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_form_with_itself_and_with_a_difference(case: Case):
    """One of other numbers, at other strengths."""
    adapter = case.make()
    torch.manual_seed(3)
    other = adapter.with_tensors({name: torch.randn_like(t) for name, t in adapter.tensors.items()})
    difference = Full(torch.randn(adapter.shape))
    for parts in ([adapter, other], [adapter, other, difference], [adapter, adapter]):
        expected = sum(p.diff.double() if p is difference else case.dense(p) for p in parts)
        for dense in (True, False):
            made = summed(parts, dense=dense)
            assert relative(made.delta_weight(torch.float64), expected) < EXACT
            assert made.shape == adapter.shape or made.flat_shape == adapter.flat_shape


def rank(n: int, rows: int = 96, columns: int = 80, alpha: float | None = None) -> LoRA:
    return LoRA(torch.randn(rows, n), torch.randn(n, columns), alpha=alpha)


def test_loras_stack_by_rank_in_their_own_dtype():
    torch.manual_seed(0)
    parts = [rank(3, alpha=3.0).to(dtype=torch.bfloat16), rank(5, alpha=2.5).to(dtype=torch.bfloat16), rank(1)]
    made = summed(parts[:2])
    assert (type(made), made.rank, made.dtype) == (LoRA, 8, torch.bfloat16), "scales 1 and 1/2: nothing is rounded"
    assert (
        torch.equal(made.delta_weight(torch.float64), sum(p.delta_weight(torch.float64) for p in parts[:2]))
        or relative(made.delta_weight(torch.float64), sum(p.delta_weight(torch.float64) for p in parts[:2])) < 1e-14
    )
    assert summed(parts).rank == 9


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("shared", ["w1", "w2"])
def test_lokr_with_a_common_factor_stay_lokr(shared: str, full: bool):
    torch.manual_seed(1)

    def made(n: float) -> LoKr:
        second = {"w2": torch.randn(24, 20)} if full else {"w2_a": torch.randn(24, 2), "w2_b": torch.randn(2, 20)}
        return LoKr(w1=torch.randn(4, 4), **second, alpha=n)

    first, second = made(2.0), made(3.0)
    names = ["w1"] if shared == "w1" else ["w2", "w2_a", "w2_b"]
    second = second.with_tensors({name: t for name, t in first.tensors.items() if name in names})
    found = summed([first, second])
    assert isinstance(found, LoKr)
    assert found.shape1 == first.shape1
    expected = sum(part.delta_weight(torch.float64) for part in (first, second))
    assert relative(found.delta_weight(torch.float64), expected) < EXACT
    others = summed([first, made(1.0)])
    assert type(others) is (Full if full else LoRA), "none in common: the smaller of the two that hold it"


def test_loha_with_a_common_half_stay_loha():
    torch.manual_seed(2)
    half = torch.randn(96, 3), torch.randn(3, 80)
    own = [(torch.randn(96, 3), torch.randn(3, 80)) for _ in range(2)]
    for pair in ([LoHa(*half, *o, alpha=2.0) for o in own], [LoHa(*o, *half, alpha=n) for n, o in enumerate(own, 1)]):
        found = summed(pair)
        assert isinstance(found, LoHa)
        assert found.rank == 6
        expected = sum(part.delta_weight(torch.float64) for part in pair)
        assert relative(found.delta_weight(torch.float64), expected) < EXACT
    assert type(summed([LoHa(*half, *own[0]), LoHa(*own[1], *own[0][::1])])) is LoHa
    assert type(summed([LoHa(*half, *own[0]), LoHa(*own[1], torch.randn(96, 3), torch.randn(3, 80))])) is LoRA


def test_what_cancels_is_known():
    torch.manual_seed(4)
    one = rank(3)
    assert cancels(summed([one, LoRA(-one.up, one.down)]))
    assert cancels(summed([one, LoRA(one.up / 3, one.down), LoRA(one.up * -4 / 3, one.down)]))
    assert not cancels(summed([one, LoRA(-one.up * 0.999, one.down)]))
    lokr = LoKr(w1=torch.randn(4, 4), w2_a=torch.randn(24, 2), w2_b=torch.randn(2, 20), alpha=2.0)
    assert cancels(summed([lokr, LoKr(w1=lokr.w1, w2_a=-lokr.w2_a, w2_b=lokr.w2_b, alpha=2.0)]))


@pytest.mark.parametrize("model", TRAINED.values(), ids=TRAINED)
def test_every_trained_family(model: str, tmp_path: Path):
    """A LoRA, a LoHa and a LoKr, each of which has one module that the others have not."""
    torch.manual_seed(5)
    widths = {path: (rows // SMALLER, columns // SMALLER) for path, (rows, columns) in targets(model).items()}
    smallest = sorted(widths.items(), key=lambda item: item[1][0] * item[1][1])[:4]
    files: list[tuple[Path, float]] = []
    for n, algorithm in enumerate(WRITERS):
        modules = dict(smallest[:1] + smallest[1 + n : 2 + n])
        path = write(tmp_path / f"{algorithm}.safetensors", musubi_file(modules, algorithm, random))
        files.append((path, (0.8, -0.35, 1.0)[n]))
    family = ARCHITECTURE_OF[model]
    out = tmp_path / "out.safetensors"
    made = lyco.combine(dict(files), out, architecture=family)
    require_equal(out, *files, architecture=family)
    assert ", exact" in made.lines()[3]
    assert all(key.startswith("lora_unet_") for key in load_file(out))


@pytest.mark.parametrize("to", ["musubi", "comfyui", "diffusers", None])
def test_formats_and_layouts_mix_and_the_result_has_the_firsts_or_what_is_said(to, tmp_path: Path):
    torch.manual_seed(6)
    source = write(tmp_path / "musubi.safetensors", musubi_file(SHAPES, "lokr", random))
    lyco.convert(
        write(tmp_path / "b.safetensors", musubi_file(SHAPES, "lora", random)),
        tmp_path / "d.safetensors",
        to="diffusers",
    )
    files = [(tmp_path / "d.safetensors", 0.5), (source, 1.0)]
    made = lyco.combine(dict(files), tmp_path / "out.safetensors", to=to)
    require_equal(tmp_path / "out.safetensors", *files)
    assert made.adapter_set.format.id == (to or "diffusers")


def test_strength_include_exclude_and_block_strengths_are_each_files_own(tmp_path: Path):
    torch.manual_seed(7)
    one = write(tmp_path / "a.safetensors", musubi_file(SHAPES, "lora", random))
    two = write(tmp_path / "b.safetensors", musubi_file(SHAPES, "lokr", random))
    chosen = {one: Selection.of(exclude=[r".*ffn.*"]), two: Selection.of(block_strengths=[(r".*self_attn\.q", 0.25)])}
    lyco.combine({one: 0.5, two: 2.0}, tmp_path / "out.safetensors", selections=chosen)
    found = lyco.delta(tmp_path / "out.safetensors")
    a, b = lyco.delta(one), lyco.delta(two)
    for key in found:
        expected = (0 if "ffn" in key else 0.5) * a[key].double() + (0.5 if ".q." in key else 2.0) * b[key].double()
        assert relative(found[key], expected) < EXACT


def test_texts_are_for_all_or_for_the_nth():
    first, second = selections(2, ["a", "2:b"], ["1:c"], [r"2:d:e=0.5"])
    assert (first.include, first.exclude, first.block_strengths) == (("a",), ("c",), ())
    assert (second.include, second.exclude, second.block_strengths) == (("a", "b"), (), (("d:e", 0.5),))
    with pytest.raises(LycoError, match="'3:x' is for adapter 3, and there are 2; expected 1 to 2"):
        selections(2, ["3:x"], [], [])


def test_text_encoders_modules_add_up_too(tmp_path: Path):
    torch.manual_seed(8)
    encoder = {"lora_te1_text_model_encoder_layers_0_mlp_fc1": (32, 16)}
    files = []
    for n, algorithm in enumerate(("lora", "loha")):
        tensors = musubi_file(SHAPES, "lora", random)
        for name, (rows, columns) in encoder.items():
            tensors |= WRITERS[algorithm](name, rows, columns, random)
        files.append((write(tmp_path / f"{n}.safetensors", tensors), (0.5, 1.5)[n]))
    made = lyco.combine(dict(files), tmp_path / "out.safetensors")
    (name,) = encoder
    path = next(path for path in made.adapter_set.adapters if "te1" in path)
    parts = [lyco.load(file).adapters[path].delta_weight(torch.float64) * strength for file, strength in files]
    found = lyco.load(tmp_path / "out.safetensors").adapters[path]
    assert relative(found.delta_weight(torch.float64), parts[0] + parts[1]) < EXACT
    with pytest.raises(LycoError, match=r"1 modules are the text encoder's \(lora_te1"):
        lyco.combine(dict(files), tmp_path / "other.safetensors", to="diffusers")
    assert not (tmp_path / "other.safetensors").exists()


def test_norms_and_biases_add_up(tmp_path: Path):
    torch.manual_seed(9)
    files = []
    for n in range(2):
        tensors = {f"diffusion_model.{Q}.diff_b": random(64), f"diffusion_model.{Q}.diff": random(64, 64)}
        files.append((write(tmp_path / f"{n}.safetensors", tensors), n + 0.5))
    lyco.combine(dict(files), tmp_path / "out.safetensors", architecture="wan")
    require_equal(tmp_path / "out.safetensors", *files, architecture="wan")


def test_the_new_files_words(tmp_path: Path):
    torch.manual_seed(10)
    tags = ['{"10_cat": {"cat": 3, "sitting": 1}}', '{"10_cat": {"cat": 2}, "dog": {"dog": 4}}']
    notes = [
        {"ss_tag_frequency": tags[0], "modelspec.trigger_phrase": "zwx cat, fur", "ss_steps": "3", "ss_v2": "False"},
        {"ss_tag_frequency": tags[1], "modelspec.trigger_phrase": "fur, dog", "ss_steps": "5", "ss_v2": "False"},
    ]
    files = [
        write(tmp_path / f"{n}.safetensors", musubi_file(SHAPES, "lora", random), note | {"ss_network_dim": "2"})
        for n, note in enumerate(notes)
    ]
    lyco.combine({files[0]: 0.75, files[1]: 1}, tmp_path / "out.safetensors")
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        found = file.metadata()
    assert found["modelspec.trigger_phrase"] == "zwx cat, fur, dog"
    assert found["ss_tag_frequency"] == '{"10_cat": {"cat": 5, "sitting": 1}, "dog": {"dog": 4}}'
    assert (found["ss_v2"], found["ss_network_dim"]) == ("False", "4")
    assert "ss_steps" not in found, "what only one of them had is not true of both"
    assert re.search(r'"name": "0.safetensors", "sha256": "[0-9a-f]{64}", "strength": 0.75', found["lyco_combination"])
