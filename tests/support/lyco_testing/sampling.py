"""A model call as ComfyUI's samplers make it: with the wrappers that a MODEL brings."""

from torch import Tensor

from .quantized_models import predict


def sampled(family: str, model, *, load: bool = True) -> Tensor:
    """`predict`, through the MODEL's wrappers."""
    import comfy.patcher_extension

    options = dict(model.model_options["transformer_options"])
    options["wrappers"] = comfy.patcher_extension.copy_nested_dicts(options.get("wrappers", {}))
    comfy.patcher_extension.merge_nested_dicts(options["wrappers"], model.wrappers, copy_dict1=False)
    return predict(family, model, options=options, load=load)
