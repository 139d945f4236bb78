"""*Load Adapters*: several adapters onto a model, a row each."""

from typing import Any

from comfy_api.latest import io

from . import host
from .host.protocols import CLIP, ModelPatcher


class LoadAdapters(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LycoLoadAdapters",
            display_name="Load Adapters",
            category="model/loaders/lyco",
            description=(
                "Loads several LoHa, LoKr, LoRA or other adapters onto a model, one a row, each as exactly as Load "
                "LoHa/LoKr does. For more rows, put a second one behind it."
            ),
            **host.search_aliases(
                "lora stack", "lora loader stack", "power lora loader", "multiple loras", "loha", "lokr"
            ),
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model to change; the input stays as it is."),
                *(widget for number in range(1, host.ROWS + 1) for widget in _row(number)),
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
        rows = _rows(inputs)
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
        loaded = host.load_rows(model, clip, _rows(inputs), partial=partial, mode=mode)
        return io.NodeOutput(loaded.model, loaded.clip, loaded.report, ui=host.match_ui(loaded.applied))


def _row(number: int) -> list[io.Input]:
    first = number == 1
    return [
        host.adapter_input(f"adapter_{number}", may_be_none=True, optional=not first),
        io.Float.Input(
            f"strength_{number}",
            default=1.0,
            min=-100.0,
            max=100.0,
            step=0.01,
            optional=not first,
            tooltip="How much of its change is added.",
        ),
        io.Boolean.Input(f"on_{number}", default=True, optional=not first, tooltip="Off: as if the row were empty."),
    ]


def _rows(inputs: dict[str, Any]) -> list[host.Row]:
    """The rows; what an API workflow leaves out is an empty row. A linked value is None until it is known."""
    return [
        host.Row(
            inputs.get(f"adapter_{number}") or host.NONE,
            inputs.get(f"strength_{number}", 1.0),
            inputs.get(f"on_{number}", True) is not False,
        )
        for number in range(1, host.ROWS + 1)
    ]
