"""Trains the toy model in this process, or in those of torchrun: `… FOLDER BATCH_SIZE ITEMS [shard]`.

Every process leaves its parameters in FOLDER/RANK.pt, and the one that writes the adapter's file.
"""

import importlib
import sys
import weakref
from contextlib import ExitStack
from pathlib import Path

import torch
import torch.distributed

from lyco_core.train.block_shard import BlockShard
from lyco_core.train.distributed import World, join, leave
from lyco_core.train.frozen import frozen_linears, own_weight
from lyco_core.train.items import Item
from lyco_core.train.loop import Training
from lyco_core.train.metadata import Run
from lyco_core.train.network import Network
from lyco_core.train.options import train_options
from lyco_core.train.targets import choose_targets
from lyco_core.train.training_files import TrainingFiles
from lyco_testing.toy import WIDTH, ToyModel, described, z_image

APART = 200.0
"""What the toy model is told of an item that it takes alone."""


def main(folder: Path, batch_size: int, count: int, *, shard: bool = False) -> None:
    options = train_options(
        {
            "network_module": "loha",
            "network_dim": 2,
            "learning_rate": 1e-3,
            "timestep_sampling": "sigmoid",
            "batch_size": batch_size,
            "max_train_steps": 10,
            "ema_decay": 0.9,
            "validate_every_n_steps": 1,
            "save_every_n_steps": 5,
            "save_state": True,
            "output_name": "x",
        }
    )
    generator = torch.Generator().manual_seed(0)
    conditions = [APART if number == 2 else float(number) for number in range(count)]
    items = [Item(torch.randn((WIDTH, 4, 4), generator=generator), condition) for condition in conditions]
    world, model = join("gloo"), ToyModel()
    network = Network.initial(choose_targets(described(z_image()), options.network), options.network)
    ending = ExitStack()
    sharded = shared(model, world, ending) if shard else None
    training = Training(model, network, items, options, validation=items[:3], world=world, shard=sharded)
    output = folder / f"output {world.rank}"
    output.mkdir()
    files = TrainingFiles(training, Run(training, []), output)
    told: list[tuple[object, ...]] = []
    with ending, network.attached(model.model):
        for step in training.steps():
            files.after(step)
            told.append((step.loss, step.validation, step.grad_norm))
    files.finish()
    copied = sharded.copied if sharded else 0
    torch.save({"parameters": dict(network.state_dict()), "told": told, "copied": copied}, folder / f"{world.rank}.pt")
    world.wait()
    importlib.import_module("torch.distributed.nn.functional")  # as ComfyUI's packages do, long after `join`
    group = weakref.ref(torch.distributed.group.WORLD) if world.processes > 1 else None
    leave(world)
    assert group is None or group() is None, "the group of processes outlives the training"


def shared(model: ToyModel, world: World, ending: ExitStack) -> BlockShard:
    """The toy model's two layers, as four blocks that are divided over the processes until the end."""
    parts = [f"diffusion_model.layers.{n}.{part}" for n in range(2) for part in ("attention", "feed_forward")]
    blocks = [list(model.model.get_submodule(part).children()) for part in parts]
    sharded = BlockShard(blocks, model.device, world)
    ending.enter_context(sharded.attached())
    linears = [module for block in blocks for module in block]
    ending.enter_context(frozen_linears(linears, sharded.weights(own_weight)))
    for module in model.model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.fill_(torch.nan)  # what a process had before is not what it computes with
    return sharded


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), shard="shard" in sys.argv[4:])
