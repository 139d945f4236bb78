"""*Convert Musubi→Diffusers*: an adapter in another layout, losslessly, saved where the loaders see it."""

from typing import Any

from comfy_api.latest import io, ui

from ..lyco_core.layouts import Layout
from . import host


class ConvertAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LycoConvertAdapter",
            display_name="Convert Musubi→Diffusers",
            category="model/loaders/lyco",
            description=(
                "Writes an adapter of any layout in that of diffusers, ComfyUI or Musubi Tuner, losslessly: names "
                "change, rows are cut or stacked, and nothing is rounded unless a rank or a dtype is asked for. Saves "
                "under output/loras."
            ),
            **host.search_aliases(
                "convert lora", "convert lokr", "musubi", "diffusers", "comfyui", "peft", "lycoris", "loha"
            ),
            is_output_node=True,
            inputs=[
                host.adapter_input(replaced=True),
                io.Combo.Input(
                    "to",
                    options=["diffusers", "comfyui", "musubi"],
                    default="diffusers",
                    tooltip="Whose module names it is to have.",
                ),
                io.Combo.Input(
                    "form",
                    options=["as it is", "lora"],
                    default="as it is",
                    tooltip="lora: every LoHa and LoKr as the LoRA that equals it, for tools that know nothing else.",
                ),
                io.Int.Input(
                    "rank",
                    default=0,
                    min=0,
                    max=65536,
                    tooltip="0: exact. Else the best LoRAs of this rank; the report says what error that makes.",
                ),
                io.String.Input("filename", default="", tooltip="Empty: the file's own name and the layout's."),
                host.construct(
                    io.Combo.Input,
                    "dtype",
                    options=["as it is", "float32", "float16", "bfloat16"],
                    default="as it is",
                    tooltip="Storage dtype; the report says what error another one makes.",
                    advanced=True,
                ),
                host.overwrite_input(),
                host.lora_input(),
            ],
            outputs=[*host.new_file_outputs("How the modules came to be, sizes, and errors."), host.lora_output()],
        )

    @classmethod
    def fingerprint_inputs(cls, adapter: str | None, **_: Any) -> object:
        return host.fingerprint(adapter)

    @classmethod
    @host.acting(host.CONVERT)
    def execute(
        cls,
        adapter: str,
        to: Layout,
        form: str,
        rank: int,
        filename: str,
        dtype: str = "as it is",
        overwrite: bool = False,
        lora: object = None,
    ) -> io.NodeOutput:
        asked = host.conversion(to, as_lora=form == "lora", rank=rank, dtype=dtype)
        adapters = None if lora is None else host.adapters_of(lora)
        done = host.convert(adapter, asked, filename, overwrite=overwrite, adapters=adapters)
        return io.NodeOutput(done.name, done.report, done.lora, ui=ui.PreviewText(done.report))
