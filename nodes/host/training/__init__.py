"""Training on a ComfyUI model."""

from .folder_dataset import encoded, listing
from .folder_inputs import dataset_input, dataset_output, folder_inputs, with_defaults
from .loaded_encoders import steps_of
from .node import data_of, train_on
from .run import Data
from .survey import survey
from .telling import Asked
from .widgets import fingerprint, option_inputs, single, widget_options

__all__ = [
    "Asked",
    "Data",
    "data_of",
    "dataset_input",
    "dataset_output",
    "encoded",
    "fingerprint",
    "folder_inputs",
    "listing",
    "option_inputs",
    "single",
    "steps_of",
    "survey",
    "train_on",
    "widget_options",
    "with_defaults",
]
