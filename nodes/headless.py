"""Training without a server: a configuration, a ComfyUI for its model code, and as many processes as torchrun started.

This and `terminal.py` are the modules of `nodes` that are imported before ComfyUI is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import os
import signal
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..lyco_core.architectures import TrainedFamily
from ..lyco_core.console import shell_command
from ..lyco_core.errors import FileError, Remedy, TrainError, about_file
from ..lyco_core.model import Model
from ..lyco_core.train.checking import require_other, require_possible, require_readable
from ..lyco_core.train.configuration import Configuration, read_configuration
from ..lyco_core.train.control_videos import require_control_videos, require_no_control_videos
from ..lyco_core.train.distributed import World, accelerator, join, leave
from ..lyco_core.train.first_frames import FirstFrame, first_frame
from ..lyco_core.train.layers import require_layers
from ..lyco_core.train.references import References, require_controls
from ..lyco_core.train.samples import references_of_prompts, require_fitting
from ..lyco_core.train.targets import choose_targets
from .terminal import Stopped, Terminal, newest_state

if TYPE_CHECKING:
    from .host.protocols import ModelPatcher
    from .host.training.run import Data
    from .host.training.samples import Sampling

log = logging.getLogger("lyco")

STOPS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
"""Signals that ask for an end, where the system has them."""


def train_from(
    settings: Mapping[str, Any], folder: Path, comfyui: Path, *, script: str = "", beside: bool = True
) -> None:
    """Run the training that a configuration describes, in this process or those of torchrun.

    Args:
        settings, folder, script, beside: as `read_configuration` has them.
        comfyui: the folder of the ComfyUI whose model code it is.

    Raises:
        LycoError: something is wrong with what is asked for, or goes wrong.
    """
    configuration = read_configuration(settings, folder, script=script, beside=beside)
    world = join()  # takes its GPU before ComfyUI looks for one
    try:
        start(comfyui, quiet=not world.writes)
        for note in configuration.notes:
            log.info("%s", note)
        data, sampling = _encoded(configuration, world)
        with stopping() as signals:
            _train(configuration, data, Terminal(world, signals), world, sampling)
    except (Stopped, KeyboardInterrupt):
        options = configuration.options
        state = newest_state(configuration.output_dir, options.save.output_name) or options.run.resume
        resume = f" {shell_command(['--resume', os.path.abspath(state)])}" if state else ""
        raise TrainError("stopped; what was encoded or trained so far is saved", Remedy.AGAIN, resume) from None
    finally:
        leave(world)


def start(comfyui: Path, *, quiet: bool) -> None:
    """Make ComfyUI's modules importable, on the CPU where there is no GPU.

    Raises `FileError` if what they need is not installed.
    """
    pack = Path(__file__).resolve().parents[1]
    # ComfyUI's packages have names like `utils` and `nodes`: they come first, and ours not at all.
    sys.path[:] = [str(comfyui), *(place for place in sys.path if Path(place or ".").resolve() != pack)]
    sys.modules.pop("nodes", None)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        from comfy.cli_args import args

        if accelerator() is None:
            log.info("torch finds no GPU here: the CPU trains")
            args.cpu = True
        importlib.import_module("comfy.sd")
    except ImportError as error:
        raise FileError(f"{comfyui}: cannot be imported: {error}; pip install -r {comfyui}/requirements.txt") from None


@contextlib.contextmanager
def stopping() -> Generator[list[int]]:
    """Inside, the first of each of `STOPS` is only noted in the list that this yields, and acts between two steps."""
    noted: list[int] = []

    def remember(number: int, _: object) -> None:
        noted.append(number)
        signal.signal(number, signal.default_int_handler)

    # What is ignored stays so: nohup's SIGHUP. SIGHUP is a terminal that is closed, SIGBREAK Windows' Ctrl+Break.
    numbers = [getattr(signal, name) for name in STOPS if hasattr(signal, name)]
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, remember) for number in heard}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _encoded(configuration: Configuration, world: World) -> tuple[Data, Sampling | None]:
    """The encoded datasets and prompts of a configuration; in the cache they stay if this is stopped."""
    from .host.training.encoders import Encoders
    from .host.training.encoding import encode_datasets
    from .host.training.run import Data
    from .host.training.samples import from_files

    trained, kind, references, shown = _require_possible(configuration, world)
    names = configuration.vae, configuration.text_encoders, configuration.clip_type
    seen, drops = configuration.image_encoder if kind else "", configuration.options.run.caption_dropout_rate > 0
    encoders = Encoders(trained, *names, kind, seen, references, drops)
    encoded = encode_datasets(configuration.datasets, encoders, world)
    held_out = encode_datasets(configuration.validation, encoders, world).items if configuration.validation else []
    seed, first = configuration.options.run.seed, configuration.datasets[0]
    sampling = from_files(configuration.prompts, seed, first, dataclasses.replace(encoders, references=shown), world)
    described = [dataset.told() for dataset in configuration.datasets]
    return Data(encoded.items, encoded.empty, held_out, described), sampling


def _require_possible(
    configuration: Configuration, world: World
) -> tuple[TrainedFamily, FirstFrame | None, References | None, References | None]:
    """How the model's family is trained, and how it comes by first frames and control images, those of the datasets and
    those of samples, once all is checked that needs no model in memory.

    Raises `LycoError`.
    """
    from .host.training.adapter_files import musubi_adapters

    require_readable(configuration.dit)
    weights, options = Model.of_file(configuration.dit), configuration.options
    given = {"empty": True, "validation": bool(configuration.validation)}
    family, trained = require_possible(
        options, weights.architecture, configuration.output_dir, **given, processes=world.processes
    )
    with about_file(configuration.dit):
        if configuration.families and family.id not in configuration.families:
            raise TrainError(
                f"is of {family.title}, and the script that is named trains {', '.join(configuration.families)}; name "
                "another of the two"
            )
        kind = first_frame(weights, configuration.image_encoder, configuration.task)
        first_removed = configuration.first_removed
        shown = references_of_prompts(
            weights, configuration.prompts, configuration.edition, first_removed=first_removed
        )
        require_fitting(weights, configuration.prompts, kind, shown)
        if weights.layout != "diffusers":  # which ComfyUI joins and renames as it loads them
            choose_targets(weights, options.network)
    if configuration.dit_high_noise:
        require_other(configuration.dit_high_noise, weights, options)
    if path := options.run.network_weights:
        with about_file(path):
            musubi_adapters(path, family)
    datasets = (*configuration.datasets, *configuration.validation)
    version = configuration.edition
    references = require_layers(weights, datasets, version, first_removed=first_removed)
    if kind and kind.control:
        require_control_videos(datasets)
        return trained, kind, None, shown
    require_no_control_videos(datasets, family.title)
    references = references or require_controls(
        weights, datasets, version, edits=configuration.edits, task=configuration.task
    )
    return trained, kind, references, shown


def _train(configuration: Configuration, data: Data, tell: Terminal, world: World, sampling: Sampling | None) -> None:
    from .host.training.run import train

    done = train(
        _load(configuration.dit),
        data,
        configuration.options,
        configuration.output_dir,
        tell,
        saved=tell.saved,
        world=world,
        high=_load(configuration.dit_high_noise) if configuration.dit_high_noise else None,
        model=os.path.basename(configuration.dit),
        vae=os.path.basename(configuration.vae),
        sampling=sampling and dataclasses.replace(sampling, told=tell.sampled, check=tell.between),
    )
    if world.writes:
        print(done.report)


def _load(path: str) -> ModelPatcher:
    import comfy.sd

    from .host.training.memory import memory_for
    from .host.training.run import LOADING_HELPS

    try:
        with memory_for("the model was loaded", LOADING_HELPS):
            return comfy.sd.load_diffusion_model(path)
    except (RuntimeError, OSError, ValueError) as error:
        raise TrainError(f"{path}: ComfyUI cannot load it as a diffusion model: {error}") from None
