"""What the nodes' schemas share, and how they fit every ComfyUI that the pack runs in."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from ...lyco_core.selection import Selection, parse_block_strength
from .files import NONE, adapter_names
from .model.beside import MODES
from .model.lora_model import LORA, LORA_MODEL
from .model.many import FIRST_ROWS, ROWS, Row

ADAPTER = "lyco_adapter"
"""Marks an input that chooses an adapter, for the page, which is served it with the schema."""

BY = ("rank", "energy", "error")
"""What decides how small an approximation is."""


def construct(cls: Callable[..., Any], *positional: Any, **named: Any) -> Any:
    """`cls(*positional, **named)` without the named arguments that this ComfyUI does not know yet.

    Of those that the pack uses, 0.3.64 lacks `search_aliases` and `advanced`.
    """
    accepted = inspect.signature(cls).parameters
    return cls(*positional, **{name: value for name, value in named.items() if name in accepted})


def search_aliases(*words: str) -> dict[str, Any]:
    """What a node's search finds it by besides its name, as an argument of `io.Schema` where that knows it.

    Nodes call `io.Schema(node_id="…")` themselves, not `construct`: ComfyUI-Manager reads the ids there, in the source.
    """
    return {"search_aliases": list(words)} if "search_aliases" in inspect.signature(io.Schema).parameters else {}


def adapter_input(
    name: str = "adapter", *, may_be_none: bool = False, optional: bool = False, replaced: bool = False
) -> io.Input:
    """A file in models/loras; the node's card says what it is.

    Args:
        replaced: whether `lora_input` may come instead, also where there is no file.
    """
    made = io.Combo.Input(
        name,
        options=[*[NONE] * may_be_none, *adapter_names(), *[NONE] * replaced],
        default=NONE if may_be_none else None,
        optional=optional,
        tooltip="A file in models/loras.",
    )
    made.extra_dict = {ADAPTER: True}  # 0.3.64's takes no such argument
    return made


def lora_input() -> io.Input:
    """An adapter of ComfyUI's own training nodes, instead of a file."""
    return io.Custom(LORA_MODEL).Input(
        LORA, optional=True, tooltip="From Train LoRA, or another node that makes one: loaded instead of a file."
    )


def lora_inputs_beside_rows() -> list[io.Input]:
    """An adapter of ComfyUI's own training nodes as one more row, the last."""
    return [
        io.Custom(LORA_MODEL).Input(
            "lora_model", optional=True, tooltip="From Train LoRA, or another node that makes one: as one more file."
        ),
        construct(
            io.Float.Input,
            "lora_model_strength",
            default=1.0,
            min=-100.0,
            max=100.0,
            step=0.01,
            optional=True,
            tooltip="How much of lora_model's change is added.",
            advanced=True,
        ),
    ]


def lora_output() -> io.Output:
    """An adapter for ComfyUI's own training nodes."""
    return io.Custom(LORA_MODEL).Output(
        display_name=LORA_MODEL, tooltip="For ComfyUI's own Load LoRA Model and Save LoRA Weights."
    )


def row_inputs(number: int) -> list[io.Input]:
    """A row of a node for several files: the file, how much of it, and whether it takes part; the first is required."""
    optional = number > 1
    return [
        adapter_input(f"adapter_{number}", may_be_none=True, optional=optional),
        io.Float.Input(
            f"strength_{number}",
            default=1.0,
            min=-100.0,
            max=100.0,
            step=0.01,
            optional=optional,
            tooltip="How much of its change is added.",
        ),
        io.Boolean.Input(f"on_{number}", default=True, optional=optional, tooltip="Off: as if the row were empty."),
    ]


def rows_of(inputs: dict[str, Any]) -> list[Row]:
    """The rows; what an API workflow leaves out is an empty row. A linked value is None until it is known."""
    return [
        Row(
            inputs.get(f"adapter_{number}") or NONE,
            inputs.get(f"strength_{number}", 1.0),
            inputs.get(f"on_{number}", True) is not False,
        )
        for number in range(1, ROWS + 1)
    ]


def first_rows() -> list[io.Input]:
    """The rows that come before a node's other inputs."""
    return [widget for number in range(1, FIRST_ROWS + 1) for widget in row_inputs(number)]


def more_rows() -> list[io.Input]:
    """Those behind them, so that a workflow's values stay where they were when there were only the first."""
    return [widget for number in range(FIRST_ROWS + 1, ROWS + 1) for widget in row_inputs(number)]


def strength_input() -> io.Input:
    """How much of an adapter is added."""
    return io.Float.Input(
        "strength",
        default=1.0,
        min=-100.0,
        max=100.0,
        step=0.01,
        tooltip="How much of the change is added. 1 is what was trained, 0 nothing, below 0 the opposite.",
    )


def partial_input(*, optional: bool = False) -> io.Input:
    """What happens if a model lacks some of a file's modules. ComfyUI lists optional inputs last."""
    return construct(
        io.Combo.Input,
        "on_partial_match",
        options=["error", "warn"],
        default="error",
        optional=optional,
        tooltip="If the model lacks some of the file's modules: stop, or apply the rest and say so.",
        advanced=True,
    )


def mode_input() -> io.Input:
    """How an adapter is applied."""
    return construct(
        io.Combo.Input,
        "mode",
        options=list(MODES),
        default=MODES[0],
        optional=True,
        tooltip=(
            "Auto: each weight by how it is stored; quantized ones stay as they are and the change acts beside them in "
            "every step, all others are patched once. Patch the weights: all, which rounds quantized ones again. Apply "
            "while sampling: beside every linear module."
        ),
        advanced=True,
    )


def smallness_inputs(*, zero_means: str = "") -> list[io.Input]:
    """What decides how small an approximation is."""
    return [
        io.Combo.Input(
            "by",
            options=list(BY),
            default=BY[0],
            tooltip=(
                "rank: of at most this rank. energy: the least rank that keeps this share of the change's squared "
                "norm. error: the least rank of this relative error."
            ),
        ),
        io.Int.Input("rank", default=16, min=0, max=65536, tooltip=f"For by = rank. {zero_means}".strip()),
        io.Float.Input(
            "share",
            display_name="energy or error",
            default=0.99,
            min=0.0,
            max=1.0,
            step=0.0001,
            tooltip="For by = energy: the share that is kept. For by = error: the largest relative error.",
        ),
    ]


def overwrite_input() -> io.Input:
    """Whether a file of the new one's name is replaced."""
    return construct(
        io.Boolean.Input,
        "overwrite",
        default=False,
        optional=True,
        tooltip="Replace a file of this name under output/loras.",
        advanced=True,
    )


def new_file_outputs(report: str) -> list[io.Output]:
    """The name of a new adapter file, and what is told of it."""
    return [
        # A combo of an older node is a list of names to ComfyUI, which no type but this one fits.
        io.AnyType.Output(display_name="adapter", tooltip="The new file's name, for the next node."),
        io.String.Output(display_name="report", tooltip=report),
    ]


def selection_inputs() -> list[io.Input]:
    """Which modules take part, and how strongly: one regular expression a line."""
    tips = {
        "include": "Only modules whose whole name matches one of these regular expressions, one a line; empty: all.",
        "exclude": "No modules whose whole name matches one of these regular expressions, one a line.",
        "block_strengths": (
            "PATTERN=NUMBER, one a line, multiplies the strength of what matches; of several the last counts. "
            r"Example: double_blocks\.1?\d\..*=0.5"
        ),
    }
    return [
        construct(io.String.Input, name, default="", multiline=True, optional=True, tooltip=tip, advanced=True)
        for name, tip in tips.items()
    ]


def selection(include: str, exclude: str, block_strengths: str) -> Selection:
    """The widgets' lines as a selection. Raises `SelectionError` for a line that cannot be read."""
    return Selection.of(lines(include), lines(exclude), map(parse_block_strength, lines(block_strengths)))


def lines(text: str) -> list[str]:
    """The lines that are not empty."""
    return [line.strip() for line in text.splitlines() if line.strip()]
