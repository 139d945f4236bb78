"""*Train Adapter*: a LoHa, LoKr or LoRA from latents and captions, as Musubi Tuner trains it."""

from typing import Any

from comfy_api.latest import io, ui

from . import host
from .host import training
from .host.protocols import CLIP, VAE, Conditioning, ModelPatcher


class TrainAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LycoTrainAdapter",
            display_name="Train Adapter",
            category="model/training/lyco",
            description=(
                "Trains a LoHa, LoKr or LoRA as Musubi Tuner does, on latents and captions, and saves Musubi's file "
                "in output/loras. Stopping it saves what is trained so far."
            ),
            **host.search_aliases("train lora", "train loha", "train lokr", "lycoris", "musubi", "finetune"),
            is_input_list=True,
            is_output_node=True,
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model. Adapters that it holds count as part of it."),
                training.dataset_input("dataset", "What is learned, from Training Dataset; or latents and positive."),
                io.Latent.Input(
                    "latents",
                    optional=True,
                    tooltip="What is learned: a list, or a batch. Videos are latents of a video VAE.",
                ),
                io.Conditioning.Input(
                    "positive", optional=True, tooltip="A caption for each latent, in their order, or one for all."
                ),
                *training.option_inputs(),
                io.Conditioning.Input(
                    "empty", optional=True, tooltip="The encoded empty caption, for caption_dropout_rate."
                ),
                io.Latent.Input("validation_latents", optional=True, tooltip="Held out, for validate_every_n_steps."),
                io.Conditioning.Input("validation_positive", optional=True, tooltip="Their captions."),
                io.Model.Input(
                    "model_high_noise",
                    optional=True,
                    tooltip="Wan 2.2's model for high noise; `model` is then the one for low noise. One adapter is "
                    "trained over both, and goes onto both.",
                ),
                training.dataset_input("validation_dataset", "Held out, for validate_every_n_steps."),
                io.Clip.Input("clip", optional=True, tooltip="The text encoder of the model, for sample_prompts."),
                io.Vae.Input("vae", optional=True, tooltip="The VAE of the model, for sample_prompts."),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="The image encoder of the model, if it has one (image to video), for sample_prompts.",
                ),
            ],
            outputs=[
                io.AnyType.Output(display_name="adapter", tooltip="The file's name, for any loader."),
                io.Model.Output(display_name="MODEL", tooltip="The model with the adapter at strength 1."),
                io.Custom("LOSS_MAP").Output(display_name="loss", tooltip="The loss of every step."),
                io.Image.Output(display_name="graph", tooltip="The loss over the steps."),
                io.String.Output(display_name="report", tooltip="What was trained, and how it went."),
                host.lora_output(),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **values: Any) -> object:
        return training.fingerprint(values)

    @classmethod
    @host.acting()
    def execute(
        cls,
        model: list[ModelPatcher],
        latents: list[dict[str, Any]] | None = None,
        positive: list[list[Conditioning]] | None = None,
        empty: list[list[Conditioning]] | None = None,
        validation_latents: list[dict[str, Any]] | None = None,
        validation_positive: list[list[Conditioning]] | None = None,
        model_high_noise: list[ModelPatcher] | None = None,
        dataset: list[training.Data] | None = None,
        validation_dataset: list[training.Data] | None = None,
        clip: list[CLIP] | None = None,
        vae: list[VAE] | None = None,
        clip_vision: list[Any] | None = None,
        **widgets: Any,
    ) -> io.NodeOutput:
        options = training.widget_options({name: training.single(name, values) for name, values in widgets.items()})
        data = training.data_of(
            latents, positive, empty, validation_latents, validation_positive, dataset, validation_dataset
        )
        asked = training.Asked(cls.hidden.unique_id, cls.hidden.prompt, cls.hidden.extra_pnginfo)
        high = training.single("model_high_noise", model_high_noise) if model_high_noise else None
        given = {"clip": clip, "vae": vae, "clip_vision": clip_vision}
        encoders = [training.single(name, some or [None]) for name, some in given.items()]
        done = training.train_on(training.single("model", model), data, options, asked, high, *encoders)
        shown = {
            **done.samples,
            "images": [*ui.PreviewImage(done.picture, cls=cls).as_dict()["images"], *done.samples.get("images", ())],
            "text": [done.report],
            "lyco_train": [done.series],
            "lyco_trained": [done.end],
        }
        return io.NodeOutput(done.name, done.model, done.losses, done.picture, done.report, done.lora, ui=shown)
