"""Other layouts: bit for bit where names change, exact where rows are cut or stacked."""

import hashlib
import json
import os
from io import BytesIO
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lyco_testing.relative import relative
from lyco_testing.tables import ARCHITECTURE_OF, GOLDEN, MODELS, musubi_file, random, targets
from lyco_testing.zoo import normal
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lyco_core.adapters import Adapter, LoHa, LoKr, LoRA
from lyco_core.adapters.stack import stacked
from lyco_core.approximate.options import Limits
from lyco_core.architectures import identify
from lyco_core.conversion import ConvertOptions, convert_file, convert_set
from lyco_core.delta_weights import delta_weights, write_delta
from lyco_core.errors import LycoError
from lyco_core.formats import emit, parse
from lyco_core.io import TensorSpec, library_order, sshs_hashes
from lyco_core.layouts import LAYOUTS, Layout
from lyco_core.placement import place

FILES = sorted(p for p in GOLDEN.glob("*/*.safetensors") if ".expected" not in p.name)
every_file = pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")


def tiny(model: str) -> dict[str, tuple[int, int]]:
    """The first block of each kind of a full-size table, an 1/48 as wide, so that all factors divide."""
    found = targets(model)
    scale = min(min(shape) for shape in found.values()) // 64
    return {
        path: (rows // scale // 4 * 4, columns // scale // 4 * 4)
        for path, (rows, columns) in found.items()
        if ".0." in path.split(".ff")[0].split(".attn")[0].split("_m")[0] + "."
    }


def parsed(tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None, **options):
    return identify(parse(tensors, metadata or {}), **options)


def deltas(tensors: dict[str, torch.Tensor], metadata: dict[str, str], architecture: str) -> dict[str, torch.Tensor]:
    return dict(delta_weights(place(parsed(tensors, metadata, architecture=architecture)).require_complete()))


@every_file
@pytest.mark.parametrize("to", LAYOUTS)
@pytest.mark.parametrize("as_lora", [False, True])
def test_golden_files_keep_their_deltas(path: Path, to: Layout, as_lora: bool, tmp_path: Path):
    out = tmp_path / "out.safetensors"
    convert_file(path, out, ConvertOptions(to, as_lora=as_lora))
    write_delta(out, tmp_path / "delta")
    expected = load_file(path.with_suffix(".expected.safetensors"))
    found = load_file(tmp_path / "delta")
    assert found.keys() == expected.keys()
    assert all(relative(found[key], delta) < 2e-6 for key, delta in expected.items())


@every_file
def test_where_only_names_change_nothing_else_does(path: Path, tmp_path: Path):
    out = tmp_path / "out.safetensors"
    conversion = convert_file(path, out, ConvertOptions("comfyui"))
    assert {m.how for m in conversion.modules} == {"renamed"}
    before, after = load_file(path), load_file(out)
    assert sorted(bytes_of(t) for t in before.values()) == sorted(bytes_of(t) for t in after.values())
    assert out.stat().st_size < path.stat().st_size * 1.1 + 2000


def bytes_of(tensor: torch.Tensor) -> bytes:
    return (
        bytes(str((tensor.dtype, tuple(tensor.shape))), "ascii")
        + tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    )


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_round_trips_give_back_the_same_tensors(data: st.DataObject):
    model = data.draw(st.sampled_from(MODELS))
    algorithm = data.draw(st.sampled_from(["lora", "loha", "lokr", "lokr-full"]))
    through: Layout = data.draw(st.sampled_from(["comfyui", "diffusers"]))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    alpha = data.draw(st.sampled_from([1.0, 2.0, 0.5, 3.0, 16.0]))
    rank = data.draw(st.integers(1, 5))
    factor = data.draw(st.sampled_from([2, 4]))
    width = data.draw(st.integers(1, 3))
    torch.manual_seed(data.draw(st.integers(0, 2**16)))
    modules = {path: (width * rows, width * columns) for path, (rows, columns) in tiny(model).items()}
    tensors = {k: t.to(dtype) for k, t in _file(modules, algorithm, rank, alpha, factor).items()}
    architecture = ARCHITECTURE_OF[model]
    there = convert_set(parsed(tensors, architecture=architecture), ConvertOptions(through))
    before, after = deltas(tensors, {}, architecture), deltas(*emit(there.adapter_set), architecture)
    assert before.keys() == after.keys()
    assert all(relative(after[key], delta) < 2e-6 for key, delta in before.items())
    scaled = through == "diffusers" and algorithm.startswith("lokr")  # no file of it has alphas
    if {m.how for m in there.modules} <= {"renamed", "cut"} and not scaled:
        back = convert_set(parsed(*emit(there.adapter_set)), ConvertOptions("musubi"))
        assert emit(back.adapter_set)[0].keys() == tensors.keys()
        assert all(bytes_of(emit(back.adapter_set)[0][k]) == bytes_of(t) for k, t in tensors.items())


def _file(
    modules: dict[str, tuple[int, int]], algorithm: str, rank: int, alpha: float, n: int
) -> dict[str, torch.Tensor]:
    made: dict[str, torch.Tensor] = {}
    for path, (rows, columns) in modules.items():
        name = "lora_unet_" + path.replace(".", "_")
        shapes = {
            "lora": {"lora_up.weight": (rows, rank), "lora_down.weight": (rank, columns)},
            "loha": {f"hada_w{i}_{x}": (rows, rank) if x == "a" else (rank, columns) for i in (1, 2) for x in "ab"},
            "lokr": {"lokr_w1": (n, n), "lokr_w2_a": (rows // n, rank), "lokr_w2_b": (rank, columns // n)},
            "lokr-full": {"lokr_w1": (n, n), "lokr_w2": (rows // n, columns // n)},
        }[algorithm]
        made |= {f"{name}.{suffix}": torch.randn(shape) for suffix, shape in shapes.items()}
        made[f"{name}.alpha"] = torch.tensor(alpha)
    return made


ORDER = ["renamed", "cut", "stacked", "as LoHa", "as LoRA"]
HOW = {
    # model: how LoRA, LoHa, LoKr (factor 4) go to comfyui | to diffusers
    "wan21_t2v_1_3b": ("renamed", "renamed", "renamed", "renamed", "renamed", "renamed"),
    "z_image": ("renamed", "renamed", "renamed", "renamed", "renamed", "renamed"),
    "qwen_image": ("renamed", "renamed", "renamed", "renamed", "renamed", "renamed"),
    "hunyuan_video_1_5": ("stacked", "stacked", "as LoHa", "renamed", "renamed", "renamed"),
    "framepack": ("stacked", "stacked", "as LoHa", "renamed", "renamed", "renamed"),
    "hunyuan_video": ("renamed", "renamed", "renamed", "cut", "cut", "as LoRA"),
    "flux1_kontext": ("renamed", "renamed", "renamed", "cut", "cut", "as LoRA"),
    "flux2_dev": ("renamed", "renamed", "renamed", "cut", "cut", "renamed"),
}


@pytest.mark.parametrize("model", HOW)
def test_what_becomes_of_each_algorithm(model: str):
    """The hardest module of each file: the others are renamed."""
    torch.manual_seed(0)
    found = []
    for to in ("comfyui", "diffusers"):
        for algorithm in ("lora", "loha", "lokr"):
            tensors = musubi_file(tiny(model), algorithm, random)
            made = convert_set(parsed(tensors, architecture=ARCHITECTURE_OF[model]), ConvertOptions(to))
            found.append(max((m.how for m in made.modules), key=ORDER.index))
    assert tuple(found) == HOW[model]


def parts_of(kind: str, shared: bool) -> list[tuple[int, Adapter]]:
    make = {
        "lora": lambda n: LoRA(normal(8, 2) + n, normal(2, 12) + n * (not shared), alpha=1.0),
        "loha": lambda n: LoHa(
            normal(8, 2) + n, normal(2, 12) + n * (not shared), normal(8, 2) - n, normal(2, 12) - n * (not shared)
        ),
        "lokr": lambda n: LoKr(w1=normal(2, 3) + n, w2=normal(4, 4) + n * (not shared)),
        "lokr-low": lambda n: LoKr(
            w1=normal(2, 3) + n, w2_a=normal(4, 1) + n * (not shared), w2_b=normal(1, 4), alpha=0.5
        ),
    }[kind]
    return [(0, make(0)), (8, make(1)), (16, make(2))]


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr", "lokr-low"])
@pytest.mark.parametrize("shared", [False, True])
def test_stacks_are_exact(kind: str, shared: bool):
    parts = parts_of(kind, shared)
    fused = stacked(parts, 24)
    assert fused is not None
    expected = torch.cat([a.delta_weight() for _, a in parts])
    assert relative(fused.delta_weight(), expected) < 1e-6
    if shared:
        assert fused.algorithm == kind.split("-")[0]
        assert fused.rank == parts[0][1].rank


@pytest.mark.parametrize("kinds", [("lora", "lokr"), ("loha", "lora"), ("lokr", "loha"), ("lora", "lora")])
def test_stacks_of_several_kinds_with_gaps_and_scales(kinds: tuple[str, str]):
    import dataclasses

    first, second = parts_of(kinds[0], False)[0][1], parts_of(kinds[1], False)[1][1]
    second = dataclasses.replace(second, alpha=3.0)
    fused = stacked([(0, first), (16, second)], 24)
    assert fused is not None
    expected = torch.cat([first.delta_weight(), torch.zeros(8, 12), second.delta_weight()])
    assert relative(fused.delta_weight(), expected) < 1e-6


def test_an_approximation_reports_the_error_that_it_made(tmp_path: Path):
    path = GOLDEN / "z_image" / "loha.safetensors"
    conversion = convert_file(path, tmp_path / "out", ConvertOptions("musubi", limits=Limits(rank=4)))
    write_delta(tmp_path / "out", tmp_path / "delta")
    expected, found = load_file(path.with_suffix(".expected.safetensors")), load_file(tmp_path / "delta")
    wrong = sum(float((found[k] - d).double().square().sum()) for k, d in expected.items())
    total = sum(float(d.double().square().sum()) for d in expected.values())
    assert conversion.report.error == pytest.approx((wrong / total) ** 0.5, rel=1e-3)
    assert f"relative error {conversion.report.error:.2e}" in conversion.summary()


def test_a_dtype_is_an_approximation_too(tmp_path: Path):
    path = GOLDEN / "z_image" / "lokr_full.safetensors"
    conversion = convert_file(path, tmp_path / "out", ConvertOptions("comfyui", dtype=torch.bfloat16))
    assert {t.dtype for t in load_file(tmp_path / "out").values()} == {torch.bfloat16}
    assert conversion.report is not None
    assert 1e-4 < conversion.report.error < 1e-2


@pytest.mark.parametrize("suffix", ["lora_up.weight", "dora_scale", "diff_b"])
def test_a_number_that_the_dtype_cannot_hold_is_refused(suffix: str, tmp_path: Path):
    torch.manual_seed(0)
    prefix = "diffusion_model.blocks.0.ffn.0"
    tensors = {f"{prefix}.lora_up.weight": random(8, 2), f"{prefix}.lora_down.weight": random(2, 6)}
    tensors |= {f"{prefix}.dora_scale": random(8, 1), f"{prefix}.diff_b": random(8)}
    tensors[f"{prefix}.{suffix}"].view(-1)[3] = -7e4
    save_file(tensors, tmp_path / "a.safetensors")
    out = tmp_path / "b.safetensors"
    with pytest.raises(
        LycoError, match=r"blocks.0.ffn.0\.\S+: its 70000 is beyond what float16 holds, 65504; store it as bf"
    ):
        convert_file(
            tmp_path / "a.safetensors", out, ConvertOptions("comfyui", dtype=torch.float16), architecture="wan"
        )
    assert not out.exists()


def test_a_product_that_float32_cannot_hold_is_refused():
    tensors = {
        "diffusion_model.blocks.0.ffn.0.lokr_w1": torch.full((2, 2), 1e30),
        "diffusion_model.blocks.0.ffn.0.lokr_w2": torch.full((4, 4), 1e30),
    }
    with pytest.raises(LycoError, match=r"blocks.0.ffn.0\.lora_\w+.weight: \d+ of its \d+ numbers are NaN or infinite"):
        convert_set(parsed(tensors, architecture="wan"), ConvertOptions("comfyui", as_lora=True))


def test_a_rank_and_an_error_hold_both_or_it_says_what_would():
    torch.manual_seed(0)
    prefix = "diffusion_model.blocks.0.ffn.0"
    found = parsed({f"{prefix}.lokr_w1": random(4, 4), f"{prefix}.lokr_w2": random(8, 8)}, architecture="wan")
    with pytest.raises(LycoError, match=r"1 modules cannot have rank 2 and an error of at most 0.1 .*rank (\d+)") as e:
        convert_set(found, ConvertOptions("comfyui", limits=Limits(rank=2, max_error=0.1)))
    needed = int(str(e.value).rpartition("give rank ")[2].split(",")[0])
    made = convert_set(found, ConvertOptions("comfyui", limits=Limits(rank=needed, max_error=0.1)))
    assert made.modules[0].adapter.rank == needed
    assert made.report.error <= 0.1


def test_musubi_reads_one_algorithm_a_file():
    """A LoKr that cannot be cut becomes a LoHa, and so does all else."""
    torch.manual_seed(0)
    tensors = {
        "diffusion_model.layers.0.attention.qkv.lokr_w1": torch.randn(8, 4).bfloat16(),
        "diffusion_model.layers.0.attention.qkv.lokr_w2": torch.randn(24, 16).bfloat16(),
        "diffusion_model.layers.0.attention.out.lokr_w1": torch.randn(4, 4).bfloat16(),
        "diffusion_model.layers.0.attention.out.lokr_w2": torch.randn(16, 16).bfloat16(),
    }
    made = convert_set(parsed(tensors), ConvertOptions("musubi"))
    assert {m.adapter.algorithm for m in made.modules} in ({"loha"}, {"lora"})
    before, after = deltas(tensors, {}, "z_image"), deltas(emit(made.adapter_set)[0], {}, "z_image")
    assert all(relative(after[k], before[k]) < 2e-6 for k in before)


@pytest.mark.parametrize("w2", ["full", "low"])
def test_musubi_gets_no_lokr_with_a_low_rank_w1(w2: str):
    """It reads w1 alone, and would take such a module for none."""
    torch.manual_seed(0)
    prefix = "diffusion_model.blocks.0.ffn.0"
    tensors = {f"{prefix}.lokr_w1_a": random(4, 3), f"{prefix}.lokr_w1_b": random(3, 4)}
    if w2 == "full":
        tensors[f"{prefix}.lokr_w2"] = random(6, 5)
    else:
        tensors |= {f"{prefix}.lokr_w2_a": random(6, 2), f"{prefix}.lokr_w2_b": random(2, 5)}
    tensors[f"{prefix}.alpha"] = torch.tensor(1.5)
    made = convert_set(parsed(tensors, architecture="wan"), ConvertOptions("musubi"))
    assert emit(made.adapter_set)[0]
    assert not any("lokr" in key for key in emit(made.adapter_set)[0])
    before, after = deltas(tensors, {}, "wan"), deltas(*emit(made.adapter_set), "wan")
    assert before.keys() == after.keys()
    assert all(relative(after[k], before[k]) < 2e-6 for k in before)


def test_the_error_of_a_dtype_is_measured_on_what_is_written():
    """Also where a file first has to become one algorithm for Musubi."""
    torch.manual_seed(0)
    tensors = {
        "diffusion_model.layers.0.attention.qkv.lokr_w1": torch.randn(8, 4),
        "diffusion_model.layers.0.attention.qkv.lokr_w2": torch.randn(24, 16),
        "diffusion_model.layers.0.attention.out.lokr_w1": torch.randn(4, 4),
        "diffusion_model.layers.0.attention.out.lokr_w2": torch.randn(16, 16),
    }
    made = convert_set(parsed(tensors), ConvertOptions("musubi", dtype=torch.bfloat16))
    before, after = deltas(tensors, {}, "z_image"), deltas(emit(made.adapter_set)[0], {}, "z_image")
    wrong = sum(float((after[k] - d).double().square().sum()) for k, d in before.items())
    total = sum(float(d.double().square().sum()) for d in before.values())
    assert made.report.error == pytest.approx((wrong / total) ** 0.5, rel=1e-3)


def test_metadata_is_carried_over_and_hashes_are_sd_scripts_own(tmp_path: Path):
    path = GOLDEN / "wan_t2v" / "loha.safetensors"
    convert_file(path, tmp_path / "out", ConvertOptions("comfyui"))
    with safe_open(tmp_path / "out", "pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dict
    assert metadata["ss_network_module"] == "networks.loha"
    assert metadata["lyco_architecture"] == "wan"
    assert json.loads(metadata["lyco_conversion"])["source"] == "loha.safetensors"
    assert (metadata["sshs_model_hash"], metadata["sshs_legacy_hash"]) == sd_scripts_hashes(tensors, metadata)


def sd_scripts_hashes(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> tuple[str, str]:
    """As sd-scripts defines them, over what the library writes with the training's metadata alone."""
    training = {k: v for k, v in metadata.items() if k.startswith("ss_")}
    data = BytesIO(safetensors.torch.save(tensors, training))
    data.seek(8 + int.from_bytes(data.read(8), "little"))
    model = hashlib.sha256(data.read()).hexdigest()
    data.seek(0x100000)
    return model, hashlib.sha256(data.read(0x10000)).hexdigest()[:8]


def hashes(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> dict[str, str]:
    specs = library_order([TensorSpec(key, tuple(t.shape), t.dtype) for key, t in tensors.items()])
    return sshs_hashes(specs, (tensors[spec.key] for spec in specs), metadata)


def test_hashes_of_the_real_musubi_and_of_a_file_beyond_a_megabyte():
    for path in FILES:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        found = hashes(load_file(path), metadata)
        assert found == {k: metadata[k] for k in ("sshs_model_hash", "sshs_legacy_hash")}
    torch.manual_seed(0)
    tensors = {"b": torch.randn(400_000), "a": torch.randn(3).bfloat16(), "c": torch.tensor([1, 2])}
    metadata = {"ss_x": 'é\n"', "sai_other": "y" * 100}
    assert tuple(hashes(tensors, metadata).values()) == sd_scripts_hashes(tensors, metadata)


def test_refusals(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    save_file(musubi_file({"blocks.0.self_attn.q": (64, 64)}, tensor=random), path)
    with pytest.raises(LycoError, match=r"a\.safetensors: is both the input and the output"):
        convert_file(path, path, ConvertOptions("comfyui"), overwrite=True)
    (tmp_path / "b").write_text("mine")
    with pytest.raises(LycoError, match="b: is there already"):
        convert_file(path, tmp_path / "b", ConvertOptions("comfyui"))
    with pytest.raises(LycoError, match="rank is 0, expected"):
        ConvertOptions("comfyui", limits=Limits(rank=0))
    with pytest.raises(LycoError, match="the error is 2, expected"):
        ConvertOptions("comfyui", limits=Limits(max_error=2.0))
    clean = musubi_file({"clean_x_embedder.proj": (64, 64), "transformer_blocks.0.ff.net.2": (64, 256)}, tensor=random)
    save_file(clean, tmp_path / "c")
    with pytest.raises(
        LycoError,
        match=r"c: 1 of 2 modules .* comfyui layout \(lora_unet_clean_x.*; they have a place in musubi or diffusers",
    ):
        convert_file(tmp_path / "c", tmp_path / "d", ConvertOptions("comfyui"), architecture="framepack")
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "b", "c"]


def test_diffusers_names_say_which_family_they_came_from():
    """HunyuanVideo and FLUX.1 share diffusers' names; the way back needs to know."""
    torch.manual_seed(0)
    tensors = musubi_file(tiny("hunyuan_video"), "lora", random)
    there = convert_set(parsed(tensors, architecture="hunyuan_video"), ConvertOptions("diffusers"))
    with pytest.raises(LycoError, match=r"several families \(.*flux1"):
        parsed(emit(there.adapter_set)[0], layout="musubi")
    back = convert_set(parsed(*emit(there.adapter_set), layout="musubi"), ConvertOptions("musubi"))
    assert emit(back.adapter_set)[0].keys() == tensors.keys()
