"""Times of a step of training: LoRA, LoHa and LoKr against each other, and against LyCORIS, PEFT and TrainLoraNode."""

from __future__ import annotations

import copy
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from gpu.comfyui import ComfyUI
from gpu.device import Device
from gpu.exactness import named
from gpu.flow import Flow
from gpu.peers import versions
from gpu.results import TIMING, Results, Row

Step = Callable[[], object]
BLOCKS = 2
CASES = {
    "LoRA rank 16": ("lora", 16),
    "LoRA rank 32": ("lora", 32),
    "LoKr rank 16": ("lokr", 16),
    "LoHa rank 8": ("loha", 8),
    "LoHa rank 32": ("loha", 32),
}


def run(device: Device, results: Results, comfyui: ComfyUI | None) -> None:
    """Blocks by themselves, then a Wan in ComfyUI."""
    here = versions(results, comfyui)
    with results.case(TIMING, "training"):
        flow = Flow(device.device, device.half, device.size, BLOCKS)
        x = device.normal(1, device.tokens, flow.width, dtype=device.half)
        sides: dict[tuple[str, str], Step] = {("", "frozen"): _frozen(flow, x)}
        for what, (algorithm, rank) in CASES.items():
            sides[what, "lyco"] = _ours(flow, x, algorithm, rank)
            for who, make in (("LyCORIS", _lycoris), ("PEFT", _peft)):
                made = partial(make, flow, x, algorithm, rank)
                if who in here and results.works(f"{who}, a step of {what}", lambda m=made: m()()):
                    sides[what, who] = made()
        _rows(device, results, flow, sides)
    if comfyui is not None:
        with results.case(TIMING, "training in ComfyUI"):
            _in_comfyui(device, results, comfyui)


def _rows(device: Device, results: Results, flow: Flow, sides: dict[tuple[str, str], Step]) -> None:
    named_sides = {" ".join(side): step for side, step in sides.items()}
    times, peaks = device.alternate(named_sides), device.peaks(named_sides)
    table = f"A step on {BLOCKS} frozen blocks of width {flow.width} in {named(device.half)}, {device.tokens} tokens"
    for what in CASES:
        mine = {who: " ".join((what, who)) for one, who in sides if one == what} | {"frozen": " frozen"}
        lora, step = times["LoRA rank 16 lyco"], times[f"{what} lyco"]
        note = f"{step / lora:.2f} x LoRA's of rank 16" if lora and step else ""
        found = {who: times[name] for who, name in mine.items()}
        results.add(Row(table, what, found, {who: peaks[n] for who, n in mine.items() if n in peaks}, note))


def _steps(compute: Callable[[], torch.Tensor], parameters: list[nn.Parameter]) -> Step:
    """Forward, backward, and a step of AdamW."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        compute().float().square().mean().backward()
        optimizer.step()

    return step


def _frozen(flow: Flow, x: torch.Tensor) -> Step:
    """Without an adapter: the gradient goes through the blocks to a number that is added to their input."""
    added = nn.Parameter(torch.zeros(1, device=flow.device, dtype=flow.dtype))
    return _steps(lambda: flow.tokens(x + added), [added])


def _ours(flow: Flow, x: torch.Tensor, algorithm: str, rank: int) -> Step:
    network = flow.network(network_module=algorithm, network_dim=rank, network_alpha=float(rank))
    network.train()

    def compute() -> torch.Tensor:
        with network.attached(flow.model):
            return flow.tokens(x)

    return _steps(compute, list(network.parameters()))


def _twin(flow: Flow) -> Flow:
    """Modules of its own with the same weights in memory."""
    made = copy.copy(flow)
    made.model = copy.deepcopy(flow.model, {id(p): p for p in flow.model.parameters()})
    return made


def _targets(flow: Flow) -> Iterator[str]:
    return (target.key.removesuffix(".weight") for target in flow.choice().targets)


def _lycoris(flow: Flow, x: torch.Tensor, algorithm: str, rank: int) -> Step:
    """Its modules as they are by default: the weight and ΔW are added, and multiplied by once."""
    from lycoris.modules.locon import LoConModule
    from lycoris.modules.loha import LohaModule
    from lycoris.modules.lokr import LokrModule

    own, kind = _twin(flow), {"lora": LoConModule, "loha": LohaModule, "lokr": LokrModule}[algorithm]
    parameters: list[nn.Parameter] = []
    for path in _targets(own):
        module = kind(path.replace(".", "_"), own.model.get_submodule(path), 1.0, rank, rank).to(
            flow.device, flow.dtype
        )
        module.apply_to()
        parameters += module.parameters()
    return _steps(lambda: own.tokens(x), parameters)


def _peft(flow: Flow, x: torch.Tensor, algorithm: str, rank: int) -> Step:
    import peft

    own, paths = _twin(flow), list(_targets(flow))
    config = {
        "lora": lambda: peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=paths),
        "loha": lambda: peft.LoHaConfig(r=rank, alpha=rank, target_modules=paths),
        "lokr": lambda: peft.LoKrConfig(r=rank, alpha=rank, target_modules=paths),
    }[algorithm]()
    model = peft.get_peft_model(own.model, config).to(flow.dtype)
    return _steps(lambda: own.tokens(x), [p for p in model.parameters() if p.requires_grad])


def _in_comfyui(device: Device, results: Results, comfyui: ComfyUI) -> None:
    """*Train Adapter* beside TrainLoraNode: the same Wan, in the same dtype, checkpointed."""
    import comfy.sd
    from lyco_testing.tiny_wan import TEXT, wan_checkpoint
    from safetensors.torch import save_file
    from training import Ours, stock

    width, ffn, blocks, side = (1536, 8960, 4, 64) if device.size >= 2048 else (256, 512, 2, 8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wan.safetensors"
        save_file({key: tensor.to(device.half) for key, tensor in wan_checkpoint(width, ffn, blocks).items()}, path)
        model = comfy.sd.load_diffusion_model(str(path), model_options={"dtype": device.half})
        draws = torch.Generator().manual_seed(1)
        latent = torch.randn(16, 1, side, side, generator=draws)
        condition = [torch.randn(1, 512, TEXT, generator=draws), {"pooled_output": None}]
        precision = {torch.float32: "fp32", torch.bfloat16: "bf16"}[device.half]
        given = {"mixed_precision": "no" if precision == "fp32" else "bf16"}
        pack, told = comfyui.pack, {"training_dtype": precision, "lora_dtype": "fp32"}
        # Stock's LoKr has a factor where it says rank: W1 8 x 8, W2 a full matrix.
        lokr = {"network_module": "lokr", "factor": 8, "network_dim": 10**6}
        pairs = {
            "LoKr factor 8": (lokr, "LoKr"),
            "LoHa rank 8": ({"network_module": "loha", "network_dim": 8}, "LoHa"),
            "LoRA rank 8": ({"network_module": "lora", "network_dim": 8}, "LoRA"),
        }
        table = f"In ComfyUI, a step of a Wan of {blocks} blocks of width {width} in {precision}, {side**2 // 4} tokens"
        for what, (settings, name) in results.in_time("training in ComfyUI", pairs):
            with results.case(TIMING, f"training in ComfyUI, {what}"):
                sides = {
                    "lyco": Ours(pack, model, latent, condition, **settings, **given),
                    "ComfyUI": stock(model, latent, condition, algorithm=name, **told),
                }
                if not results.works(f"TrainLoraNode, {what}", sides["ComfyUI"]):
                    del sides["ComfyUI"]
                _trainings(device, results, table, what, sides)
        if "blocks_to_swap" not in {one.name for _, one in comfyui.part("lyco_core.train.options").every_option()}:
            return
        swapped = {f"LoKr factor 8, {count} of {blocks} blocks swapped": count for count in (blocks // 2, blocks)}
        for what, count in results.in_time("training with swapped blocks", swapped):
            with results.case(TIMING, f"training in ComfyUI, {what}"):
                asked = {"lyco": count, "all resident": 0}
                settings = lokr | given
                sides = {
                    w: Ours(pack, model, latent, condition, **settings, blocks_to_swap=n) for w, n in asked.items()
                }
                _trainings(device, results, table, what, sides)


def _trainings(device: Device, results: Results, table: str, what: str, sides: Mapping[str, Step]) -> None:
    """A row of whole trainings, each of a few steps."""
    times = {who: _milliseconds(run) for who, run in sides.items()}
    results.add(Row(table, what, times, device.peaks(sides)))


def _milliseconds(run: Step) -> float:
    """Between the ends of an optimizer's steps, the median."""
    ends: list[float] = []
    handle = register_optimizer_step_post_hook(lambda *_: ends.append(time.perf_counter()))
    try:
        run()
    finally:
        handle.remove()
    return 1000 * median(after - before for before, after in itertools.pairwise(ends))
