"""safetensors files: headers without tensors, tensors when asked for, whole files or none."""

from .header import Header, TensorInfo, read_header
from .reader import SafetensorsFile
from .writer import TensorSpec, write_safetensors

__all__ = ["Header", "SafetensorsFile", "TensorInfo", "TensorSpec", "read_header", "write_safetensors"]
