"""Key grammars: from the tensors of a file to an `AdapterSet`, and back.

A key is a module's spelling (`grammar.py`) and a tensor's suffix (`suffixes.py`); `emit` is the inverse of `parse`.
"""

from .emit import emit, is_peft, spelled
from .grammar import FORMATS, Format, format_of
from .keys import Keys, sort_keys
from .parse import ModuleParser, parse
from .suffixes import TENSOR_SUFFIXES, split_key, unread

__all__ = [
    "FORMATS",
    "TENSOR_SUFFIXES",
    "Format",
    "Keys",
    "ModuleParser",
    "emit",
    "format_of",
    "is_peft",
    "parse",
    "sort_keys",
    "spelled",
    "split_key",
    "unread",
]
