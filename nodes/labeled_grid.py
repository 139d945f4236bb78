"""*Labeled Image Grid*: the pictures of *Try LoHa/LoKr Strengths* side by side."""

from comfy_api.latest import io
from torch import Tensor

from . import host


class LabeledGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LycoLabeledGrid",
            display_name="Labeled Image Grid",
            category="model/loaders/lyco",
            description=(
                "Puts the pictures of Try LoHa/LoKr Strengths side by side, each below its label; of videos a video, "
                "of batches a grid for each of their pictures."
            ),
            **host.search_aliases("xy plot", "xyz plot", "image grid", "lora grid", "contact sheet", "labels"),
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="A list of images of one size, as VAE Decode makes it of all models."),
                io.String.Input("labels", force_input=True, tooltip="A list of texts, one for each image."),
                io.Int.Input(
                    "columns",
                    default=0,
                    min=0,
                    max=64,
                    tooltip=(
                        "How many are side by side. 0: a row for each file where several are tried at several "
                        "strengths; else about as many columns as rows."
                    ),
                ),
            ],
            outputs=[io.Image.Output(display_name="IMAGE", tooltip="The grid.")],
        )

    @classmethod
    @host.acting()
    def execute(cls, images: list[Tensor], labels: list[str], columns: list[int]) -> io.NodeOutput:
        return io.NodeOutput(host.labelled_grid(images, labels, columns[0]))
