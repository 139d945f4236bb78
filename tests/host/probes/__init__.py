"""Nodes that the host tests need and ComfyUI lacks: conditioning without gigabytes of a text encoder."""

import contextlib

SERVING = contextlib.ExitStack()
"""Of what is so for as long as the server runs."""


async def comfy_entrypoint():
    import importlib.util
    import time
    from pathlib import Path

    import comfy.model_management
    import torch
    from comfy_api.latest import ComfyExtension, io

    support = Path(__file__).resolve().parents[2] / "support" / "lyco_testing"
    spec = importlib.util.spec_from_file_location("told_sizes", support / "told_sizes.py")
    sizes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sizes)
    SERVING.enter_context(sizes.told_sizes())

    Node = io.ComfyNode  # by another name: ComfyUI-Manager would count the probes among the pack's nodes

    class ProbeConditioning(Node):
        @classmethod
        def define_schema(cls):
            return io.Schema(
                node_id="ProbeConditioning",
                category="probes",
                inputs=[io.Int.Input("width"), io.Int.Input("seed")],
                outputs=[io.Conditioning.Output()],
            )

        @classmethod
        def execute(cls, width, seed):
            tensor = torch.randn((1, 8, width), generator=torch.Generator().manual_seed(seed))
            return io.NodeOutput([[tensor, {}]])

    class ProbeItems(Node):
        """What ComfyUI's dataset nodes give: a list of latents and a list of their captions."""

        @classmethod
        def define_schema(cls):
            return io.Schema(
                node_id="ProbeItems",
                category="probes",
                inputs=[io.Int.Input("width"), io.Int.Input("count"), io.Int.Input("captions"), io.Int.Input("size")],
                outputs=[io.Latent.Output(is_output_list=True), io.Conditioning.Output(is_output_list=True)],
            )

        @classmethod
        def execute(cls, width, count, captions, size):
            generator = torch.Generator().manual_seed(7)
            sizes = [abs(size) + (4 if size < 0 and i == 0 else 0) for i in range(count)]  # below 0: the first differs
            latents = [{"samples": torch.randn((1, 16, 1, s, s), generator=generator)} for s in sizes]
            texts = [[[torch.randn((1, 8, width), generator=generator), {}]] for _ in range(captions)]
            return io.NodeOutput(latents, texts)

    class Clip:
        """A text encoder of no weights: a caption's numbers depend on its letters alone."""

        def __init__(self, width):
            self.width = width

        def tokenize(self, text):
            return [ord(letter) for letter in text]

        def encode_from_tokens_scheduled(self, tokens):
            generator = torch.Generator().manual_seed(sum(tokens))
            return [[torch.randn((1, 8, self.width), generator=generator), {}]]

    class ProbeClip(Node):
        @classmethod
        def define_schema(cls):
            return io.Schema(
                node_id="ProbeClip",
                category="probes",
                inputs=[io.Int.Input("width")],
                outputs=[io.Clip.Output()],
            )

        @classmethod
        def execute(cls, width):
            return io.NodeOutput(Clip(width))

    class ProbeVae(Node):
        """A small VAE of videos, of random weights."""

        @classmethod
        def define_schema(cls):
            return io.Schema(
                node_id="ProbeVae",
                category="probes",
                inputs=[io.Int.Input("channels")],
                outputs=[io.Vae.Output()],
            )

        @classmethod
        def execute(cls, channels):
            import comfy.sd
            from comfy.taesd.taehv import TAEHV

            generator = torch.Generator().manual_seed(1)
            weights = {}
            for key, tensor in TAEHV(latent_channels=channels, latent_format=None).state_dict().items():
                gain = max(tensor.numel() // max(len(tensor), 1), 1) ** -0.5 if tensor.dim() > 1 else 0.0
                weights[key] = torch.randn(tensor.shape, generator=generator) * gain
            last = [key for key in weights if "decoder" in key and key.endswith(".bias")][-1]
            weights[last] += 0.5
            return io.NodeOutput(comfy.sd.VAE(sd=weights))

    class ProbeHold(Node):
        """Runs until somebody stops it; what is queued waits."""

        @classmethod
        def define_schema(cls):
            return io.Schema(node_id="ProbeHold", category="probes", is_output_node=True, not_idempotent=True)

        @classmethod
        def execute(cls):
            while True:
                comfy.model_management.throw_exception_if_processing_interrupted()
                time.sleep(0.02)

    class Probes(ComfyExtension):
        async def get_node_list(self):
            return [ProbeConditioning, ProbeItems, ProbeClip, ProbeVae, ProbeHold]

    return Probes()
