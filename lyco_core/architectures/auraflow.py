"""AuraFlow and Pony 7. Of the two streams of a double layer the second is the image's."""

from fractions import Fraction

from .table import Architecture, Group, inside, renamed
from .training import MusubiNames, trained_here

__all__ = ["AURAFLOW"]

_MLP = Fraction(8, 3)
_IMAGE = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}
_TEXT = {"q": "add_q_proj", "k": "add_k_proj", "v": "add_v_proj", "o": "to_add_out"}


def _stream(weights: str, attention: dict[str, str], mlp: str, ff: str, mod: str, norm: str) -> tuple[Group, ...]:
    """The groups of one stream: ComfyUI's names, each before diffusers'."""
    return (
        *renamed({f"attn.{weights}{ours}": f"attn.{theirs}" for ours, theirs in attention.items()}, shape=(1, 1)),
        *renamed({f"{mlp}.c_fc1": f"{ff}.linear_1", f"{mlp}.c_fc2": f"{ff}.linear_2"}, shape=(_MLP, 1)),
        *renamed({f"{mlp}.c_proj": f"{ff}.out_projection"}, shape=(1, _MLP)),
        *renamed({f"{mod}.1": f"{norm}.linear"}, shape=(6, 1)),
    )


_DOUBLE = (
    *_stream("w2", _IMAGE, "mlpX", "ff", "modX", "norm1"),
    *_stream("w1", _TEXT, "mlpC", "ff_context", "modC", "norm1_context"),
)
_SINGLE = _stream("w1", _IMAGE, "mlp", "ff", "modCX", "norm1")

AURAFLOW = Architecture(
    id="auraflow",
    title="AuraFlow",
    groups=(
        *inside("double_layers.{n}", "double_layers.{n}", "joint_transformer_blocks.{n}", _DOUBLE),
        *inside("single_layers.{n}", "single_layers.{n}", "single_transformer_blocks.{n}", _SINGLE),
        *renamed(
            {
                "t_embedder.mlp.0": "time_step_proj.linear_1",
                "t_embedder.mlp.2": "time_step_proj.linear_2",
                "cond_seq_linear": "context_embedder",
                "init_x_linear": "pos_embed.proj",
                "final_linear": "proj_out",
            }
        ),
        # diffusers keeps its scale above its shift.
        *renamed({"modF.1": "norm_out.linear"}, shape=(2, 1), swapped=("diffusers",)),
    ),
    depths={"double_layers": 4, "single_layers": 32},
    widths=(3072,),
    training=trained_here(
        MusubiNames("auraflow"),
        "double_layers single_layers",
        "STABLE_DIFFUSION",
        excludes=(r".*\.mod(X|C|CX)\..*",),
        shift=1.73,
    ),
)
