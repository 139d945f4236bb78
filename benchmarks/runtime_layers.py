"""An adapter beside one Linear of 5120 x 5120 with 2,048 tokens, and in its weight: every library's way."""

from __future__ import annotations

from collections.abc import Iterator

from add_to import stock_adapter
from timing import alternate, extra_memory

SIZE, TOKENS = 5120, 2048
Found = tuple[str, dict[str, float], str]


def adapters():
    """Name -> (adapter, LyCORIS's module and PEFT's configuration that make the same)."""
    import torch

    from lyco_core.adapters import LoHa, LoKr, LoRA

    torch.manual_seed(0)
    r = torch.randn
    return {
        "LoKr rank 16 (64 x 80)": LoKr(w1=r(64, 64), w2_a=r(80, 16), w2_b=r(16, 80), alpha=16.0),
        "LoKr factor 8, W2 full": LoKr(w1=r(8, 8), w2=r(640, 640), alpha=1.0),
        "LoHa rank 32": LoHa(r(SIZE, 32), r(32, SIZE), r(SIZE, 32), r(32, SIZE), alpha=32.0),
        "LoRA rank 32": LoRA(r(SIZE, 32), r(32, SIZE), alpha=32.0),
    }


def lycoris_module(adapter, linear):
    """LyCORIS's own module in its bypass form; its factors are of the same shapes."""
    from lycoris.modules.locon import LoConModule
    from lycoris.modules.loha import LohaModule
    from lycoris.modules.lokr import LokrModule

    if adapter.algorithm == "lokr":
        rank = adapter.rank or 10**6
        return LokrModule("m", linear, 1.0, rank, rank, factor=adapter.w1.shape[0], bypass_mode=True)
    kind = LohaModule if adapter.algorithm == "loha" else LoConModule
    return kind("m", linear, 1.0, adapter.rank, adapter.rank, bypass_mode=True)


def peft_layer(adapter, linear):
    """PEFT's layer around the Linear, unmerged."""
    import peft
    import torch

    rank = adapter.rank or 10**6
    config = {
        "lokr": lambda: peft.LoKrConfig(
            r=rank, alpha=rank, decompose_factor=adapter.w1.shape[0], target_modules=["linear"]
        ),
        "loha": lambda: peft.LoHaConfig(r=rank, alpha=rank, target_modules=["linear"]),
        "lora": lambda: peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=["linear"]),
    }[adapter.algorithm]()
    model = peft.get_peft_model(torch.nn.ModuleDict({"linear": linear}), config)
    return model.base_model.model["linear"].eval()


def measured_layers() -> Iterator[Found]:
    """(what, who -> milliseconds, note) of everything that one layer can show."""
    import torch
    from torch.nn.functional import linear

    with torch.no_grad():
        x, module = torch.randn(TOKENS, SIZE), torch.nn.Linear(SIZE, SIZE, bias=False)
        for name, adapter in adapters().items():
            stock, theirs, peft = stock_adapter(adapter), lycoris_module(adapter, module), peft_layer(adapter, module)
            out = linear(x, module.weight)
            sides = {
                "Linear": lambda: linear(x, module.weight),
                "lyco": lambda a=adapter: a.apply(x),
                "ComfyUI": lambda s=stock, o=out: s.h(x, o),
                "LyCORIS": lambda t=theirs: t.bypass_forward_diff(x),
                "PEFT": lambda p=peft: p(x),
            }
            times = alternate(sides, rounds=7)
            times["PEFT"] = max(0.0, times["PEFT"] - times["Linear"])  # its layer runs the Linear too
            memory = {who: extra_memory(sides[who]) for who in ("lyco", "ComfyUI")}
            note = (
                f"{100 * times['lyco'] / times['Linear']:.1f} % of the Linear; "
                f"extra memory {memory['lyco']:.0f} MB against {memory['ComfyUI']:.0f} MB"
            )
            yield f"beside a Linear, {name}", times, note
        for name, adapter in adapters().items():
            weight = torch.randn(SIZE, SIZE)
            theirs = lycoris_module(adapter, module)
            peft, stock = peft_layer(adapter, module), stock_adapter(adapter)
            sides = {
                "lyco": lambda a=adapter, w=weight: a.add_to_(w, 1e-4),
                "ComfyUI": lambda s=stock, w=weight: s.calculate_weight(w, "k", 1e-4, 1.0, None, lambda d: d, w.dtype),
                "LyCORIS": lambda t=theirs, w=weight: w.add_(t.get_diff_weight(1e-4)[0]),
                "PEFT": lambda p=peft, w=weight: w.add_(p.get_delta_weight("default")),
            }
            yield f"into one 5120 x 5120 weight, {name}", alternate(sides, rounds=7), "float32, in place"
