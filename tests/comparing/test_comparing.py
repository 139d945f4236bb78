"""How large changes are, and how two lie to each other: against the changes themselves in float64."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from lyco_testing.tables import WRITERS, random
from lyco_testing.zoo import CASES, Case
from safetensors.torch import save_file

import lyco_core as lyco
from lyco_core.adapters import Additive, LoHa, LoRA
from lyco_core.cli import main
from lyco_core.comparing import compare_files, hadamard, weigh_file
from lyco_core.comparing.inner import inner, overlap, size
from lyco_core.comparing.modules import block_of, kind_of
from lyco_core.merging import Source

Q, K, FFN = (
    "diffusion_model.blocks.0.self_attn.q",
    "diffusion_model.blocks.1.self_attn.k",
    "diffusion_model.blocks.0.ffn.0",
)
SHAPES = {Q: (64, 64), K: (64, 64), FFN: (160, 64)}


def write(path: Path, algorithm: str, modules: dict[str, tuple[int, int]] = SHAPES, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    tensors = {}
    for name, shape in modules.items():
        tensors |= WRITERS[algorithm](name, *shape, random)
    save_file(tensors, path)
    return path


def deltas(path: Path) -> dict[str, torch.Tensor]:
    return {key: delta.double() for key, delta in lyco.delta(path).items()}


@pytest.mark.parametrize("case", [case for case in CASES if isinstance(case.make(), Additive)], ids=lambda c: c.name)
def test_of_every_form(case: Case):
    """Alone, and with a LoRA and one of its own kind."""
    one = case.make()
    torch.manual_seed(8)
    other = one.with_tensors({name: torch.randn_like(t.float()).to(t) for name, t in one.tensors.items()})
    assert isinstance(one, Additive)
    assert isinstance(other, Additive)
    changes = [adapter.delta_weight(torch.float64) for adapter in (one, other)]
    assert size(one, case.name) == pytest.approx(float(changes[0].norm()), rel=1e-6)
    scale = float(changes[0].norm() * changes[1].norm())
    assert inner(one, other) == pytest.approx(float((changes[0] * changes[1]).sum()), abs=1e-6 * scale)
    if len(one.shape) > 1:
        rows, columns = one.flat_shape
        lora = LoRA(torch.randn(rows, 3), torch.randn(3, columns), alpha=1.5)
        delta = lora.delta_weight(torch.float64)
        expected = float((changes[0].reshape(rows, columns) * delta).sum())
        for a, b in itertools.permutations((one, lora)):
            assert inner(a, b) == pytest.approx(expected, abs=1e-6 * float(changes[0].norm() * delta.norm()))


@pytest.mark.parametrize(("rank", "way"), [(4, "pairs"), (9, "pairs"), (40, "bands")])
def test_a_loha_by_the_cheaper_way(rank: int, way: str, monkeypatch: pytest.MonkeyPatch):
    """Stored in bfloat16, as files are; by either way it is exact, and the other one is not taken."""
    torch.manual_seed(4)
    shapes = ((700, rank), (rank, 1200)) * 2
    loha = LoHa(*(torch.randn(shape).to(torch.bfloat16) for shape in shapes), alpha=3.0)
    delta = loha.delta_weight(torch.float64)
    monkeypatch.delattr(hadamard, f"_by_{'bands' if way == 'pairs' else 'pairs'}")
    assert size(loha, "m") == pytest.approx(float(delta.norm()), rel=1e-6)


def test_a_loha_whose_terms_cancel():
    """Pairs of ranks that all but cancel leave nothing of float32's digits: it is built instead."""
    torch.manual_seed(5)
    w1_a, w1_b, a, b = torch.randn(300, 1), torch.randn(1, 400), torch.randn(300, 2), torch.randn(2, 400)
    loha = LoHa(torch.cat([w1_a, w1_a * (1 + 2**-10)], 1), torch.cat([w1_b, -w1_b]), a, b)
    assert size(loha, "m") == pytest.approx(float(loha.delta_weight(torch.float64).norm()), rel=1e-4)


def test_spaces():
    a = LoRA(torch.eye(40)[:, :4], torch.eye(48)[:4])
    half = LoRA(torch.eye(40)[:, 2:6], torch.eye(48)[:4])
    assert overlap(a, a) == pytest.approx((1, 1))
    assert overlap(a, half) == pytest.approx((1, 0.5))
    within = LoRA(torch.eye(40)[:, :2], torch.eye(48)[1:3])
    assert overlap(within, a) == pytest.approx((1, 1))
    repeated = LoRA(torch.eye(40)[:, [0, 0, 6, 6]], torch.eye(48)[:4])
    assert overlap(a, repeated) == pytest.approx((1, 0.5))  # of rank 2, one of them shared
    full = LoRA(torch.randn(40, 30), torch.randn(30, 48))
    assert overlap(a, full) is None


@pytest.mark.parametrize("algorithm", sorted(WRITERS))
def test_a_file_weighed(algorithm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write(tmp_path / "a.safetensors", algorithm)
    whole = deltas(path)
    found = weigh_file(path)
    assert {f"diffusion_model.{m.path}.weight": m.norm for m in found.modules} == {
        key: pytest.approx(float(delta.norm()), rel=1e-5) for key, delta in whole.items()
    }
    assert found.norm == pytest.approx(math.hypot(*(float(d.norm()) for d in whole.values())), rel=1e-5)
    assert main(["inspect", str(path), "--weights"]) == 0
    said = capsys.readouterr().out
    assert "in all of 3 modules" in said
    assert "blocks.*.self_attn.q" in said
    assert "blocks.0" in said
    assert main(["inspect", str(path), "--weights", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weights"]["norm"] == pytest.approx(found.norm)


def test_beside_the_models_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write(tmp_path / "a.safetensors", "lokr")
    torch.manual_seed(5)
    model = {f"{name}.weight": random(*shape) for name, shape in SHAPES.items()}
    save_file(model, tmp_path / "model.safetensors")
    found = weigh_file(path, tmp_path / "model.safetensors", architecture="wan")
    assert {f"diffusion_model.{m.path}.weight": m.whole for m in found.modules} == {
        key: pytest.approx(float(weight.double().norm()), rel=1e-6) for key, weight in model.items()
    }
    assert "of W" in "\n".join(found.lines())


@pytest.mark.parametrize(("one", "other"), [*itertools.combinations_with_replacement(sorted(WRITERS), 2)])
def test_two_files(one: str, other: str, tmp_path: Path):
    first = write(tmp_path / "a.safetensors", one)
    second = write(tmp_path / "b.safetensors", other, {Q: SHAPES[Q], FFN: SHAPES[FFN]}, seed=1)
    found = compare_files(Source(first), Source(second, -0.5))
    a, b = deltas(first), {key: -0.5 * delta for key, delta in deltas(second).items()}
    product = sum(float((a[key] * b[key]).sum()) for key in b)
    sizes = [math.hypot(*(float(d.norm()) for d in whole.values())) for whole in (a, b)]
    together = math.hypot(*(float((delta + b.get(key, 0)).norm()) for key, delta in a.items()))
    assert found.norms == pytest.approx((*sizes, together), rel=1e-5)
    assert found.cosine == pytest.approx(product / sizes[0] / sizes[1], abs=1e-5)
    assert found.balanced == pytest.approx(max(sizes) / together, rel=1e-5)
    assert len(found.both) == 2
    assert "both change 2 weights, A alone 1, B alone 0" in found.lines()


def test_against_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write(tmp_path / "a.safetensors", "lora")
    assert main(["compare", str(path), f"{path}@-1"]) == 0
    said = capsys.readouterr().out
    assert "cosine -1.000" in said
    assert "as strong as" not in said  # nothing is left
    assert "they pull against each other (cosine below -0.1) in 3 weights" in said
    assert main(["compare", str(path), str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cosine"] == pytest.approx(1)
    assert found["balanced"] == pytest.approx(0.5)
    assert found["modules"]["blocks.0.self_attn.q"]["writes"] == pytest.approx(1)


def test_what_depends_on_the_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A DoRA is compared by what it changes of the base; without one it is said."""
    torch.manual_seed(2)
    up, down, magnitude = random(64, 4), random(4, 64), random(64, 1).abs() + 1
    dora = {f"{Q}.lora_up.weight": up, f"{Q}.lora_down.weight": down, f"{Q}.dora_scale": magnitude}
    path = tmp_path / "dora.safetensors"
    save_file(dora | WRITERS["lora"](K, 64, 64, random), path)
    weights = {f"{name}.weight": random(*shape) for name, shape in SHAPES.items()}
    base = tmp_path / "base.safetensors"
    save_file(weights, base)
    found = weigh_file(path, architecture="wan")
    assert (len(found.modules), found.left_out) == (1, 1)
    assert "1 module is not weighed: " in "\n".join(found.lines())
    expected = {k: float(d.double().norm()) for k, d in lyco.delta(path, model=base, architecture="wan").items()}
    weighed = weigh_file(path, base, architecture="wan")
    assert {f"diffusion_model.{m.path}.weight": m.norm for m in weighed.modules} == pytest.approx(expected, rel=1e-5)
    compared = compare_files(Source(path), Source(path), base=base, architecture="wan")
    assert compared.cosine == pytest.approx(1)
    assert compared.norms[0] == pytest.approx(math.hypot(*expected.values()), rel=1e-5)
    save_file(dora, path)
    assert main(["compare", str(path), str(path), "--architecture", "wan"]) == 1
    assert "give the checkpoint that they were trained on with --base" in capsys.readouterr().err


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = write(tmp_path / "a.safetensors", "lora")
    other = write(tmp_path / "b.safetensors", "lora", {"lora_unet_double_blocks_0_img_attn_qkv": (192, 64)})
    wide = write(tmp_path / "c.safetensors", "lora", {Q: (32, 32), FFN: (80, 32), K: (32, 32)})
    for arguments, said in [
        (["compare", str(path), f"{path}@0"], "a strength is 0"),
        (["compare", str(path), str(other)], "give adapters of one model family"),
        (["compare", str(path), str(wide)], "they are for models of two sizes"),
        (["compare", str(path), str(tmp_path / "gone.safetensors")], "gone.safetensors"),
        (["inspect", str(path), str(path), "--weights"], "--weights is of one file"),
    ]:
        assert main(arguments) == 1
        assert said in capsys.readouterr().err


def test_names():
    assert kind_of("double_blocks.3.img_attn.qkv") == "double_blocks.*.img_attn.qkv"
    assert kind_of("blocks.0.ffn.0") == "blocks.*.ffn.0"
    assert kind_of("down_blocks.1.attentions.0.proj_in") == "down_blocks.*.attentions.*.proj_in"
    assert block_of("blocks.12.ffn.0") == "blocks.12"
    assert block_of("time_in.in_layer") == "outside of blocks"
