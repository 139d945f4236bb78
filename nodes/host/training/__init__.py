"""Training on a ComfyUI model."""

from .node import data_of, train_on
from .widgets import option_inputs, options_of, single

__all__ = ["data_of", "option_inputs", "options_of", "single", "train_on"]
