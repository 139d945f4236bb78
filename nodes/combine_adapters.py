"""*Combine Adapters*: one adapter out of several."""

from typing import Any

from comfy_api.latest import io, ui

from . import host


class CombineAdapters(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LycoCombineAdapters",
            display_name="Combine Adapters",
            category="model/loaders/lyco",
            description=(
                "Makes one adapter out of several LoHa, LoKr, LoRA or others for one model family, at a strength each, "
                "and saves it under output/loras. A sum is exact unless a rank is asked for; else the report says the "
                "error of it."
            ),
            **host.search_aliases(
                "combine lora", "join lora", "merge several loras", "ties", "dare", "slerp", "loha", "lokr"
            ),
            is_output_node=True,
            inputs=[
                *host.first_rows(),
                io.Combo.Input(
                    "method",
                    options=list(host.COMBINE_METHODS),
                    default="sum",
                    tooltip=(
                        "sum: what loading all of them does. average: of checkpoints of one training. The others keep "
                        "part of each change, so they need a rank, but for knots."
                    ),
                ),
                io.Combo.Input(
                    "form",
                    options=[host.AS_IT_IS, "lora", "lokr", "loha"],
                    default=host.AS_IT_IS,
                    tooltip="What every module becomes. As it is: what it can stay; with a rank, LoRA.",
                ),
                io.Int.Input(
                    "rank",
                    default=0,
                    min=0,
                    max=65536,
                    tooltip="0: exact. Else of at most this rank; the report says what error that makes.",
                ),
                io.String.Input("filename", default="", tooltip="Empty: the first file's own name and _combined."),
                *_advanced(),
                host.overwrite_input(),
                *host.more_rows(),
                *host.lora_inputs_beside_rows(),
            ],
            outputs=[
                *host.new_file_outputs("What was combined, the ranks, and the errors."),
                host.lora_output(),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, base: str | None = host.NONE, **inputs: Any) -> object:
        known = [host.fingerprint(row.name) for row in host.rows_of(inputs) if row.takes_part]
        return known if base == host.NONE else [*known, host.checkpoint_fingerprint(base)]

    @classmethod
    @host.acting(host.COMBINE)
    def execute(
        cls,
        method: str = "sum",
        form: str = host.AS_IT_IS,
        rank: int = 0,
        filename: str = "",
        density: float = 0.0,
        seed: int = 0,
        to: str = host.AS_IT_IS,
        dtype: str = host.AS_IT_IS,
        base: str = host.NONE,
        overwrite: bool = False,
        lora_model: object = None,
        lora_model_strength: float = 1.0,
        **inputs: Any,
    ) -> io.NodeOutput:
        asked = host.combination(method, form, rank, density=density, seed=seed, to=to, dtype=dtype, base=base)
        done = host.combine(
            host.rows_of(inputs),
            asked,
            filename,
            overwrite=overwrite,
            lora=lora_model,
            lora_strength=lora_model_strength,
        )
        return io.NodeOutput(done.name, done.report, done.lora, ui=ui.PreviewText(done.report))


def _advanced() -> list[io.Input]:
    return [
        host.construct(
            io.Float.Input,
            "density",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.001,
            optional=True,
            tooltip="Share of each change's numbers that ties, dare, della, breadcrumbs and knots keep. 0: their own.",
            advanced=True,
        ),
        host.construct(
            io.Int.Input,
            "seed",
            default=0,
            min=0,
            max=2**32 - 1,
            optional=True,
            control_after_generate=False,
            tooltip="What dare and della draw from.",
            advanced=True,
        ),
        host.construct(
            io.Combo.Input,
            "to",
            options=[host.AS_IT_IS, "diffusers", "comfyui", "musubi"],
            default=host.AS_IT_IS,
            optional=True,
            tooltip="Whose module names it is to have. As it is: those of the first file.",
            advanced=True,
        ),
        host.construct(
            io.Combo.Input,
            "dtype",
            options=[host.AS_IT_IS, "float32", "float16", "bfloat16"],
            default=host.AS_IT_IS,
            optional=True,
            tooltip="Storage dtype; the report says what error another one makes.",
            advanced=True,
        ),
        host.construct(
            io.Combo.Input,
            "base",
            options=[host.NONE, *host.checkpoint_names()],
            default=host.NONE,
            optional=True,
            tooltip="The checkpoint that they were trained on, for DoRA, OFT and others that change its own numbers.",
            advanced=True,
        ),
    ]
