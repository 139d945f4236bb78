"""Models of ComfyUI's that have no table: what their classes call the modules, by which adapters are placed."""

__all__ = ["OWN_NAMES"]

Modules = dict[str, tuple[int, int]]


def _blocks(name: str, modules: Modules, *numbers: int) -> Modules:
    return {f"{name}.{n}.{path}": shape for n in numbers for path, shape in modules.items()}


_STREAM = {"proj_in_gate": (40, 16), "proj_in": (40, 16), "proj_out": (16, 40)}
_FLOW = {
    "self_attn.to_qkv": (48, 16),
    "self_attn.to_out": (16, 16),
    "cross_attn.to_q": (16, 16),
    "cross_attn.to_kv": (32, 24),
    "cross_attn.to_out": (16, 16),
    "mlp.mlp.0": (48, 16),
    "mlp.mlp.2": (16, 48),
}
_DIFFERENTIAL = {
    "self_attn.to_qkv": (80, 16),
    "self_attn.to_out": (16, 16),
    "cross_attn.to_q": (32, 16),
    "cross_attn.to_kv": (48, 16),
    "cross_attn.to_out": (16, 16),
    "ff.ff.0.proj": (128, 16),
    "ff.ff.2": (16, 64),
    "to_local_embed.0": (16, 10),
}

OWN_NAMES: dict[str, Modules] = {
    "SeedVR2": {
        "txt_in": (16, 32),
        **_blocks("blocks", {f"attn.proj_qkv.{s}": (48, 16) for s in ("vid", "txt")}, 0, 9),
        **_blocks("blocks", {f"attn.proj_out.{s}": (16, 16) for s in ("vid", "txt")}, 0, 9),
        **_blocks("blocks", {f"mlp.{s}.{n}": shape for s in ("vid", "txt") for n, shape in _STREAM.items()}, 0, 9),
        **_blocks("blocks", {"attn.proj_qkv.all": (48, 16), "attn.proj_out.all": (16, 16)}, 10, 31),
        **_blocks("blocks", {f"mlp.all.{name}": shape for name, shape in _STREAM.items()}, 10, 31),
        "vid_out.proj": (8, 16),
    },
    "Trellis2": {
        path: shape
        for stage in ("img2shape", "shape2txt", "img2shape_512", "structure_model")
        for path, shape in (
            {f"{stage}.input_layer": (16, 8), f"{stage}.adaLN_modulation.1": (96, 16)}
            | _blocks(f"{stage}.blocks", _FLOW, 0, 29)
        ).items()
    },
    "StableAudio3": {
        "to_timestep_embed.0": (16, 8),
        "to_cond_embed.2": (16, 16),
        "transformer.project_in": (16, 8),
        "transformer.global_cond_embedder.2": (96, 16),
        **_blocks("transformer.layers", _DIFFERENTIAL, 0, 23),
    },
}  # fmt: skip
"""Class of comfy.supported_models -> some of its modules, and shapes that are small; the real ones' ratios hold."""
