"""*Merge into Model*: adapters into the weights themselves."""

from typing import Any

from comfy_api.latest import io

from . import host
from .host.protocols import ModelPatcher


class MergeAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LycoMergeAdapter",
            display_name="Merge into Model",
            category="model/loaders/lyco",
            description=(
                "Adds a LoHa, LoKr or LoRA to the model's weights themselves, rounded once. Sampling afterwards costs "
                "nothing extra, and Save Model writes the result in the model's own dtype. Chain it for several files."
            ),
            **host.search_aliases("merge lora", "bake lora", "fuse lora", "loha", "lokr"),
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model; the input stays as it is."),
                host.adapter_input(),
                host.strength_input(),
                *host.selection_inputs(),
                host.partial_input(optional=True),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="A model of its own, with the adapter in its weights."),
                io.String.Output(display_name="report", tooltip="What was merged."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, adapter: str | None, **_: Any) -> object:
        return host.fingerprint(adapter)

    @classmethod
    @host.acting(host.MERGE_MODEL)
    def execute(
        cls,
        model: ModelPatcher,
        adapter: str,
        strength: float,
        include: str = "",
        exclude: str = "",
        block_strengths: str = "",
        on_partial_match: str = "error",
    ) -> io.NodeOutput:
        selection = host.selection(include, exclude, block_strengths)
        partial = on_partial_match == "warn"
        merged = host.merge_onto(model, adapter, strength, partial=partial, selection=selection)
        return io.NodeOutput(merged.model, merged.report, ui=host.match_ui(merged.applied))
