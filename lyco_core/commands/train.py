"""`lyco train`: an adapter by Musubi Tuner's options, with a ComfyUI's model code and without its server."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..console import shell_command
from ..errors import FileError, LycoError, Remedy
from ..installed import packs_in
from ..version import __version__
from .common import ADVICE, Commands

if TYPE_CHECKING:
    from .musubi_command import Command

__all__ = ["add"]

PACK = "comfyui_lyco"
"""What the node pack is imported as: it has its own copy of lyco_core, as in ComfyUI."""

SECRET = "wandb_api_key"
"""An option that is written down nowhere."""

REPOSITORY = "https://github.com/comfyui-lyco/comfyui-lyco"
"""Where the node pack comes from."""


USAGE = "lyco train [CONFIG.toml] [--OPTION VALUE …] …"

ABOUT = """
Options have Musubi Tuner's names, in CONFIG.toml, on the command line, which wins, or in both. Its own command runs
too, all of it typed behind `lyco train`. docs/training.md tells more.

  --config_file FILE   a configuration as Musubi reads it: paths in it start from the current folder
  --comfyui FOLDER     the ComfyUI [the configuration's, $COMFYUI_PATH, the one around this pack]
  --resume STATE       go on from a saved NAME-…-state.pt
  --show_timesteps console   only print how often each timestep is drawn and what its loss counts
  --check-options      only tell what becomes of every option; no file is opened but the configuration
"""


def add(commands: Commands) -> None:
    """Declare the command. `cli.py` hands it what is typed behind its name as it is, in `words`."""
    parser = commands.add_parser(
        "train", help="train an adapter by Musubi Tuner's options, with a ComfyUI's model code"
    )
    parser.usage, parser.description = USAGE, ABOUT
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from ..train.musubi.answers import require_answers
    from .musubi_command import read_command, without

    if not options.words:
        raise LycoError(
            "there is nothing to train; name a configuration, lyco train CONFIG.toml, or type Musubi Tuner's command "
            "behind lyco train; see lyco train --help"
        )
    asked = read_command(options.words)
    sys.argv[:] = without(sys.argv, SECRET)  # which wandb would keep with its run
    settings, folder = _settings(asked)
    if asked.check:
        _tell_options(settings, folder, asked)
        return
    require_answers(asked.launcher)
    if settings.pop("show_timesteps", None):
        _show_timesteps(settings, asked.script)
        return
    comfyui = _comfyui(settings.pop("comfyui", None), folder)
    headless = _headless(_pack(comfyui))
    errors = sys.modules[f"{PACK}.lyco_core.errors"]
    try:
        again = f"go on with: {_command(options.words)}{{}}"
        with errors.advising({errors.Remedy.AGAIN: again, errors.Remedy.OPTIONS: ADVICE[Remedy.OPTIONS]}):
            headless.train_from(settings, folder, comfyui, script=asked.script, beside=bool(asked.config))
    except errors.LycoError as error:
        raise LycoError(str(error)) from None


def _settings(asked: Command) -> tuple[dict[str, Any], Path]:
    """The options of a configuration and of the command line, which wins; and where relative paths start."""
    from ..io.toml import read_toml
    from ..train.musubi.answers import flattened

    path = Path(asked.config or asked.config_file or ".")
    folder = path.absolute().parent if asked.config else Path.cwd()
    if path == Path() or (asked.check and not path.exists()):
        return dict(asked.given), folder
    return {**flattened(read_toml(path)), **asked.given}, folder


def _tell_options(settings: dict[str, Any], folder: Path, asked: Command) -> None:
    """Print what becomes of every option. Raises `TrainError` if one is refused, or they do not go together."""
    from ..errors import TrainError
    from ..train.dataset import parse_datasets
    from ..train.musubi.answers import Fate, answered, option_words, own_options
    from ..train.options import train_options

    kept, answers = answered(settings, asked.script)
    answers = [*asked.launcher, *answers]
    print("\n".join(option_words(kept, answers, asked.script)))
    path = asked.config or asked.config_file
    if path and not os.path.exists(path):
        print(f"{path}: is not there, so what it says is not told")
    if refused := [answer.name for answer in answers if answer.fate is Fate.REFUSED]:
        raise TrainError(f"refused: {', '.join(refused)}")
    train_options(own_options(kept))
    for name in ("datasets", "validation_datasets"):
        if name in kept:
            parse_datasets({"general": kept.get("general", {}), "datasets": kept[name]}, folder)


def _show_timesteps(settings: dict[str, Any], script: str) -> None:
    """Print how timesteps are drawn. Raises `TrainError` for options that are refused."""
    from ..train.musubi.answers import answered, own_options, require_answers
    from ..train.musubi.scripts import SCRIPTS
    from ..train.options import train_options
    from ..train.shown_timesteps import timestep_words

    kept, answers = answered(settings, script)
    require_answers(answers)
    print("\n".join(timestep_words(train_options(own_options(kept)), SCRIPTS[script].families if script else ())))


def _command(words: Sequence[str]) -> str:
    """What was typed, as it is typed again, but for `--resume` and what nobody else should read."""
    from .musubi_command import without

    return shell_command([*_program(), "train", *without(without(words, "resume"), SECRET)])


def _program() -> list[str]:
    """How this program was called."""
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun's processes do not see how that was called
        return ["torchrun", f"--nproc-per-node={os.environ.get('LOCAL_WORLD_SIZE', '1')}", "-m", "lyco_core"]
    found, called = shutil.which("lyco"), Path(sys.argv[0])
    if called.stem == "lyco" and found and Path(found).parent == called.parent:
        return ["lyco"]
    return sys.orig_argv[: sys.orig_argv.index("train")] if "train" in sys.orig_argv else ["lyco"]


def _comfyui(named: object, folder: Path) -> Path:
    """The ComfyUI that is meant. Raises `FileError` if it is none."""
    from ..io.toml import path_of

    if named:
        places = [Path(path_of(named, "comfyui", folder))]
    elif variable := os.environ.get("COMFYUI_PATH"):
        places = [Path(variable)]
    else:
        places = [*Path(__file__).parents[3:5], Path.home() / "comfy" / "ComfyUI"]
    for place in places:
        if (place / "comfy" / "model_patcher.py").exists():
            return place.resolve()
    raise FileError(
        f"{', '.join(map(str, places))}: there is no ComfyUI; name its folder with --comfyui, or as comfyui in the "
        "configuration"
    )


def _pack(comfyui: Path) -> Path:
    """The node pack: the one around this file, else the one of the ComfyUI. Raises `FileError` if that has not one."""
    around = Path(__file__).parents[2]
    if (around / "nodes" / "headless.py").exists():
        return around
    found = packs_in(comfyui)
    if len(found) == 1:
        return found[0]
    nodes = comfyui / "custom_nodes"
    if not found:
        raise FileError(
            f"{nodes}: has no comfyui-lyco, and lyco train needs the node pack; git clone {REPOSITORY} "
            f'"{nodes / "comfyui-lyco"}", then run this again'
        )
    raise FileError(
        f"{nodes}: has the node pack {len(found)} times ({', '.join(pack.name for pack in found)}); call the one that "
        f'is meant: python "{found[0] / "lyco_core"}" train …'
    )


def _headless(pack: Path) -> ModuleType:
    """The pack's own module for this, imported as ComfyUI would import the pack."""
    spec = importlib.util.spec_from_file_location(PACK, pack / "__init__.py", submodule_search_locations=[str(pack)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = module
    spec.loader.exec_module(module)
    theirs = importlib.import_module(f"{PACK}.lyco_core.version").__version__
    if theirs != __version__:
        raise FileError(
            f"{pack}: is version {theirs} of the node pack, and this lyco is {__version__}; update the older one"
        )
    return importlib.import_module(f"{PACK}.nodes.headless")
