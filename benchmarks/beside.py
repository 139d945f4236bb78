"""Adapters beside one quantized Linear of 5120 x 5120 with 2,048 tokens, in a ComfyUI: what they add to its time.

COMFYUI_PATH=… python benchmarks/beside.py
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from timing import alternate

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT)]
SIZE, TOKENS = 5120, 2048


def adapters():
    """Name -> the adapter."""
    import torch

    from lyco_core.adapters import OFT, DoRA, LoHa, LoKr, LoRA

    torch.manual_seed(0)
    r = torch.randn
    lokr = LoKr(w1=r(64, 64) / 64, w2_a=r(80, 16), w2_b=r(16, 80) / 80, alpha=16.0)
    return {
        "LoKr rank 16": lokr,
        "LoRA rank 16": LoRA(r(SIZE, 16), r(16, SIZE) / SIZE, alpha=16.0),
        "LoHa rank 32": LoHa(r(SIZE, 32), r(32, SIZE) / SIZE, r(SIZE, 32), r(32, SIZE) / SIZE, alpha=32.0),
        "DoRA by outputs on LoKr rank 16": DoRA.of(lokr, r(SIZE, 1).abs() + 1),
        "DoRA by inputs on LoKr rank 16": DoRA.of(lokr, r(1, SIZE).abs() + 1),
        "OFT of blocks of 64": OFT(r(SIZE // 64, 64, 64) / 100),
    }


def main() -> None:
    """Print, for each form of the weight, the Linear's time and what each adapter adds to it."""
    from lyco_testing.comfy import find_comfyui, import_comfyui, import_pack

    import_comfyui(find_comfyui())
    import torch

    pack = import_pack().__name__
    seats = importlib.import_module(f"{pack}.nodes.host.model.beside.seat")
    beside = importlib.import_module(f"{pack}.lyco_core.beside")
    theirs = importlib.import_module(f"{pack}.lyco_core.adapters")
    import comfy.ops
    from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor

    x = torch.randn(TOKENS, SIZE)
    for form, made in (("float8_e4m3fn", {"scale": "recalculate"}), ("int8_tensorwise", {"per_channel": True})):
        linear = comfy.ops.mixed_precision_ops({}, torch.float32).Linear(SIZE, SIZE, bias=False)
        weight = torch.randn(SIZE, SIZE) / SIZE**0.5
        stored = QuantizedTensor.from_float(weight, QUANT_ALGOS[form]["comfy_tensor_layout"], **made)
        said = torch.tensor(list(f'{{"format": "{form}"}}'.encode()), dtype=torch.uint8)
        linear.load_state_dict({**stored.state_dict("weight"), "comfy_quant": said})
        for name, adapter in adapters().items():
            own = rebuilt(adapter, theirs)
            numbers = stored.dequantize()
            effects = beside.settled(
                [beside.Part(own, 0.8)], lambda start, stop, w=numbers: w[start:stop].clone(), (SIZE, SIZE), x.device
            )
            seat = seats.Seat("linear", linear, effects, None)
            with torch.inference_mode():
                times = alternate({"alone": lambda s=seat: s.original(x), "with": lambda m=linear: m(x)}, rounds=7)
            seat.leave()
            share = 100 * (times["with"] / times["alone"] - 1)
            print(f"{form}: {name}: Linear {times['alone']:.0f} ms, with it {times['with']:.0f} ms ({share:+.1f} %)")


def rebuilt(adapter, theirs):
    """The same adapter as the pack's own copy of the library has it."""
    kind = getattr(theirs, type(adapter).__name__)
    if hasattr(adapter, "inner"):
        return kind.of(rebuilt(adapter.inner, theirs), adapter.magnitude, on_output=adapter.axis == 0)
    return kind(**adapter.tensors, alpha=adapter.alpha)


if __name__ == "__main__":
    main()
