"""*Training Dataset*: a folder of images or videos with captions, encoded for *Train Adapter*."""

from typing import Any

from comfy_api.latest import io

from . import host
from .host import training
from .host.protocols import CLIP, VAE


class TrainingDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LycoTrainingDataset",
            display_name="Training Dataset",
            category="model/training/lyco",
            description=(
                "A folder of images or videos with captions, encoded for Train Adapter, with Musubi Tuner's options "
                "of a dataset. What is encoded is kept beside the files, and is not encoded again."
            ),
            **host.search_aliases("dataset", "captions", "bucket", "folder", "musubi", "train lora"),
            inputs=[
                io.Vae.Input("vae", tooltip="Encodes the images or videos."),
                io.Clip.Input("clip", tooltip="Encodes the captions."),
                training.dataset_input("dataset", "Another dataset, which this one is added to."),
                *training.folder_inputs(),
            ],
            outputs=[
                training.dataset_output(),
                io.String.Output(display_name="report", tooltip="What is in it."),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> object:
        return training.listing(inputs)

    @classmethod
    @host.acting()
    def execute(cls, vae: VAE, clip: CLIP, dataset: training.Data | None = None, **inputs: Any) -> io.NodeOutput:
        inputs = training.with_defaults(inputs)
        found = training.survey(inputs, training.steps_of(vae))
        data, report = training.encoded(inputs, vae, clip, dataset, found)
        return io.NodeOutput(data, report, ui={"text": [report], "lyco_dataset": [found]})
