"""Cosmos-Predict2 and Anima, which has an adapter of its text encoder beside the same blocks."""

import dataclasses

from .group import Alias
from .table import Architecture, Group, inside, inside_all, renamed
from .training import MusubiNames, trained_here

__all__ = ["COSMOS_PREDICT2"]

_ATTENTION = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "output_proj": "to_out.0"}
_BLOCK = (
    *renamed({f"self_attn.{ours}": f"attn1.{theirs}" for ours, theirs in _ATTENTION.items()}, shape=(1, 1)),
    *renamed({f"cross_attn.{name}_proj": f"attn2.to_{name}" for name in "kv"}, inputs=(1024,)),
    *renamed({"cross_attn.q_proj": "attn2.to_q", "cross_attn.output_proj": "attn2.to_out.0"}, shape=(1, 1)),
    *renamed({"mlp.layer1": "ff.net.0.proj"}, shape=(4, 1)),
    *renamed({"mlp.layer2": "ff.net.2"}, shape=(1, 4)),
    *renamed(
        {
            f"adaln_modulation_{part}.{layer}": f"norm{n}.linear_{layer}"
            for n, part in enumerate(("self_attn", "cross_attn", "mlp"), 1)
            for layer in (1, 2)
        }
    ),
)
_ADAPTER_BLOCK = renamed(
    dict.fromkeys(
        (
            *(f"{part}.{name}_proj" for part in ("self_attn", "cross_attn") for name in "qkvo"),
            "mlp.0",
            "mlp.2",
        )
    )
)

_GROUPS = (
    *inside("blocks.{n}", "blocks.{n}", "transformer_blocks.{n}", _BLOCK),
    *inside_all("llm_adapter.blocks.{n}", _ADAPTER_BLOCK),
    *renamed(
        {
            "x_embedder.proj.1": "patch_embed.proj",
            "t_embedder.1.linear_1": "time_embed.t_embedder.linear_1",
            "t_embedder.1.linear_2": "time_embed.t_embedder.linear_2",
            "final_layer.linear": "proj_out",
            "final_layer.adaln_modulation.1": "norm_out.linear_1",
            "final_layer.adaln_modulation.2": "norm_out.linear_2",
            "llm_adapter.out_proj": None,
        }
    ),
)


def _in_core(g: Group) -> Group:
    """SimpleTuner has Anima's blocks, by diffusers' names, in a module that it calls `core`."""
    aliases = (Alias(f"core.{name}", "diffusers", parts) for name, parts in g.modules("diffusers").items())
    return dataclasses.replace(g, aliases=(*g.aliases, *aliases))


COSMOS_PREDICT2 = Architecture(
    id="cosmos_predict2",
    title="Cosmos-Predict2/Anima",
    groups=tuple(map(_in_core, _GROUPS)),
    depths={"blocks": 36, "llm_adapter.blocks": 6},
    widths=(2048, 5120),
    sizes={2048: {"blocks": 28}, 5120: {"blocks": 36}},
    training=trained_here(
        MusubiNames("anima", "anima-preview", "https://huggingface.co/circlestone-labs/Anima", "lora_anima"),
        "blocks",
        "COSMOS",
        excludes=(r".*adaln_modulation.*", r"llm_adapter\..*"),
        shift=3.0,
        image_input=None,
    ),
)
