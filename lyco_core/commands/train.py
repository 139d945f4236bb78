"""`lyco train`: an adapter from a configuration, with a ComfyUI's model code and without its server."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

from ..console import shell_command
from ..errors import FileError, LycoError
from ..installed import packs_in
from ..version import __version__
from .common import Commands

__all__ = ["add"]

PACK = "comfyui_lyco"
"""What the node pack is imported as: it has its own copy of lyco_core, as in ComfyUI."""

REPOSITORY = "https://github.com/comfyui-lyco/comfyui-lyco"
"""Where the node pack comes from."""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("train", help="train an adapter from a configuration, with a ComfyUI's model code")
    parser.add_argument("config", metavar="CONFIG.toml", help="options by Musubi Tuner's names; see docs/training.md")
    parser.add_argument(
        "--comfyui", metavar="FOLDER", help="the ComfyUI [the configuration's, $COMFYUI_PATH, the one around this pack]"
    )
    parser.add_argument("--resume", metavar="STATE", help="go on from a saved NAME-…-state.pt")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from ..io.toml import read_toml

    settings, folder = read_toml(Path(options.config)), Path(options.config).absolute().parent
    if options.resume:
        settings["resume"] = os.path.abspath(options.resume)
    comfyui = _comfyui(options.comfyui or settings.pop("comfyui", None), folder)
    headless = _headless(_pack(comfyui))
    errors = sys.modules[f"{PACK}.lyco_core.errors"]
    try:
        with errors.advising({errors.Remedy.AGAIN: f"go on with: {_command(options)}{{}}"}):
            headless.train_from(settings, folder, comfyui)
    except errors.LycoError as error:
        raise LycoError(str(error)) from None


def _command(options: argparse.Namespace) -> str:
    """What was typed, as it is typed again, but for `--resume`."""
    words = [*_program(), "train", options.config]
    return shell_command([*words, "--comfyui", options.comfyui] if options.comfyui else words)


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
