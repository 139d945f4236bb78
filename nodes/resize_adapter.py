"""*Resize Adapter*: an adapter of less rank."""

from typing import Any

from comfy_api.latest import io, ui

from . import host


class ResizeAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LycoResizeAdapter",
            display_name="Resize Adapter",
            category="model/loaders/lyco",
            description=(
                "Saves an adapter with less rank under output/loras; every module keeps its algorithm and its name. An "
                "approximation: the report says the error of it."
            ),
            **host.search_aliases("resize lora", "shrink lora", "lora rank", "svd", "loha", "lokr"),
            is_output_node=True,
            inputs=[
                host.adapter_input(),
                *host.smallness_inputs(),
                io.String.Input("filename", default="", tooltip="Empty: the file's own name and _small."),
                host.overwrite_input(),
            ],
            outputs=host.new_file_outputs("How large the error is, in all and of the worst modules."),
        )

    @classmethod
    def fingerprint_inputs(cls, adapter: str | None, **_: Any) -> object:
        return host.fingerprint(adapter)

    @classmethod
    @host.acting(host.RESIZE)
    def execute(
        cls, adapter: str, by: str, rank: int, share: float, filename: str, overwrite: bool = False
    ) -> io.NodeOutput:
        name, report = host.resize(adapter, host.limits(by, rank, share), filename, overwrite=overwrite)
        return io.NodeOutput(name, report, ui=ui.PreviewText(report))
