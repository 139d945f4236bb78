"""The state of a training in a file: what `resume` goes on from."""

from __future__ import annotations

import copy
import io
import os
import zipfile
from typing import Any

import torch

from ..errors import TrainError, about_file
from ..io.output import new_files
from .loop import Training
from .options import TrainOptions, every_option, every_value

__all__ = ["load_state", "require_resumable", "save_state"]

_VERSION = 4
_NESTED = 3
"""An older version, which kept the options of `noise` in a table of their own in `order`; otherwise the same."""
_CROSSING = 2
"""The version before that, whose steps went on across the end of an epoch."""


def save_state(path: str | os.PathLike[str], training: Training) -> None:
    """Write everything that the next steps depend on, but the options, the model and the dataset.

    What is drawn depends on the seed and on the number of the step alone, so no random state is in it.

    Raises:
        FileError: it cannot be written; what was there is left.
    """
    state = {
        "version": _VERSION,
        "architecture": training.network.choice.architecture.id,
        "optimizer_type": training.options.optimizer.optimizer_type,
        "optimizer_args": training.options.optimizer.optimizer_args,
        "order": _order(training),
        **_moving(training),
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with new_files([path], overwrite=True) as (file,):
        file.write(buffer.getbuffer(), 0)


def load_state(path: str | os.PathLike[str], training: Training) -> None:
    """Bring a new training to where a saved one was.

    Raises:
        TrainError: it is no state, or one of another model, network, optimizer or dataset; the
            training is as it was.
    """
    with about_file(path):
        state, before = _read(path), copy.deepcopy(_moving(training))
        try:
            _require_same(state, training)
            _move(training, state)
        except TrainError:
            _move(training, before)
            raise
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            _move(training, before)
            raise TrainError(
                f"does not fit this training ({type(error).__name__}: {error}); resume with the options that it was "
                "saved with"
            ) from None


def require_resumable(path: str | os.PathLike[str], family: str, options: TrainOptions) -> None:
    """Raises `TrainError` unless a file is a state of this family and optimizer: what no dataset is needed for."""
    with about_file(path):
        state = _read(path)
        try:
            _require_options(state, family, options)
        except (KeyError, TypeError) as error:
            raise TrainError(f"is an incomplete state of a training ({type(error).__name__}: {error})") from None


def _moving(training: Training) -> dict[str, Any]:
    """All that a step changes, as it is now."""
    average = training.average
    return {
        "step": training.step,
        "network": training.network.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "scaler": training.scaler.state_dict(),
        "rates": training.rates.state_dict(),
        "average": None if average is None else average.values,
    }


def _move(training: Training, state: dict[str, Any]) -> None:
    training.network.load_state_dict(state["network"])
    training.optimizer.load_state_dict(state["optimizer"])
    training.scaler.load_state_dict(state["scaler"])
    training.rates.load_state_dict(state.get("rates", {}))  # older states have none
    if training.average is not None:
        training.average.load(state["average"])
    training.step = state["step"]


def _order(training: Training) -> dict[str, Any]:
    """What decides which items come in which step, and what is drawn for them."""
    run = training.options.run
    return {
        "items": [(list(item.latent.shape), item.repeats) for item in training.items],
        "batch_size": [(item.batch_size or run.batch_size) * training.world.processes for item in training.items],
        "network_alpha": training.options.network.alpha,  # the state's own would win, and the file tell another
        **{option.name: value for option, value in every_value(training.options) if option.draws},
    }


def _defaults() -> dict[str, Any]:
    """The defaults of the options that decide the order: a state that is older than such an option had them."""
    return {option.name: option.default for _, option in every_option() if option.draws}


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        if os.path.isdir(path):  # which Windows tells otherwise
            raise IsADirectoryError(path)
        with zipfile.ZipFile(path) as archive:  # torch reads damaged numbers as they are
            # Nothing is read of what is marked as a folder, and nothing is compressed: torch looks at neither.
            odd = (one for one in archive.infolist() if one.external_attr or one.file_size != one.compress_size)
            if damaged := archive.testzip() or next((one.filename for one in odd), None):
                raise TrainError(f"is damaged at {damaged}; resume from an earlier state")
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainError("there is no such file to resume from") from None
    except IsADirectoryError:
        raise TrainError(
            "is a folder, as Musubi Tuner and accelerate keep a state in; its optimizer is of another loop, so begin a "
            "new training from its adapter, with network_weights"
        ) from None
    except TrainError:
        raise
    except Exception as error:  # whatever zipfile and pickle stumble over in a file of any content
        raise TrainError(
            f"is no state of a training ({type(error).__name__}); expected NAME-…-state.pt that save_state wrote"
        ) from None
    if not isinstance(state, dict) or state.get("version") not in (_CROSSING, _NESTED, _VERSION):  # pyright: ignore[reportUnknownMemberType]
        raise TrainError(f"is no state of a training of version {_VERSION}; expected NAME-…-state.pt")
    return state  # pyright: ignore[reportUnknownVariableType]


def _require_options(state: dict[str, Any], family: str, options: TrainOptions) -> None:
    found = state["architecture"]
    if found != family:
        raise TrainError(
            f"is the state of a training of {found}, the model is {family}; resume with the model it is of"
        )
    kind = options.optimizer.optimizer_type
    if state["optimizer_type"] != kind:
        raise TrainError(f"has the state of {state['optimizer_type']}, optimizer_type is {kind}; set it back")
    args = options.optimizer.optimizer_args
    if state["optimizer_args"] != args:
        raise TrainError(
            f"has the state of optimizer_args {list(state['optimizer_args'])}, now {list(args)}; set it back"
        )
    if (state["average"] is None) != (not options.run.ema_decay):
        raise TrainError("ema_decay was " + ("set" if state["average"] else "0") + " when it was saved; set it back")


def _require_same(state: dict[str, Any], training: Training) -> None:
    _require_options(state, training.network.choice.architecture.id, training.options)
    if bool(state["scaler"]) != training.scaler.enabled:
        raise TrainError("mixed_precision was " + ("fp16" if state["scaler"] else "not fp16") + " when it was saved")
    batches, accumulated = len(training.batches), training.options.run.gradient_accumulation_steps
    if state["version"] == _CROSSING and batches % accumulated:
        raise TrainError(
            f"is of a version whose steps of {accumulated} batches went on across the end of an epoch of {batches}; "
            "they end with it now, so going on would not be the same training: begin a new one with network_weights"
        )
    now, before = _order(training), _defaults() | state["order"].get("noise", {}) | state["order"]
    if changed := [name for name, value in now.items() if before[name] != value]:
        raise TrainError(
            f"{', '.join(changed)} changed since it was saved, so going on would not be the same training; set them "
            "back, or begin a new one with network_weights"
        )
