"""*Compare Adapters*: whether two adapters add up, pass each other by, or fight."""

from typing import Any

from comfy_api.latest import io, ui

from . import host


class CompareAdapters(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LycoCompareAdapters",
            display_name="Compare Adapters",
            category="model/loaders/lyco",
            description=(
                "Says how two adapters of one model family lie to each other: how large both changes are and together, "
                "where they add up, pass each other by or fight, and strengths that keep the norm."
            ),
            **host.search_aliases("compare lora", "lora similarity", "lora conflict", "loha", "lokr"),
            is_output_node=True,
            inputs=[
                *host.row_inputs(1),
                *host.row_inputs(2),
                host.construct(
                    io.Combo.Input,
                    "base",
                    options=[host.NONE, *host.checkpoint_names()],
                    default=host.NONE,
                    optional=True,
                    tooltip="The checkpoint that they were trained on, for DoRA, OFT and others that change its own "
                    "numbers.",
                    advanced=True,
                ),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="Norms, cosines and shared spaces by kind and block.")
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, base: str | None = host.NONE, **inputs: Any) -> object:
        known = [host.fingerprint(row.name) for row in host.rows_of(inputs) if row.takes_part]
        return known if base == host.NONE else [*known, host.checkpoint_fingerprint(base)]

    @classmethod
    @host.acting(host.COMPARE)
    def execute(cls, base: str = host.NONE, **inputs: Any) -> io.NodeOutput:
        report = host.compare(host.rows_of(inputs), base)
        return io.NodeOutput(report, ui=ui.PreviewText(report))
