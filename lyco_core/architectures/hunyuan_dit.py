"""HunyuanDiT 1.0 to 1.2."""

from .table import Architecture, inside_all, renamed, same

__all__ = ["HUNYUAN_DIT"]

_BLOCK = (
    *renamed({"attn1.Wqkv": "attn1.to_q attn1.to_k attn1.to_v"}, shape=(3, 1)),
    *renamed({"attn2.kv_proj": "attn2.to_k attn2.to_v"}),
    *renamed(
        {
            "attn1.out_proj": "attn1.to_out.0",
            "attn2.q_proj": "attn2.to_q",
            "attn2.out_proj": "attn2.to_out.0",
            "default_modulation.1": "norm1.linear",
        },
        shape=(1, 1),
    ),
    *renamed({"mlp.fc1": "ff.net.0.proj", "mlp.fc2": "ff.net.2"}),
    *same("skip_linear", shape=(1, 2)),
)

HUNYUAN_DIT = Architecture(
    id="hunyuan_dit",
    title="HunyuanDiT",
    groups=(
        *inside_all("blocks.{n}", _BLOCK),
        *renamed(
            {
                "mlp_t5.0": "text_embedder.linear_1",
                "mlp_t5.2": "text_embedder.linear_2",
                "x_embedder.proj": "pos_embed.proj",
                "t_embedder.mlp.0": "time_extra_emb.timestep_embedder.linear_1",
                "t_embedder.mlp.2": "time_extra_emb.timestep_embedder.linear_2",
                "extra_embedder.0": "time_extra_emb.extra_embedder.linear_1",
                "extra_embedder.2": "time_extra_emb.extra_embedder.linear_2",
                **{f"pooler.{name}_proj": f"time_extra_emb.pooler.{name}_proj" for name in "kqvc"},
                "final_layer.linear": "proj_out",
            }
        ),
        # diffusers keeps its scale above its shift.
        *renamed({"final_layer.adaLN_modulation.1": "norm_out.linear"}, shape=(2, 1), swapped=("diffusers",)),
    ),
    depths={"blocks": 40},
    widths=(1408,),
)
