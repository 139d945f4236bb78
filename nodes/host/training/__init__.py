"""Training on a ComfyUI model."""

from .node import data_of, train_on
from .widgets import fingerprint, option_inputs, options_of, single

__all__ = ["data_of", "fingerprint", "option_inputs", "options_of", "single", "train_on"]
