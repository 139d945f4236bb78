"""What `make gpu` runs, on the CPU at its smallest; and that it sees what is wrong."""

import contextlib
import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lyco_testing.pretended import ELSEWHERE, PretendedDevice
from lyco_testing.zoo import normal

from lyco_core.adapters import LoKr, LoRA

ROOT = Path(__file__).parents[1]
SMALLEST = ["--device", "cpu", "--size", "128", "--no-comfyui"]


@pytest.fixture
def kit(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return SimpleNamespace(**{name: importlib.import_module(f"gpu.{name}") for name in PARTS})


PARTS = ("asked", "command", "exactness", "report", "results")


FEW = ("lora", "loha-conv3-flat", "lokr-low-w2", "lokr-tucker", "dora-lora-out", "dora-lora-in", "oft", "oftv2-dora")
"""Forms of different ways of computing."""


@pytest.fixture
def few(kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch):
    """The checks of few forms."""
    patching, beside = (importlib.import_module(f"gpu.check_{name}") for name in ("patching", "beside"))
    some = {name: form for name, form in patching.forms().items() if name in FEW}
    for module in (patching, beside):
        monkeypatch.setattr(module, "forms", lambda: some)
    return SimpleNamespace(patching=patching, beside=beside, device=importlib.import_module("gpu.device").Device)


@pytest.fixture
def results(kit: SimpleNamespace, tmp_path: Path):
    return kit.results.Results(tmp_path / "found.jsonl")


def checks(kit: SimpleNamespace, results) -> list:
    return [item for item in kit.results.read(results.path) if isinstance(item, kit.results.Check)]


def passed(kit: SimpleNamespace, results) -> list[bool]:
    return [check.passed for check in checks(kit, results)]


@pytest.mark.parametrize("kernel", ["ordered", "unordered", "broken"])
def test_trainings_that_must_be_alike_take_kernels_of_one_order(kernel: str, kit: SimpleNamespace, results):
    """Or it is told that an operation has none."""
    in_one_order = importlib.import_module("gpu.check_swapping").in_one_order
    asked: list[int] = []

    def trained() -> object:
        asked.append(torch.get_deterministic_debug_mode())
        if kernel == "broken":
            raise RuntimeError("CUDA error")
        return torch.zeros(1) if kernel == "ordered" else torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))

    expected = {
        "ordered": contextlib.nullcontext(),
        "unordered": pytest.warns(UserWarning, match="put_ does not have a deterministic implementation"),
        "broken": pytest.raises(RuntimeError, match="CUDA error"),
    }
    try:
        with expected[kernel]:
            in_one_order(results, "a case", trained)
    finally:
        torch.use_deterministic_algorithms(False)
    told = [item.text for item in kit.results.read(results.path)] if results.path.exists() else []
    if kernel == "unordered":
        line = "a case: trainings may differ by themselves: put_ does not have a deterministic implementation"
        assert (asked, told) == ([2, 1], [line])
    else:
        assert (asked, told) == ([2], [])


def test_it_runs_with_torch_alone(tmp_path: Path):
    """Also where there is no safetensors, nor LyCORIS and PEFT, which need it."""
    (tmp_path / "lacking").mkdir()
    for name in ("safetensors", "lycoris", "peft"):
        (tmp_path / "lacking" / f"{name}.py").write_text(f"raise ImportError('there is no {name}')")
    words = [sys.executable, str(ROOT / "benchmarks" / "gpu"), *SMALLEST, "--output", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "lacking")}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CUDA graphs and two streams: not checked, the device is cpu" in done.stdout
    assert "dynamic VRAM: not run: --no-comfyui" in done.stdout
    assert "not compared with PEFT: pip install peft" in done.stdout or "not compared: PEFT: " in done.stdout
    (page,) = tmp_path.glob("*.md")
    text = page.read_text(encoding="utf-8")
    for section in ("patching", "patching, full size", "beside a weight", "extraction", "training steps"):
        assert f"{section} " in text.partition("Checks that passed: ")[2].partition("\n")[0]
    for row in (
        "| LoKr factor 16, W2 full, bfloat16 |",
        "| float32, DoRA on LoRA rank 16 |",
        "| LoHa rank 8 |",
        "| lokr |",
    ):
        assert row in text


def test_what_is_wrong_is_named_and_exits_1(kit, tmp_path, monkeypatch, capsys):
    """A part that breaks down, and a check that fails."""
    check = kit.results.Check("patching", "lokr", "0.25", "at most 2e-05", False)
    parts = (kit.command.Part("no such part", "checks", ()), kit.command.Part("right", "table", ()))
    monkeypatch.setattr(kit.command, "PARTS", parts)
    run = kit.command.run
    monkeypatch.setattr(kit.command, "run", lambda part, *a: run(part, *a) if part is parts[0] else [check])
    assert kit.command.main([*SMALLEST, "--output", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "FAILED  patching: lokr: expected at most 2e-05, found 0.25\n" in said
    assert "FAILED  no such part: its process: expected exit code 0, found 1 (StopIteration" in said
    (page,) = tmp_path.glob("*.md")
    assert "- patching: lokr: expected at most 2e-05, found 0.25" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounded_once(dtype: torch.dtype, kit, results):
    exact = normal(50, 60).double() + normal(50, 60).double() / 3
    wrong = exact.to(dtype)
    wrong[7, 11] += 3 * torch.finfo(dtype).eps + 1e-3 * (dtype == torch.float32)
    for found in (exact.to(dtype), wrong, torch.full_like(wrong, torch.nan)):
        kit.exactness.rounded_once(results, "patching", "case", found, exact)
    assert passed(kit, results) == [True, False, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounded_twice_fails(dtype: torch.dtype, kit, results):
    """ΔW is rounded, and then the sum."""
    weight, change = normal(50, 60).to(dtype), normal(60, 50).t()
    twice = weight + change.to(dtype)
    kit.exactness.rounded_once(results, "patching", "case", twice, weight.double() + change.double())
    assert passed(kit, results) == [False]


def test_an_error_is_a_check_that_failed(kit, results, capsys):
    with results.case("beside", "one"):
        raise ValueError("no\nsuch thing")
    (found,) = kit.results.read(results.path)
    assert kit.results.failure(found) == "beside: one: expected no error, found ValueError: no such thing"
    assert "FAILED  beside: one" in capsys.readouterr().out


def test_what_does_not_begin_in_time_is_left_out(kit, tmp_path):
    results = kit.results.Results(tmp_path / "found.jsonl", until=0)
    assert list(results.in_time("patching", {"a": 1, "b": 2})) == []
    (line,) = kit.results.read(results.path)
    assert line.text == "patching: 2 of 2 left out, the time is over"


def test_a_page_takes_the_place_of_the_cards_own(kit, tmp_path):
    whole, page = tmp_path / "performance.md", tmp_path / "one.md"
    whole.write_text("# Performance\n\n## On a GPU\n", encoding="utf-8")
    for card, number in (("A card", 1), ("Another (24 GB)", 2), ("A card", 3)):
        rows = [kit.results.Line(f"{card}; torch 2", "device"), kit.results.Row("Patching", "LoRA", {"lyco": number})]
        page = kit.report.write(tmp_path, rows, 60)
        kit.report.publish(page, whole)
    text = whole.read_text(encoding="utf-8")
    assert text.startswith("# Performance\n\n## On a GPU\n")
    assert [text.count(f"### {card}\n") for card in ("A card", "Another (24 GB)")] == [1, 1]
    assert "| LoRA | 1.00 ms |" not in text
    assert text.index("| LoRA | 3.00 ms |") < text.index("| LoRA | 2.00 ms |")


@pytest.mark.parametrize("words", [["--card", "12"], ["--memory-fraction", "0.5"], ["--size", "100"]])
def test_what_a_cpu_cannot_play(words: list[str], kit, capsys):
    with pytest.raises(SystemExit):
        kit.asked.asked(["--device", "cpu", *words])
    assert "expected a multiple of 128" in (said := capsys.readouterr().err) or "played on CUDA only" in said


def test_a_device_is_asked_for_nothing_that_it_lacks(few, kit, results):
    with PretendedDevice() as there:
        device = few.device(ELSEWHERE, 128)
        for module in (few.patching, few.beside):
            module.run(device, results, None)
    assert all(passed(kit, results))
    assert len(passed(kit, results)) == 2 * (len(FEW) + 5) * 3
    assert there.ops > 1000


def test_a_patch_that_is_a_little_wrong_is_seen(few, kit, results, monkeypatch):
    """A thousandth of it is missing."""
    right = LoRA._add_to_
    monkeypatch.setattr(LoRA, "_add_to_", lambda self, flat, factor: right(self, flat, 0.999 * factor))
    few.patching.run(few.device("cpu", 128), results, None)
    dtypes = ("float32", "bfloat16", "float16")
    expected = {f"{form}, {dtype}" for form in ("lora", "dora-lora-out", "dora-lora-in") for dtype in dtypes}
    assert {check.case for check in checks(kit, results) if not check.passed} == expected


def test_an_effect_that_is_a_little_wrong_is_seen(few, kit, results, monkeypatch):
    """A tenth of it is missing, whether a new tensor is asked for or an output that it is added to."""
    right, right_into = LoKr.apply, LoKr._apply_to_
    monkeypatch.setattr(LoKr, "apply", lambda self, x: 0.9 * right(self, x))
    monkeypatch.setattr(LoKr, "_apply_to_", lambda self, x, out, factor: right_into(self, x, out, 0.9 * factor))
    few.beside.run(few.device("cpu", 128), results, None)
    failed = [check.case for check in checks(kit, results) if not check.passed]
    assert failed
    assert all(case.lower().startswith("lokr") for case in failed)
    assert {"lokr-low-w2, float32", "lokr-low-w2, bfloat16", "lokr-tucker, float16"} <= set(failed)
