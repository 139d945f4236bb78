"""Key grammars: from the tensors of a file to an `AdapterSet`.

A key is a module's spelling (`grammar.py`) and a tensor's suffix (`suffixes.py`).
"""

from .grammar import FORMATS, Format, format_of
from .keys import Keys, sort_keys
from .parse import parse
from .suffixes import TENSOR_SUFFIXES, split_key

__all__ = ["FORMATS", "TENSOR_SUFFIXES", "Format", "Keys", "format_of", "parse", "sort_keys", "split_key"]
