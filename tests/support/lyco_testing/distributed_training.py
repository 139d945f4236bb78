"""Trains the toy model in this process, or in those of torchrun: `… FOLDER BATCH_SIZE ITEMS`.

Every process leaves its parameters in FOLDER/RANK.pt, and the one that writes the adapter's file.
"""

import sys
from pathlib import Path

import torch

from lyco_core.train.distributed import join, leave
from lyco_core.train.items import Item
from lyco_core.train.loop import Training
from lyco_core.train.metadata import Run
from lyco_core.train.network import Network
from lyco_core.train.options import train_options
from lyco_core.train.targets import choose_targets
from lyco_core.train.training_files import TrainingFiles
from lyco_testing.toy import WIDTH, ToyModel, described, z_image


def main(folder: Path, batch_size: int, count: int) -> None:
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
    items = [Item(torch.randn((WIDTH, 4, 4), generator=generator), float(number)) for number in range(count)]
    world, model = join("gloo"), ToyModel()
    network = Network.initial(choose_targets(described(z_image()), options.network), options.network)
    training = Training(model, network, items, options, validation=items[:3], world=world)
    output = folder / f"output {world.rank}"
    output.mkdir()
    files = TrainingFiles(training, Run(training, []), output)
    told: list[tuple[object, ...]] = []
    with network.attached(model.model):
        for step in training.steps():
            files.after(step)
            told.append((step.loss, step.validation, step.grad_norm))
    files.finish()
    torch.save({"parameters": dict(network.state_dict()), "told": told}, folder / f"{world.rank}.pt")
    world.wait()
    leave(world)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
