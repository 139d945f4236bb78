"""*Extract Adapter*: what turns one checkpoint into another, as a LoRA, LoKr or LoHa."""

from typing import Any

from comfy_api.latest import io, ui

from . import host


class ExtractAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LycoExtractAdapter",
            display_name="Extract Adapter",
            category="model/loaders/lyco",
            description=(
                "Finds the adapter nearest to the difference of two checkpoints and saves it under output/loras. An "
                "approximation: the report says the error of it."
            ),
            **host.search_aliases("extract lora", "extract lokr", "svd", "model difference", "loha", "lokr"),
            is_output_node=True,
            inputs=[
                io.Combo.Input("base", options=host.checkpoint_names(), tooltip="The checkpoint that was tuned."),
                io.Combo.Input("tuned", options=host.checkpoint_names(), tooltip="What it was tuned into."),
                io.Combo.Input("form", options=["lora", "lokr", "loha"], default="lora", tooltip="The algorithm."),
                *host.smallness_inputs(zero_means="0: a LoKr's W2 stays a full matrix."),
                io.String.Input("filename", default="", tooltip="Empty: the tuned checkpoint's name and the form."),
                host.construct(
                    io.Int.Input,
                    "factor",
                    default=-1,
                    min=-1,
                    max=65536,
                    optional=True,
                    tooltip="Of a LoKr: one side of W1; -1 splits evenly.",
                    advanced=True,
                ),
                host.construct(
                    io.Combo.Input,
                    "dtype",
                    options=["float32", "float16", "bfloat16"],
                    default="bfloat16",
                    optional=True,
                    tooltip="Storage dtype; its rounding counts in the error.",
                    advanced=True,
                ),
                host.overwrite_input(),
            ],
            outputs=host.new_file_outputs("How large the error is, in all and of the worst modules."),
        )

    @classmethod
    def fingerprint_inputs(cls, base: str | None, tuned: str | None, **_: Any) -> object:
        return [host.checkpoint_fingerprint(base), host.checkpoint_fingerprint(tuned)]

    @classmethod
    @host.acting(host.EXTRACT)
    def execute(
        cls,
        base: str,
        tuned: str,
        form: str,
        by: str,
        rank: int,
        share: float,
        filename: str,
        factor: int = -1,
        dtype: str = "bfloat16",
        overwrite: bool = False,
    ) -> io.NodeOutput:
        full = form == "lokr" and by == "rank" and rank == 0
        small = None if full else host.limits(by, rank, share)
        name, report = host.extract(base, tuned, form, small, factor, dtype, filename, overwrite=overwrite)
        return io.NodeOutput(name, report, ui=ui.PreviewText(report))
