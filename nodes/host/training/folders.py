"""Which folders a dataset of the graph may be in: a workflow may come over the network."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator

import folder_paths
from comfy.cli_args import args

from ....lyco_core.errors import FileError, TrainError
from ....lyco_core.io.names import name_fault
from ....lyco_core.train.sample_prompt import CONTROL_VIDEO
from ..files import NONE

DEEPEST = 3
"""How far below ComfyUI's input folder folders are listed."""


def folder_names() -> list[str]:
    """The folders in ComfyUI's input folder, with forward slashes."""
    return sorted(_below(folder_paths.get_input_directory(), "", DEEPEST))


def _below(folder: str, name: str, deep: int) -> Iterator[str]:
    try:
        entries = [entry.name for entry in os.scandir(os.path.join(folder, name)) if entry.is_dir()]
    except OSError:  # nobody may look into it
        return
    for entry in entries:
        if not entry.startswith("."):
            yield (below := f"{name}/{entry}" if name else entry)
            if deep > 1:
                yield from _below(folder, below, deep - 1)


def folder_path(folder: str, path: str) -> str:
    """The folder that a node's inputs name. Raises `FileError` for one that is not there, or may not be read."""
    if path:
        return allowed_path("path", path)
    if folder == NONE:
        raise FileError(
            "no folder is chosen; put the pictures into a folder in ComfyUI's input folder, press R, choose it"
        )
    if folder not in folder_names():
        raise FileError(f"'{folder}': there is no such folder in ComfyUI's input folder; press R and choose one")
    return os.path.join(folder_paths.get_input_directory(), folder)


def allowed_path(name: str, path: str) -> str:
    """A path as a person gave it, if whoever reaches the server may have it read.

    Raises:
        FileError: it is not whole, or lies elsewhere than ComfyUI's folders while others can reach the server.
    """
    if os.path.splitdrive(path)[0].replace("/", "\\").startswith("\\\\"):
        # To look at it, Windows logs on to whatever computer a workflow names.
        raise FileError(f"{name} is '{path}', a share by its name; give it a drive letter, and name that")
    if not os.path.isabs(path):
        raise FileError(f"{name} is '{path}', expected a whole path, as {os.path.abspath(os.sep)}datasets")
    inside = [folder_paths.get_input_directory(), folder_paths.get_output_directory()]
    if not is_local() and not any(_within(path, folder) for folder in inside):
        raise FileError(
            f"{name} is '{path}': others can reach this server (--listen, --enable-cors-header), whose workflows may "
            "read ComfyUI's input and output folders alone; put a folder, or a link to it, there"
        )
    return path


def input_file(name: str, path: str) -> str:
    """The path of a file in ComfyUI's input folder, which is all that a workflow, wherever it comes from, may name;
    of a control video also of a folder of its frames.

    Raises `TrainError` for a path that leads elsewhere, and for one that is not there.
    """
    parts = path.replace("\\", "/").split("/")
    if fault := next(filter(None, map(name_fault, parts)), None):  # a whole path, a drive, a share or .. has one
        raise TrainError(f"{name} is '{path}', expected a file in ComfyUI's input folder; a part of it {fault}")
    folder = folder_paths.get_input_directory()
    found = os.path.join(folder, *parts)
    frames: list[str] = []
    if name == CONTROL_VIDEO and _within(found, folder) and os.path.isdir(found):
        frames = [os.path.join(found, entry) for entry in os.listdir(found)]
    if not all(_within(one, folder) for one in (found, *frames)) or not (frames or os.path.isfile(found)):
        raise TrainError(f"{name} is '{path}', and there is no such file in ComfyUI's input folder; put it there")
    return found


def is_local() -> bool:
    """Whether this computer alone reaches the server."""
    # With enable_cors_header ComfyUI answers pages of any origin.
    return args.enable_cors_header is None and all(_loops(address) for address in args.listen.split(","))


def _loops(address: str) -> bool:
    if address.strip() == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip()).is_loopback
    except ValueError:  # the name of a computer
        return False


def _within(path: str, folder: str) -> bool:
    """As ComfyUI's own nodes ask it: links do not lead out."""
    try:
        return os.path.commonpath([os.path.realpath(path), os.path.realpath(folder)]) == os.path.realpath(folder)
    except ValueError:  # another drive
        return False
