"""*Inspect Adapter*: what a file is, and what of it a model takes, without reading its tensors."""

from typing import Any

from comfy_api.latest import io

from . import host
from .host.protocols import ModelPatcher


class InspectAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LycoInspectAdapter",
            display_name="Inspect Adapter",
            category="model/loaders/lyco",
            description="Says what an adapter file is (format, architecture, algorithm, rank), and what a model takes.",
            **host.search_aliases("loha", "lokr", "lycoris", "lora info", "lora metadata"),
            is_output_node=True,
            inputs=[
                host.adapter_input(),
                io.Model.Input("model", optional=True, tooltip="A model to compare the file with."),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="What the file is, and what of it the model takes.")
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, adapter: str | None, **_: Any) -> object:
        return host.fingerprint(adapter)

    @classmethod
    @host.acting(host.INSPECT)
    def execute(cls, adapter: str, model: ModelPatcher | None = None) -> io.NodeOutput:
        report, compared = host.inspect(adapter, model)
        return io.NodeOutput(report, ui={"text": [report], **host.match_ui(compared)})
