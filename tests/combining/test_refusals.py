"""What cannot be combined: one line that says why, and nothing half written; and what can, on a base."""

from pathlib import Path

import pytest
import torch
from lyco_testing.tables import lokr, musubi_file, random
from safetensors.torch import load_file, save_file

import lyco_core as lyco
from lyco_core.cli import main
from lyco_core.errors import LycoError
from lyco_core.merging import Source, merge_checkpoint

Q, FFN = "blocks.0.self_attn.q", "blocks.0.ffn.0"
SHAPES = {Q: (64, 64), FFN: (160, 64)}
PREFIX = "diffusion_model."


def write(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file(tensors, path)
    return path


def plain(folder: Path, name: str = "plain", algorithm: str = "lora") -> Path:
    torch.manual_seed(len(name))
    return write(folder / f"{name}.safetensors", musubi_file(SHAPES, algorithm, random))


def refused(capsys, *arguments: object) -> str:
    """What is said on standard error: one line."""
    assert main(["combine", *map(str, arguments)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    return said.err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--density", 0.1], "--density is for --method ties, dare, della, breadcrumbs, knots, and --method is sum;"),
        (["--method", "ties", "--rank", 4, "--seed", 0], "--seed is for --method dare, della, and --method is ties;"),
        (["--average", "uniform", "--beta", 0.9], "--beta is for --average ema, and --average is uniform;"),
        (["--factor", 8], "--factor is for --as lokr, and --as is not given;"),
        (
            ["--average-on", "factors"],
            "--average-on is for --average uniform, ema, post-hoc, and --average is not given;",
        ),
    ],
)
def test_an_option_that_would_count_for_nothing(tmp_path: Path, capsys, given: list[object], said: str):
    one, out = plain(tmp_path), tmp_path / "out.safetensors"
    assert said in refused(capsys, one, plain(tmp_path, "another"), "-o", out, *given)
    assert not out.exists()


def test_in_one_line_each_and_nothing_is_written(tmp_path: Path, capsys):
    one, out = plain(tmp_path), tmp_path / "out.safetensors"
    torch.manual_seed(1)
    qwen = {f"transformer_blocks.0.attn.{x}": (3072, 3072) for x in ("to_q", "to_k", "add_q_proj")}
    other, qwens = tmp_path / "qwen.safetensors", musubi_file(qwen, "lora", random)
    save_file(qwens, other, {"lyco_architecture": "qwen_image"})
    unsure = write(tmp_path / "unsure.safetensors", qwens)
    wide = write(tmp_path / "wide.safetensors", musubi_file({FFN: (160, 96)}, "lora", random))
    broken = load_file(one)
    broken[max(broken)][0, 0] = torch.nan
    nan = write(tmp_path / "nan.safetensors", broken)
    cases = {
        "qwen.safetensors: is an adapter for Qwen-Image, and plain.safetensors is for Wan 2.1/2.2; give": [
            one,
            other,
        ],
        "unsure.safetensors: is no adapter for Wan 2.1/2.2, and plain.safetensors is; give adapters": [one, unsure],
        "wide.safetensors: blocks.0.ffn.0: changes a weight of [160, 96], and plain.safetensors one of [160, 64]": [
            one,
            wide,
        ],
        "1 of its": [one, nan],
        "the strengths cancel, so nothing would be changed": [f"{one}@0.5", f"{one}@-0.5"],
        "all strengths are 0": [f"{one}@0", f"{one}@0.0"],
        "missing.safetensors": [one, tmp_path / "missing.safetensors"],
        "plain.safetensors: strength inf is not a number": [f"{one}@inf"],
        "'x' is no strength": [f"{one}@x"],
        "'@0.5' names no adapter file; expected FILE or FILE@NUMBER": [one, "@0.5"],
        "slerp goes from one adapter to another, and there are 1": [one, "--method", "slerp", "--rank", "4"],
        "give --rank, --energy or --max-error": [one, one, "--method", "dare"],
        "the pattern 'nowhere' matches no module": [one, one, "--exclude", "2:nowhere"],
    }
    for said, arguments in cases.items():
        found = refused(capsys, *arguments, "-o", out)
        assert said in found, found
        assert not out.exists()
    assert "which is read; choose another" in refused(capsys, one, "-o", one, "--overwrite")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{name}.safetensors" for name in ("plain", "qwen", "unsure", "wide", "nan")
    )


def test_an_at_in_a_name_or_a_path_is_no_strength(tmp_path: Path, capsys):
    folder = tmp_path / "by@me 2"
    folder.mkdir()
    files = [plain(folder, "style@0.5"), plain(tmp_path, "b"), plain(folder, "c@v2")]
    bare = folder / "d@3"
    files[2].rename(bare)
    arguments = [files[0], f"{files[1]}@-0.25", f"{bare}@2e-1", "-o", tmp_path / "out.safetensors"]
    assert main(["combine", *map(str, arguments)]) == 0
    said = capsys.readouterr().out
    for line in ("style@0.5.safetensors: 2 modules at strength 1", "b.safetensors: 2 modules at strength -0.25",
                 "d@3: 2 modules at strength 0.2", "sum: 2 LoRA, rank 6, exact"):  # fmt: skip
        assert line in said
    expected = [lyco.delta(path) for path in (files[0], files[1], bare)]
    for key, found in lyco.delta(tmp_path / "out.safetensors").items():
        total = sum(s * d[key].double() for s, d in zip((1, -0.25, 0.2), expected, strict=True))
        assert float((found - total).norm() / total.norm()) < 2e-6


def test_dora_and_a_base(tmp_path: Path, capsys):
    """On the base's weights it is what a merge of all gives."""
    torch.manual_seed(2)
    dora = lokr(PREFIX + Q, 64, 64, random) | {f"{PREFIX}{Q}.dora_scale": random(64, 1).abs() + 4}
    dora |= lokr(PREFIX + FFN, 160, 64, random)
    files = [plain(tmp_path), write(tmp_path / "dora.safetensors", dora)]
    out = tmp_path / "out.safetensors"
    found = refused(capsys, *files, "-o", out)
    assert "dora.safetensors: blocks.0.self_attn.q: is LoKr with DoRA, whose change depends on the weight" in found
    assert "give the checkpoint that they were trained on with --base" in found
    names = {f"blocks.0.{a}.{x}": (64, 64) for a in ("self_attn", "cross_attn") for x in "qkvo"}
    names |= {FFN: (160, 64), "blocks.0.ffn.2": (64, 160), "patch_embedding": (64, 16, 1, 2, 2)}
    base = {f"{name}.weight": random(*shape) for name, shape in names.items()}
    write(tmp_path / "base.safetensors", base)
    lyco.combine({files[0]: 0.5, files[1]: 0.75}, out, base=tmp_path / "base.safetensors")
    sources = [Source(files[0], 0.5), Source(files[1], 0.75)]
    merge_checkpoint(tmp_path / "base.safetensors", sources, tmp_path / "merged.safetensors")
    merged = load_file(tmp_path / "merged.safetensors")
    for key, delta in lyco.delta(out).items():
        name = key.removeprefix(PREFIX)
        assert float((base[name] + delta - merged[name]).norm() / delta.norm()) < 2e-6
    near = lyco.combine(files, tmp_path / "near.safetensors", base=tmp_path / "base.safetensors", rank=64)
    assert near.report.error < 1e-5
    for method in ("ties", "dare"):
        lyco.combine(files, out, base=tmp_path / "base.safetensors", rank=4, method=method, overwrite=True)


def test_a_dora_that_nothing_else_touches_stays(tmp_path: Path):
    torch.manual_seed(3)
    dora = lokr(PREFIX + "blocks.1.self_attn.q", 64, 64, random)
    dora |= {f"{PREFIX}blocks.1.self_attn.q.dora_scale": random(64, 1).abs() + 4}
    path = write(tmp_path / "dora.safetensors", dora)
    made = lyco.combine([plain(tmp_path), path], tmp_path / "out.safetensors")
    assert made.adapter_set.titles == {"LoRA": 2, "LoKr with DoRA": 1}
    with pytest.raises(LycoError, match="LoKr with DoRA, whose change depends on the weight"):
        lyco.combine({plain(tmp_path): 1, path: 0.5}, tmp_path / "other.safetensors")


def test_a_limit_that_cannot_be_kept(tmp_path: Path):
    files = [plain(tmp_path, "a"), plain(tmp_path, "bb", "lokr")]
    with pytest.raises(LycoError, match=r"2 modules cannot have rank 1 and an error of at most 0\.01"):
        lyco.combine(files, tmp_path / "out.safetensors", rank=1, max_error=0.01)
    assert not (tmp_path / "out.safetensors").exists()
    made = lyco.combine(files, tmp_path / "out.safetensors", max_error=0.1)
    assert made.report.error <= 0.1
