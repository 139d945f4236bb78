"""safetensors files: headers without tensors, tensors when asked for, whole files or none."""

from .hashes import sshs_hashes
from .header import Header, TensorInfo, read_header
from .reader import SafetensorsFile
from .writer import TensorSpec, library_order, write_safetensors

__all__ = [
    "Header",
    "SafetensorsFile",
    "TensorInfo",
    "TensorSpec",
    "library_order",
    "read_header",
    "sshs_hashes",
    "write_safetensors",
]
