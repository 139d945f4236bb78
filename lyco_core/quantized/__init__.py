"""Weights that a file keeps as something else than wide numbers: read, and written again in their own form."""

from .find import PLAIN, QUANTIZATION_METADATA, SCALED_MARKER, Quantization, find_forms
from .form import Form, Found, RoleTensors, Unreadable
from .new import NEW_FORMS, NewForm

__all__ = [
    "NEW_FORMS",
    "PLAIN",
    "QUANTIZATION_METADATA",
    "SCALED_MARKER",
    "Form",
    "Found",
    "NewForm",
    "Quantization",
    "RoleTensors",
    "Unreadable",
    "find_forms",
]
