"""What `lyco train` is asked for: the settings of a configuration or of Musubi's command, read and checked."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ..errors import TrainError
from ..io.toml import path_of, read_toml
from .dataset import Dataset, parse_datasets
from .first_frames import first_frame_settings
from .musubi.answers import answered, edition, flattened, notes_of, own_options, require_answers
from .musubi.scripts import SCRIPTS
from .options import TrainOptions, every_option, train_options
from .rules import FileName, Prompts
from .sample_prompt import SamplePrompt
from .samples import prompts_in

__all__ = ["Configuration", "read_configuration"]

SEEING = r"model\.visual\..*"
"""What HiDream-O1 sees control images with, which Musubi Tuner trains too with `task` i2i."""


@dataclasses.dataclass(frozen=True)
class Configuration:
    """What a training without a server is to do, checked as far as it can be before anything is loaded."""

    dit: str
    vae: str
    text_encoders: tuple[str, ...]
    clip_type: str
    image_encoder: str
    task: str
    """As a command of Musubi's has it; the model's file is asked too."""
    output_dir: str
    datasets: tuple[Dataset, ...]
    validation: tuple[Dataset, ...]
    options: TrainOptions
    dit_high_noise: str = ""
    families: tuple[str, ...] = ()
    """Ids of the architectures that the script of Musubi's trains whose command this is; empty: it is none's."""
    notes: tuple[str, ...] = ()
    """What a person should know of options that do nothing here."""
    edition: str = ""
    """Of Qwen-Image: its `model_version`."""
    first_removed: bool = False
    """Of Qwen-Image-Layered: whether its layers alone are learned, and not the whole picture."""
    edits: bool = False
    """Whether the script that is named trains edit models alone."""
    prompts: tuple[SamplePrompt, ...] = ()
    """Of its samples."""


def read_configuration(
    settings: Mapping[str, Any], folder: Path, *, script: str = "", beside: bool = True
) -> Configuration:
    """The checked configuration of settings.

    Args:
        settings: `dit`, `vae`, `text_encoder`, `clip_type`, `output_dir`; options by Musubi's names,
            at the top or in tables of any name; `general` and `datasets`, here or in the file
            `dataset_config`; `validation_datasets`.
        folder: what relative paths start from.
        script: of Musubi's, without `.py`, whose command this is; empty: none.
        beside: whether relative paths in `dataset_config` start from its folder, rather than, as in Musubi, from
            `folder`.

    Raises:
        TrainError: an option is refused, or says what it may not.
        FileError: a file that is named cannot be read.
    """
    rest, answers = answered(flattened(settings), script)
    require_answers(answers)
    datasets, validation = _datasets(rest, folder, beside=beside)
    version = edition(rest)
    named = ("dit", "vae", "output_dir", "dit_high_noise")
    dit, vae, output, high = (path_of(rest.pop(name, ""), name, folder) for name in named)
    if not dit:
        raise TrainError("no dit is named: the diffusion model's file; give dit")
    given = rest.pop("text_encoder", "")
    encoders = cast(list[Any], given) if isinstance(given, list) else [given]
    texts = tuple(path_of(name, "text_encoder", folder) for name in encoders if name)
    image_encoder, task = first_frame_settings(rest, settings, folder)
    if key := rest.pop("wandb_api_key", ""):
        os.environ["WANDB_API_KEY"] = str(key)  # where wandb reads it, and nothing writes it down
    files = [option.name for _, option in every_option() if isinstance(option.rule, (FileName, Prompts))]
    rest |= {name: path_of(rest[name], name, folder) for name in files if isinstance(rest.get(name, ()), str)}
    clip_type, first_removed = (rest.pop(name, "") for name in ("clip_type", "remove_first_image_from_target"))
    options = train_options(own_options(rest))
    if task == "i2i":
        patterns = (*options.network.include_patterns, SEEING)
        options = dataclasses.replace(options, network=dataclasses.replace(options.network, include_patterns=patterns))
    return Configuration(
        dit=dit,
        vae=vae,
        text_encoders=texts,
        clip_type=str(clip_type),
        image_encoder=image_encoder,
        task=task,
        output_dir=output or str(folder / "output"),
        datasets=datasets,
        validation=validation,
        options=options,
        dit_high_noise=high,
        families=SCRIPTS[script].families if script else (),
        notes=notes_of(answers),
        edition=version,
        first_removed=bool(first_removed),
        edits=script == "flux_kontext_train_network",
        prompts=prompts_in(options, folder),
    )


def _datasets(rest: dict[str, Any], folder: Path, *, beside: bool) -> tuple[tuple[Dataset, ...], tuple[Dataset, ...]]:
    """Those to train on and those held out, taken out of the settings."""
    if described := path_of(rest.pop("dataset_config", ""), "dataset_config", folder):
        found, place = read_toml(Path(described)), Path(described).parent if beside else folder
    else:
        found, place = {name: rest.pop(name) for name in ("general", "datasets") if name in rest}, folder
    held_out = rest.pop("validation_datasets", None)
    validation = parse_datasets({**found, "datasets": held_out}, place) if held_out else ()
    return parse_datasets(found, place), validation
