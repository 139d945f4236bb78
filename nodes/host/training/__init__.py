"""Training on a ComfyUI model."""

from .node import data_of, train_on
from .telling import Asked
from .widgets import fingerprint, option_inputs, single, widget_options

__all__ = ["Asked", "data_of", "fingerprint", "option_inputs", "single", "train_on", "widget_options"]
