"""What can be refused before a model is loaded or a dataset encoded, which take minutes."""

from __future__ import annotations

import os

import torch

from ..architectures import Architecture
from .checkpoints import require_place
from .loop import require_told
from .optimizers import make_optimizer
from .options import TrainOptions
from .schedules import require_rate
from .state import require_resumable
from .targets import require_trainable

__all__ = ["require_possible"]


def require_possible(
    options: TrainOptions,
    family: Architecture | None,
    folder: str | os.PathLike[str],
    *,
    empty: bool,
    validation: bool,
) -> Architecture:
    """The family, once a training of a model of it can begin and save in `folder`, as far as this tells.

    Args:
        empty: whether there is the condition of the empty caption.
        validation: whether there are validation items.

    Raises:
        TrainError: the family is not trained, a library is not installed, options do not go
            together, or the state to resume from is another training's.
        FileError: nothing can be written there, or an earlier training's files are.
    """
    family = require_trainable(family)
    require_told(options.run, empty=empty, validation=validation)
    require_place(folder, options.save.output_name, resume=bool(options.run.resume))
    rate = options.optimizer.learning_rate
    require_rate(options.schedule, rate)
    make_optimizer(options.optimizer, [{"params": [torch.nn.Parameter(torch.zeros(2, 2))], "lr": rate}])
    if options.run.resume:
        require_resumable(options.run.resume, family.id, options)
    return family
