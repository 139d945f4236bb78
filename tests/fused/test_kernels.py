"""Patching by the kernel: in Triton's interpreter, compiled for the cards that people have, and where there is none.

That a patch is one launch is seen on a card alone: `make gpu` counts it.
"""

import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lyco_testing.zoo import normal

from lyco_core import fused
from lyco_core.adapters import LoHa, LoKr, LoRA
from lyco_core.fused import Half, combine, launch, ready

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


INTERPRETED = {
    "itself": ["tests/fused/interpreted.py"],
    "every form": ["tests/adapters/test_contract.py", "-k", "add_to or rounded_once or channels_last or delta"],
    "training": ["tests/train/test_summed.py", "-k", "agree or checkpointed"],
}


@needs_triton
@pytest.mark.parametrize("what", INTERPRETED)
def test_in_tritons_interpreter(what: str):
    """It has to be asked for before Triton is imported, so in a process of its own."""
    arguments = ["-q", "-p", "no:xdist", "-p", "lyco_testing.triton_interpreted", *INTERPRETED[what]]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", launch.SWITCH: "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.fixture
def on_the_processor(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Kernels are tried there, and nothing has been told yet."""
    monkeypatch.setenv(launch.SWITCH, "1")
    monkeypatch.setattr(launch, "DEVICES", {"cpu"})
    monkeypatch.setattr(launch._Broken, "why", None)
    found = launch._kernels
    found.cache_clear()
    yield monkeypatch
    found.cache_clear()


class Recorded:
    """In the kernel's place: what it was launched with."""

    def __getitem__(self, grid: tuple[int]) -> Any:
        self.grid = grid
        return self.launched

    def launched(self, *given: Any, **constants: Any) -> None:
        self.given, self.constants = given, constants


FORMS = {
    "lora": lambda: LoRA(normal(64, 32), normal(32, 128)),
    "loha": lambda: LoHa(normal(64, 16), normal(16, 128), normal(64, 16), normal(16, 128)),
    "lokr low": lambda: LoKr(w1=normal(8, 8), w2_a=normal(8, 4), w2_b=normal(4, 16)),
    "lokr both low": lambda: LoKr(w1_a=normal(8, 2), w1_b=normal(2, 8), w2_a=normal(8, 4), w2_b=normal(4, 16)),
    "lokr full": lambda: LoKr(w1=normal(4, 4), w2=normal(16, 32)),
}
CARDS: dict[str, tuple[str, int | str, int]] = {
    "RTX 30": ("cuda", 86, 32),
    "RTX 40": ("cuda", 89, 32),
    "RTX 50": ("cuda", 120, 32),
    "H100": ("cuda", 90, 32),
    "RX 7900": ("hip", "gfx1100", 32),
}
SHORT = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int32: "i32"}


def compiled(recorded: Recorded, card: str) -> Any:
    """The kernel for these arguments, as a launch on such a card would have it."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from lyco_core.fused.kernels import combined

    signature: dict[str, str] = {}
    constants: dict[Any, Any] = {}
    options = {"num_warps": recorded.constants["num_warps"]}
    given = {**dict(zip(combined.arg_names, recorded.given, strict=False)), **recorded.constants}
    for index, name in enumerate(combined.arg_names):
        value = given[name]
        if isinstance(value, torch.Tensor):
            signature[name] = f"*{SHORT[value.dtype]}"
        elif isinstance(value, float):
            signature[name] = "fp32"
        elif value is None or value == 1 or name.isupper():
            signature[name], constants[index,] = "constexpr", value
        else:
            signature[name] = "i32"
    return triton.compile(ASTSource(combined, signature, constants), target=GPUTarget(*CARDS[card]), options=options)


@needs_triton
@pytest.mark.parametrize(
    ("form", "dtype", "stored", "card"),
    [
        *((form, torch.bfloat16, torch.bfloat16, "RTX 40") for form in FORMS),
        *(("loha", torch.bfloat16, torch.float16, card) for card in CARDS if card != "RTX 40"),
        ("loha", torch.float32, torch.float32, "RTX 30"),
        ("lora", torch.float16, torch.float32, "RTX 30"),
        ("lora", torch.float32, torch.bfloat16, "RTX 30"),
    ],
    ids=str,
)
def test_it_compiles(
    form: str,
    dtype: torch.dtype,
    stored: torch.dtype,
    card: str,
    on_the_processor: pytest.MonkeyPatch,
    tmp_path: Path,
):
    if card.startswith("RX") and importlib.util.find_spec("triton.backends.amd") is None:
        pytest.skip("this Triton has no compiler for AMD's cards")
    on_the_processor.setenv("TRITON_CACHE_DIR", str(tmp_path))
    recorded = Recorded()
    on_the_processor.setattr(launch, "_kernels", lambda _: SimpleNamespace(combined=recorded))
    FORMS[form]().to(dtype=stored).add_to_(normal(64, 128).to(dtype), 0.5)
    assert compiled(recorded, card).asm["hsaco" if card.startswith("RX") else "cubin"]


def test_a_kernel_that_fails_leaves_it_to_torch(on_the_processor: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """As where there is no compiler; told once, and tried once."""
    tried: list[object] = []

    class Failing:
        def __getitem__(self, grid: tuple[int]) -> Any:
            tried.append(grid)
            raise RuntimeError("Failed to find C compiler\nPlease specify via CC")

    on_the_processor.setattr(launch, "_kernels", lambda _: SimpleNamespace(combined=Failing()))
    with caplog.at_level(logging.INFO, "lyco"):
        for adapter in (make().to(dtype=torch.bfloat16) for make in FORMS.values()):
            weight = normal(64, 128)
            expected = weight.double() + 0.5 * adapter.delta_weight(torch.float64)
            adapter.add_to_(weight, 0.5)
            assert torch.allclose(weight.double(), expected, atol=1e-4)
    assert len(tried) == len(caplog.records) == 1
    assert "(RuntimeError: Failed to find C compiler); torch's are used" in caplog.text
    assert not ready(CPU)


def test_without_triton_torch_does_it(on_the_processor: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    on_the_processor.setitem(sys.modules, "triton", None)
    on_the_processor.delitem(sys.modules, "lyco_core.fused.kernels", raising=False)
    on_the_processor.delattr(fused, "kernels", raising=False)
    half, weight = Half(normal(12, 3), normal(3, 20)), normal(12, 20)
    with caplog.at_level(logging.INFO, "lyco"):
        assert not combine(weight, weight, [half, half])
        assert not combine(weight, weight, [half, half])
    assert len(caplog.records) == 1
    assert "install triton" in caplog.text


@needs_triton
@pytest.mark.parametrize("said", ["0", "", None])
def test_only_who_asks_has_it(said: str | None, on_the_processor: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    assert ready(CPU)
    launch._kernels.cache_clear()
    on_the_processor.delenv(launch.SWITCH)
    if said is not None:
        on_the_processor.setenv(launch.SWITCH, said)
    assert not ready(CPU)
    assert not caplog.records


def test_the_processor_is_never_asked():
    assert not ready(CPU)
    assert not ready(torch.device("mps"))
