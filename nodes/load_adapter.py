"""*Load LoHa/LoKr*: an adapter onto a model, every module on its weight or a refusal."""

from typing import Any

from comfy_api.latest import io

from . import host
from .host.protocols import CLIP, ModelPatcher


class LoadAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LycoLoadAdapter",
            display_name="Load LoHa/LoKr",
            category="model/loaders/lyco",
            description=(
                "Loads a LoHa, LoKr or LoRA adapter onto a model, exactly: every module of the file lands "
                "on its weight, or the load is refused and says why."
            ),
            **host.search_aliases("load lora", "lora loader", "load lycoris", "musubi", "loha", "lokr"),
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model to change; the input stays as it is."),
                host.adapter_input(replaced=True),
                host.strength_input(),
                host.partial_input(),
                io.Clip.Input(
                    "clip", optional=True, tooltip="The text encoder, for files that were trained on it too."
                ),
                *host.selection_inputs(),
                host.mode_input(),
                host.construct(
                    io.Float.Input,
                    "scale",
                    default=0.0,
                    min=0.0,
                    max=1000.0,
                    step=0.0001,
                    optional=True,
                    tooltip=(
                        "0: as the file says (alpha / rank). Any other number is used instead, also for a LoKr of full "
                        "matrices, which trainers do not scale: for files that were trained by another rule."
                    ),
                    advanced=True,
                ),
                host.construct(
                    io.String.Input,
                    "strength_schedule",
                    default="",
                    optional=True,
                    tooltip=(
                        "What the strength is multiplied by over the steps: PART:NUMBER with commas between, from part "
                        "0 (noise) to 1 (the picture), a straight line between two. Example: 0:1, 0.3:0.8, 1:0. With "
                        "the word stepped before it each number holds until the next. Empty: always the same."
                    ),
                    advanced=True,
                ),
                host.lora_input(),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The model with the adapter."),
                io.Clip.Output(display_name="CLIP", tooltip="The text encoder with the adapter's part for it."),
                io.String.Output(display_name="report", tooltip="What matched, and what was left out."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, adapter: str | None, **_: Any) -> object:
        return host.fingerprint(adapter)

    @classmethod
    @host.acting(host.LOAD)
    def execute(
        cls,
        model: ModelPatcher,
        adapter: str,
        strength: float,
        on_partial_match: str = "error",
        clip: CLIP | None = None,
        include: str = "",
        exclude: str = "",
        block_strengths: str = "",
        mode: str = host.MODES[0],
        scale: float = 0.0,
        strength_schedule: str = "",
        lora: object = None,
    ) -> io.NodeOutput:
        adapters = None if lora is None else host.adapters_to_load(lora)
        selection = host.selection(include, exclude, block_strengths)
        loaded = host.load_onto(
            model,
            clip,
            adapter if adapters is None else host.LORA,
            strength,
            partial=on_partial_match == "warn",
            selection=selection,
            mode=mode,
            scale=scale or None,
            opened=adapters,
            schedule=host.Schedule.of(strength_schedule),
        )
        return io.NodeOutput(loaded.model, loaded.clip, loaded.report, ui=host.match_ui(loaded.applied))
