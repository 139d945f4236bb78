"""*Merge into Checkpoint File*: from file to file, at the speed of the disk, in little memory."""

from typing import Any

from comfy_api.latest import io, ui

from . import host


class MergeCheckpoint(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LycoMergeCheckpoint",
            display_name="Merge into Checkpoint File",
            category="model/loaders/lyco",
            description=(
                "Writes a model's file with an adapter in its weights. Nothing is loaded: the file is streamed, so "
                "models larger than the memory will do. Saves under output, where the model loaders see it."
            ),
            **host.search_aliases("merge lora", "bake lora", "fuse lora", "save checkpoint", "loha", "lokr"),
            is_output_node=True,
            inputs=[
                io.Combo.Input(
                    "base", options=host.checkpoint_names(), tooltip="In models/diffusion_models or models/checkpoints."
                ),
                host.adapter_input(),
                host.strength_input(),
                io.String.Input("filename", default="", tooltip="Empty: the names of the base and the adapter."),
                *host.selection_inputs(),
                host.construct(
                    io.String.Input,
                    "more_adapters",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Merged in the same pass, one a line. An at sign and a strength may follow a name.",
                    advanced=True,
                ),
                host.partial_input(optional=True),
                host.construct(
                    io.Combo.Input,
                    "dtype",
                    options=["as it is", "float32", "float16", "bfloat16"],
                    default="as it is",
                    tooltip="Storage dtype of the diffusion model's weights.",
                    advanced=True,
                ),
                host.construct(
                    io.Combo.Input,
                    "quantize",
                    options=[host.AS_IT_IS, *host.QUANTIZED_FORMS],
                    default=host.AS_IT_IS,
                    optional=True,
                    tooltip=(
                        "How the Linears of a base in floating point are stored: those that ComfyUI's own files of the "
                        "model have so."
                    ),
                    advanced=True,
                ),
                host.construct(
                    io.Int.Input,
                    "rounding_seed",
                    default=-1,
                    min=-1,
                    max=2**31 - 1,
                    tooltip="-1: round to the nearest. Else round stochastically with this seed.",
                    advanced=True,
                ),
                host.construct(
                    io.Boolean.Input,
                    "gpu",
                    default=False,
                    tooltip="Do the arithmetic on the graphics card.",
                    advanced=True,
                ),
                host.construct(
                    io.Boolean.Input,
                    "overwrite",
                    default=False,
                    tooltip="Replace a file of this name under output.",
                    advanced=True,
                ),
            ],
            outputs=[
                # A combo of an older node is a list of names to ComfyUI, which no type but this one fits.
                io.AnyType.Output(display_name="name", tooltip="The new file's, for a model loader."),
                io.String.Output(display_name="report", tooltip="What was merged."),
            ],
        )

    @classmethod
    def fingerprint_inputs(
        cls, base: str | None, adapter: str | None, more_adapters: str | None = "", **_: Any
    ) -> object:
        more = host.adapter_list(adapter or "", 1.0, more_adapters or "")[1:]
        return (
            host.checkpoint_fingerprint(base),
            host.fingerprint(adapter),
            [host.fingerprint(name) for name, _ in more],
        )

    @classmethod
    @host.acting(host.MERGE_FILE)
    def execute(
        cls,
        base: str,
        adapter: str,
        strength: float,
        filename: str,
        include: str = "",
        exclude: str = "",
        block_strengths: str = "",
        more_adapters: str = "",
        dtype: str = "as it is",
        rounding_seed: int = -1,
        gpu: bool = False,
        overwrite: bool = False,
        on_partial_match: str = "error",
        quantize: str = "as it is",
    ) -> io.NodeOutput:
        selection = host.selection(include, exclude, block_strengths)
        partial = on_partial_match == "warn"
        options = host.merge_options(
            selection, dtype=dtype, quantize=quantize, rounding_seed=rounding_seed, gpu=gpu, partial=partial
        )
        adapters = host.adapter_list(adapter, strength, more_adapters)
        name, report = host.merge_files(base, adapters, options, filename, overwrite=overwrite)
        return io.NodeOutput(name, report, ui=ui.PreviewText(report))
