"""safetensors files: headers without tensors, tensors when asked for, whole files or none."""

from .checkpoint import Checkpoint
from .hashes import sshs_hashes
from .header import MAX_HEADER_BYTES, Header, TensorInfo, header_length, read_header
from .output import is_same_file, refuse_existing
from .reader import SafetensorsFile
from .writer import TensorSpec, library_order, write_safetensors

__all__ = [
    "MAX_HEADER_BYTES",
    "Checkpoint",
    "Header",
    "SafetensorsFile",
    "TensorInfo",
    "TensorSpec",
    "header_length",
    "is_same_file",
    "library_order",
    "read_header",
    "refuse_existing",
    "sshs_hashes",
    "write_safetensors",
]
