"""*LoRA/LoHa/LoKr Stack Loader*: several adapters onto a model, a row each."""

import dataclasses
from typing import Any

from comfy_api.latest import io

from . import host
from .host.protocols import CLIP, ModelPatcher

STACK = "LORA_STACK"
"""As other packs have it, see `host.rows_of_stack`."""


class LoadAdapters(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LycoLoadAdapters",
            display_name="LoRA/LoHa/LoKr Stack Loader",
            category="model/loaders/lyco",
            description=(
                "Loads several LoHa, LoKr, LoRA or other adapters onto a model, one a row, each as exactly as Load "
                "LoHa/LoKr does. Those of a LORA_STACK come before its own rows."
            ),
            **host.search_aliases(
                "load adapters",
                "lora stack",
                "lora loader stack",
                "power lora loader",
                "multiple loras",
                "loha",
                "lokr",
            ),
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model to change; the input stays as it is."),
                *host.first_rows(),
                io.Clip.Input(
                    "clip", optional=True, tooltip="The text encoder, for files that were trained on it too."
                ),
                host.partial_input(optional=True),
                host.mode_input(),
                io.Custom(STACK).Input(
                    "lora_stack", optional=True, tooltip="Files of another node, loaded before those of the rows."
                ),
                *host.more_rows(),
                host.construct(
                    io.Float.Input,
                    "clip_strength",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.01,
                    optional=True,
                    tooltip=(
                        "Times each row's strength: how much of a file's part for the text encoder is added. 0 leaves "
                        "the text encoder as it is."
                    ),
                    advanced=True,
                ),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The model with the adapters."),
                io.Clip.Output(display_name="CLIP", tooltip="The text encoder with the adapters' parts for it."),
                io.String.Output(display_name="report", tooltip="What matched of each, and what was left out."),
                io.Custom(STACK).Output(
                    display_name="LORA_STACK",
                    tooltip="lora_stack and the rows that are on, for a node that loads them instead of this one.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> object:
        rows = host.rows_of(inputs)
        return [host.fingerprint(row.name) for row in rows if row.takes_part]

    @classmethod
    @host.acting(host.LOAD_ROWS)
    def execute(
        cls,
        model: ModelPatcher,
        clip: CLIP | None = None,
        on_partial_match: str = "error",
        mode: str = host.MODES[0],
        lora_stack: object = None,
        clip_strength: float = 1.0,
        **inputs: Any,
    ) -> io.NodeOutput:
        partial = on_partial_match == "warn"
        before = [] if lora_stack is None else host.rows_of_stack(lora_stack)
        own = [
            dataclasses.replace(row, clip_strength=row.strength * clip_strength)
            for row in host.rows_of(inputs)
            if row.takes_part
        ]
        loaded = host.load_rows(model, clip, [*before, *own], partial=partial, mode=mode)
        in_rows = host.match_ui(loaded.applied[len(before) :])
        return io.NodeOutput(loaded.model, loaded.clip, loaded.report, host.stack_of([*before, *own]), ui=in_rows)
