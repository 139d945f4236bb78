"""*LoRA/LoHa/LoKr Stack Loader*: several adapters onto a model, a row each."""

from typing import Any

from comfy_api.latest import io

from . import host
from .host.protocols import CLIP, ModelPatcher


class LoadAdapters(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LycoLoadAdapters",
            display_name="LoRA/LoHa/LoKr Stack Loader",
            category="model/loaders/lyco",
            description=(
                "Loads several LoHa, LoKr, LoRA or other adapters onto a model, one a row, each as exactly as Load "
                "LoHa/LoKr does. For more rows, put a second one behind it."
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
                *(widget for number in range(1, host.ROWS + 1) for widget in host.row_inputs(number)),
                io.Clip.Input(
                    "clip", optional=True, tooltip="The text encoder, for files that were trained on it too."
                ),
                host.partial_input(optional=True),
                host.mode_input(),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The model with the adapters."),
                io.Clip.Output(display_name="CLIP", tooltip="The text encoder with the adapters' parts for it."),
                io.String.Output(display_name="report", tooltip="What matched of each, and what was left out."),
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
        **inputs: Any,
    ) -> io.NodeOutput:
        partial = on_partial_match == "warn"
        loaded = host.load_rows(model, clip, host.rows_of(inputs), partial=partial, mode=mode)
        return io.NodeOutput(loaded.model, loaded.clip, loaded.report, ui=host.match_ui(loaded.applied))
