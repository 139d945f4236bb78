"""A step of training beside stock ComfyUI's TrainLoraNode, and what an adapter adds to the frozen model: time, memory.

A Wan of 4 blocks of width 1536, 256 tokens, float32 on the CPU. All sides run in this process, in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import importlib
import io
import itertools
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from timing import ROOT, machine

WIDTH, FFN, BLOCKS = 1536, 8960, 4
STEPS = 4
"""Of each turn; the first one warms up and is not counted."""


@dataclasses.dataclass
class Turn:
    """What one run of a side took."""

    seconds: float
    """The median step's."""
    megabytes: float
    """Peak of the process during the run."""


def memory(field: str) -> float:
    """Megabytes of this process, as Linux tells them."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1e3


def turn(run: Callable[[], object]) -> Turn:
    """Run a side; its steps are what lies between the ends of an optimizer's steps."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    ends: list[float] = []
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    handle = register_optimizer_step_post_hook(lambda *_: ends.append(time.perf_counter()))
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            run()
    finally:
        handle.remove()
    return Turn(median(b - a for a, b in itertools.pairwise(ends)), memory("VmHWM"))


class Ours:
    """*Train Adapter*, as its node runs it."""

    def __init__(self, pack: str, model: object, latent: object, condition: list, **settings: object) -> None:
        part = lambda name: importlib.import_module(f"{pack}.{name}")  # noqa: E731
        self.run = part("nodes.host.training.run")
        self.options = part("lyco_core.train.options").train_options(
            {"max_train_steps": STEPS, "learning_rate": 1e-4, "timestep_sampling": "shift", **settings}
        )
        self.model = model
        self.data = self.run.Data([part("lyco_core.train.items").Item(latent, condition)])

    def __call__(self) -> None:
        """One training."""
        with tempfile.TemporaryDirectory() as folder:
            self.run.train(self.model, self.data, self.options, folder, lambda *_: None)


def frozen(pack: str, model: object, latent: object, condition: list, *, checkpointing: bool) -> Callable[[], object]:
    """Forward and backward of the model without an adapter: the gradient goes to the first block's input."""
    import torch

    host = importlib.import_module(f"{pack}.nodes.host.training.flow_model")
    options = importlib.import_module(f"{pack}.lyco_core.train.options")

    def run() -> None:
        with host.loaded(model, options.RunOptions(gradient_checkpointing=checkpointing)) as flow:
            nothing = torch.zeros(1, requires_grad=True)
            counted = torch.optim.SGD([nothing], lr=0.0)
            x = flow.latent(latent)[None]
            handle = flow.model.diffusion_model.patch_embedding.register_forward_hook(lambda *a: a[2] + nothing)
            try:
                for _ in range(STEPS):
                    flow.velocity(x, torch.tensor([0.5]), [condition]).square().mean().backward()
                    counted.step()
            finally:
                handle.remove()

    return run


def stock(model: object, latent: object, condition: list, **settings: object) -> Callable[[], object]:
    """TrainLoraNode with its defaults, but float32."""
    import torch
    from comfy_extras.nodes_train import TrainLoraNode

    asked = {
        "batch_size": 1, "grad_accumulation_steps": 1, "steps": STEPS, "learning_rate": 1e-4, "rank": 8,
        "optimizer": "AdamW", "loss_function": "MSE", "seed": 0, "training_dtype": "fp32", "lora_dtype": "fp32",
        "quantized_backward": False, "gradient_checkpointing": True, "checkpoint_depth": 1, "offloading": False,
        "existing_lora": "[None]", "bucket_mode": False, "bypass_mode": False,
    } | settings  # fmt: skip
    lists = {name: [value] for name, value in asked.items()}

    def run() -> None:
        with torch.inference_mode():
            TrainLoraNode.execute([model], [{"samples": latent[None]}], [[condition]], **lists)

    return run


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-checkpointing", action="store_true", help="keep every block's activations")
    asked = parser.parse_args()
    checkpointing = not asked.no_checkpointing

    from lyco_testing.comfy import find_comfyui, import_comfyui, import_pack

    folder = find_comfyui()
    if folder is None:
        raise SystemExit("needs a ComfyUI; see DEVELOPERS.md")
    import_comfyui(folder)
    import comfy.sd
    import torch
    from lyco_testing.tiny_wan import TEXT, wan_checkpoint
    from safetensors.torch import save_file

    pack = import_pack().__name__
    with tempfile.TemporaryDirectory() as place:
        path = str(Path(place) / "wan.safetensors")
        save_file(wan_checkpoint(WIDTH, FFN, BLOCKS), path)
        model = comfy.sd.load_diffusion_model(path)
        generator = torch.Generator().manual_seed(1)
        data = (
            torch.randn(16, 1, 32, 32, generator=generator),
            [torch.randn(1, 512, TEXT, generator=generator), {"pooled_output": None}],
        )
        common = {"gradient_checkpointing": checkpointing}
        # Stock's LoKr has a factor where it says rank: W1 8 x 8, W2 a full matrix. The same here.
        lokr = {"network_module": "lokr", "factor": 8, "network_dim": 10**6} | common
        loha = {"network_module": "loha", "network_dim": 8} | common
        sides = {
            "frozen model": frozen(pack, model, *data, checkpointing=checkpointing),
            "LoKr, factor 8": Ours(pack, model, *data, **lokr),
            "LoKr, stock": stock(model, *data, algorithm="LoKr", **common),
            "LoKr, stock bypass": stock(model, *data, algorithm="LoKr", bypass_mode=True, **common),
            "LoHa, rank 8": Ours(pack, model, *data, **loha),
            "LoHa, stock": stock(model, *data, algorithm="LoHa", **common),
            "LoKr, rank 16": Ours(pack, model, *data, network_module="lokr", network_dim=16, **common),
            "LoHa, rank 32": Ours(pack, model, *data, **loha | {"network_dim": 32}),
        }
        found: dict[str, list[Turn]] = {name: [] for name in sides}
        for _ in range(asked.rounds):
            for name, run in sides.items():
                found[name].append(turn(run))
    print(machine())
    print(f"{ROOT.name}: gradient checkpointing {'on' if checkpointing else 'off'}, medians of {asked.rounds} turns")
    seconds = {name: median(t.seconds for t in turns) for name, turns in found.items()}
    for name, turns in found.items():
        added = seconds[name] / seconds["frozen model"] - 1
        peak = median(t.megabytes for t in turns)
        print(f"{name:<20} {seconds[name]:6.3f} s a step  {100 * added:+6.1f} % of frozen  peak {peak:7.0f} MB")
    for ours, theirs in (
        ("LoKr, factor 8", "LoKr, stock"),
        ("LoKr, factor 8", "LoKr, stock bypass"),
        ("LoHa, rank 8", "LoHa, stock"),
    ):
        print(f"{ours} / {theirs}: {seconds[ours] / seconds[theirs]:.2f}")


if __name__ == "__main__":
    main()
