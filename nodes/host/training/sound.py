"""Samples of what is heard: ACE-Step's songs, by the nodes of ComfyUI's workflows of it."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import folder_paths
from comfy_api.latest import io, ui
from torch import Tensor

from ....lyco_core.errors import TrainError
from ....lyco_core.train.sample_prompt import OF_SOUND, SamplePrompt, about_prompt
from ..protocols import CLIP, VAE, Conditioning, ModelPatcher
from .comfy_nodes import run_node
from .outputs import written

_NODES = {
    "ace_step": ("TextEncodeAceStepAudio", "EmptyAceStepLatentAudio"),
    "ace_step_1_5": ("TextEncodeAceStepAudio15", "EmptyAceStep15LatentAudio"),
}
"""Id of an architecture -> the class of the node that reads its text, and of the one that makes its empty latent."""

_UNLESS_SAID: Mapping[str, Any] = {"lyrics": "", "seconds": 30.0, "timesignature": "4", "keyscale": "C major"}
"""What a prompt has that says nothing of it; of all else, what the node has."""


def sound_inputs(
    prompts: Sequence[SamplePrompt], seeds: Sequence[int], family: str, clip: CLIP
) -> list[tuple[list[Conditioning], list[Conditioning]]]:
    """What samples of sound are made of: tags and lyrics, and the same as zeros, which the workflow has as negative.

    Raises `TrainError` for what the node does not take.
    """
    made: list[tuple[list[Conditioning], list[Conditioning]]] = []
    for number, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True), 1):
        with about_prompt(number):
            positive = run_node(_node(family, 0), clip=clip, **_inputs(prompt, seed, family))[0]
        negative = run_node(_class_of("nodes", "ConditioningZeroOut"), conditioning=positive)[0]
        made.append((positive, negative))
    return made


def _inputs(prompt: SamplePrompt, seed: int, family: str) -> dict[str, Any]:
    """The node's inputs but its text encoder, as a prompt says them."""
    said = {name: getattr(prompt, name) for name in OF_SOUND}
    given = {name: value for name, value in said.items() if value is not None}
    told = {**_UNLESS_SAID, **given, "tags": prompt.prompt, "seed": seed}
    told["duration"] = told.pop("seconds")
    taken = {one.id: one for one in _node(family, 0).define_schema().inputs if one.id != "clip"}
    if unknown := [name for name in given if name not in taken and name != "seconds"]:
        raise TrainError(f"{', '.join(unknown)}: the model does not read it; leave it out")
    values = {name: told.get(name, getattr(one, "default", None)) for name, one in taken.items()}
    for name, one in taken.items():
        if isinstance(one, io.Combo.Input) and one.options and values[name] not in one.options:
            raise TrainError(f"{name} is '{values[name]}', expected one of {', '.join(map(str, one.options))}")
    return values


def _node(family: str, which: int) -> Any:
    return _class_of("comfy_extras.nodes_ace", _NODES[family][which])


def _class_of(module: str, name: str) -> Any:
    """The class of a node. Raises `TrainError` if this ComfyUI lacks it."""
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise TrainError(f"this ComfyUI has no node {name}, which samples of sound need; update it") from None


@dataclasses.dataclass(frozen=True)
class Heard:
    """`outputs.Form` of a family that makes sound."""

    family: str

    def shape(self, patcher: ModelPatcher, prompt: SamplePrompt, vae: VAE) -> tuple[int, ...]:
        """See `outputs.Form`."""
        seconds = _UNLESS_SAID["seconds"] if prompt.seconds is None else prompt.seconds
        shape = tuple(run_node(_node(self.family, 1), seconds=seconds, batch_size=1)[0]["samples"].shape)
        if 0 in shape:
            raise TrainError(f"seconds is {seconds:g}, which is too short")
        return shape

    def decoded(self, vae: VAE, latent: Tensor) -> Sound:
        """See `outputs.Form`."""
        node = _class_of("comfy_extras.nodes_audio", "VAEDecodeAudio")
        return Sound(run_node(node, vae=vae, samples={"samples": latent})[0])


@dataclasses.dataclass(frozen=True)
class Sound:
    """`outputs.Output` that is heard."""

    audio: Mapping[str, Any]
    """ComfyUI's AUDIO."""
    frames = None

    def write(self, path: str) -> tuple[str, ...]:
        """A FLAC, by ComfyUI's own code, which has its own names in ComfyUI's folder of temporary files."""

        (made,) = ui.AudioSaveHelper.save_audio(dict(self.audio), "lyco_sample", io.FolderType.temp, None)
        theirs = os.path.join(folder_paths.get_temp_directory(), made["subfolder"], made["filename"])
        with open(theirs, "rb") as file:
            data = file.read()
        os.remove(theirs)
        return (written(path + ".flac", data),)
