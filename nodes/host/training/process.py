"""The process of a ComfyUI model: what its own model_sampling says that its output is."""

from __future__ import annotations

from typing import Any

import comfy.model_sampling as sampling

from ....lyco_core.architectures import ARCHITECTURES, TrainedFamily
from ....lyco_core.errors import TrainError
from ....lyco_core.train.process import FLOW, Discrete, FlowFromSigmas, FlowToData, Process
from ..protocols import ModelPatcher


def process_of(patcher: ModelPatcher, trained: TrainedFamily) -> Process:
    """How the sampler of a model has its noise; a node that patches its model_sampling counts.

    Raises:
        TrainError: it is none for which the model's target is known here.
    """
    found: Any = patcher.get_model_object("model_sampling")
    scale: float = getattr(found, "noise_scale", 1.0)
    if isinstance(found, sampling.CONST) and not isinstance(found, getattr(sampling, "IMG_TO_IMG_FLOW", ())):
        if trained.learns_data:
            return FlowToData(scale, scale)
        if scale == 1:
            return FLOW
    bases = type(found).__bases__
    if bases == (getattr(sampling, "ModelSamplingCosmosRFlow", None), getattr(sampling, "COSMOS_RFLOW", None)):
        return FlowFromSigmas(sigma_max=float(found.sigma_max))
    for prediction in (sampling.EPS, sampling.V_PREDICTION):
        # With steps of its own a node makes a subclass, which no training has.
        if bases == (sampling.ModelSamplingDiscrete, prediction):
            return Discrete(found.sigmas.detach().float().cpu(), velocity=prediction is sampling.V_PREDICTION)
    titles = [family.title for family in ARCHITECTURES.values() if family.training]
    raise TrainError(
        f"the model's sampling is {' and '.join(base.__name__ for base in bases)}, of which it is not known what to "
        f"train it on ({type(patcher.model).__name__}); take away the node that changed it, or connect one of "
        f"{', '.join(titles[:-1])} or {titles[-1]}"
    )
