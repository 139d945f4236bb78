"""*Try LoHa/LoKr Strengths*: a model for each strength, or each file of a training, to be compared."""

from typing import Any

from comfy_api.latest import io

from ..lyco_core.errors import advising
from . import host
from .host.protocols import CLIP, ModelPatcher


class TryAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LycoTryAdapter",
            display_name="Try LoHa/LoKr Strengths",
            category="model/loaders/lyco",
            description=(
                "Gives a model for each strength of an adapter, or for each file of its training, as Load LoHa/LoKr "
                "makes them. The nodes behind it run once for each; Labeled Image Grid puts the pictures together."
            ),
            **host.search_aliases(
                "xy plot",
                "xyz plot",
                "lora xy plot",
                "lora strengths",
                "compare epochs",
                "test lora",
                "loha",
                "lokr",
            ),
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model to change; the input stays as it is."),
                host.adapter_input(),
                io.String.Input(
                    "strengths",
                    default="0, 0.5, 0.8, 1",
                    tooltip=(
                        "Numbers with commas between, or START:STOP:STEP: 0:1.2:0.2 is 0, 0.2 and so on up to 1.2. 1 "
                        "is what was trained, 0 the model without the adapter."
                    ),
                ),
                io.Combo.Input(
                    "files",
                    options=list(host.FILES),
                    default=host.FILES[0],
                    tooltip=(
                        "All of its training: also those beside the file that the training saved before and after it "
                        "(NAME-000001, NAME-step00000500, NAME_000000500, NAME-e4, and NAME, the last), each at every "
                        "strength."
                    ),
                ),
                host.partial_input(),
                io.Clip.Input(
                    "clip", optional=True, tooltip="The text encoder, for files that were trained on it too."
                ),
                host.construct(
                    io.String.Input,
                    "only",
                    default="",
                    optional=True,
                    tooltip=(
                        "Which files of the training, by the numbers in their names: 5, 10, 20 or 10:40:10, and last "
                        "for the one without a number. Empty: all."
                    ),
                    advanced=True,
                ),
                *host.selection_inputs(),
                host.mode_input(),
            ],
            outputs=[
                io.Model.Output(
                    display_name="MODEL", is_output_list=True, tooltip="A model for each file at each strength."
                ),
                io.Clip.Output(
                    display_name="CLIP", is_output_list=True, tooltip="The text encoder that goes with each."
                ),
                io.String.Output(
                    display_name="labels",
                    is_output_list=True,
                    tooltip="Name and strength of each, for Labeled Image Grid.",
                ),
                io.String.Output(display_name="report", tooltip="What matched in each, and what was left out."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, adapter: str | None, files: str | None, only: str | None = "", **_: Any) -> object:
        if adapter is None or files is None or only is None:  # linked, and not known yet
            return None
        return [host.fingerprint(name) for name in host.files_to_try(adapter, files, only)]

    @classmethod
    @host.acting()
    def execute(
        cls,
        model: ModelPatcher,
        adapter: str,
        strengths: str,
        files: str = host.FILES[0],
        on_partial_match: str = "error",
        clip: CLIP | None = None,
        only: str = "",
        include: str = "",
        exclude: str = "",
        block_strengths: str = "",
        mode: str = host.MODES[0],
    ) -> io.NodeOutput:
        names = host.files_to_try(adapter, files, only)
        # A line in exclude has to fit every file, which one that leaves out what a single file has need not.
        with advising(host.LOAD if len(names) == 1 else host.TRY_FILES):
            tried = host.try_all(
                model,
                clip,
                names,
                host.strengths_of(strengths),
                partial=on_partial_match == "warn",
                selection=host.selection(include, exclude, block_strengths),
                mode=mode,
            )
        return io.NodeOutput(
            [loaded.model for loaded in tried.loaded],
            [loaded.clip for loaded in tried.loaded],
            list(tried.labels),
            tried.report,
            ui=host.match_ui(tried.of(adapter)),
        )
