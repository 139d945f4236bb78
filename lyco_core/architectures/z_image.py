"""Z-Image (Turbo, Base). Musubi has diffusers' names; ComfyUI, as Lumina 2, fuses q, k and v."""

from .table import Architecture, group, inside_all, same
from .training import MusubiNames, TrainedFamily

_BLOCK = (
    group(
        "attention.to_q attention.to_k attention.to_v",
        "attention.qkv",
        "attention.to_q attention.to_k attention.to_v",
        heights=(1, 1, 1),
        shape=(3, 1),
    ),
    group("attention.to_out.0", "attention.out", "attention.to_out.0", shape=(1, 1)),
    *same("feed_forward.w1", "feed_forward.w3", inputs=(3840,), outputs=(10240,)),
    *same("feed_forward.w2", inputs=(10240,), outputs=(3840,)),
)
_MODULATION = same("adaLN_modulation.0", inputs=(256,))

Z_IMAGE = Architecture(
    id="z_image",
    title="Z-Image",
    groups=(
        *inside_all("layers.{n}", _BLOCK + _MODULATION),
        *inside_all("noise_refiner.{n}", _BLOCK + _MODULATION),
        *inside_all("context_refiner.{n}", _BLOCK),
        *same("t_embedder.mlp.0", "t_embedder.mlp.2", "cap_embedder.1"),
        group("all_x_embedder.2-1", "x_embedder", "all_x_embedder.2-1"),
        group("all_final_layer.2-1.linear", "final_layer.linear", "all_final_layer.2-1.linear"),
        group(
            "all_final_layer.2-1.adaLN_modulation.1",
            "final_layer.adaLN_modulation.1",
            "all_final_layer.2-1.adaLN_modulation.1",
        ),
    ),
    comfyui_takes="diffusers",
    depths={"layers": 30, "noise_refiner": 2, "context_refiner": 2},
    widths=(3840,),
    training=TrainedFamily(
        excludes=(r".*(_modulation|_refiner).*",),
        sampling="shift",
        shift=2.0,
        frames_a_second=None,
        steps=(16, 4),
        names=MusubiNames("z_image", "Z-Image", "https://github.com/Tongyi-MAI/Z-Image", "lora_zimage", (1024, 1024)),
        image_input=None,
        clip_type="LUMINA2",
        learns_data=False,
        comfyui_blocks=("context_refiner", "noise_refiner", "layers"),
        comfyui_norms=(),
        outside=(),
        by_musubi=True,
    ),
)
