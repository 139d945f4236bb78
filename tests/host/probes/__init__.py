"""Nodes that the host tests need and ComfyUI lacks: conditioning without a text encoder."""


async def comfy_entrypoint():
    import torch
    from comfy_api.latest import ComfyExtension, io

    class ProbeConditioning(io.ComfyNode):
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

    class Probes(ComfyExtension):
        async def get_node_list(self):
            return [ProbeConditioning]

    return Probes()
