"""*Create Hook LoHa/LoKr*: an adapter for those prompts alone that have its hook."""

from typing import Any

from comfy_api.latest import io

from . import host


class CreateHook(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LycoCreateHook",
            display_name="Create Hook LoHa/LoKr",
            category="model/loaders/lyco",
            description=(
                "Makes a hook of a LoHa, LoKr or LoRA adapter, for ComfyUI's hook nodes: it acts for the prompts that "
                "have the hook, over the steps as its keyframes say, on quantized models too."
            ),
            **host.search_aliases("hook lora", "create hook lora", "prompt lora", "scheduled lora", "loha", "lokr"),
            inputs=[
                host.adapter_input(),
                io.Float.Input(
                    "strength_model",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.01,
                    tooltip="How much of the change is added to the diffusion model; keyframes multiply it.",
                ),
                io.Float.Input(
                    "strength_clip",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.01,
                    tooltip="The same for the text encoder, for files that were trained on it too; by Set CLIP Hooks.",
                ),
                host.partial_input(),
                io.Hooks.Input("prev_hooks", optional=True, tooltip="Other hooks, which act before this one."),
                host.mode_input(),
            ],
            outputs=[io.Hooks.Output(display_name="HOOKS", tooltip="For Set CLIP Hooks, Cond Set Props and the like.")],
        )

    @classmethod
    def fingerprint_inputs(cls, adapter: str | None, **_: Any) -> object:
        return host.fingerprint(adapter)

    @classmethod
    @host.acting(host.HOOK)
    def execute(
        cls,
        adapter: str,
        strength_model: float,
        strength_clip: float,
        on_partial_match: str = "error",
        prev_hooks: Any = None,
        mode: str = host.MODES[0],
    ) -> io.NodeOutput:
        asked = host.Request(adapter, strength_model, strength_clip, on_partial_match == "warn", mode)
        return io.NodeOutput(host.hooked(asked, prev_hooks))
