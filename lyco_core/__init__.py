"""LoHa and LoKr adapters of any trainer, exactly: `import lyco_core as lyco`; docs/library.md shows what with.

Pure torch; never imports ComfyUI. Importing the package imports nothing heavy: torch comes with the first name that
is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .version import __version__ as __version__

if TYPE_CHECKING:
    from .adapter_reader import load_adapter_set as load
    from .adapter_reader import outline_adapter_set as outline
    from .attachment import attach
    from .inspection import inspect_file as inspect
    from .library.adapters import combine, convert, resize, save
    from .library.checkpoints import delta, extract, merge
    from .model import Model

__all__ = [
    "Model",
    "attach",
    "combine",
    "convert",
    "delta",
    "extract",
    "inspect",
    "load",
    "merge",
    "outline",
    "resize",
    "save",
]

_FACE = {
    "Model": "model:Model",
    "attach": "attachment:attach",
    "combine": "library.adapters:combine",
    "convert": "library.adapters:convert",
    "delta": "library.checkpoints:delta",
    "extract": "library.checkpoints:extract",
    "inspect": "inspection:inspect_file",
    "load": "adapter_reader:load_adapter_set",
    "merge": "library.checkpoints:merge",
    "outline": "adapter_reader:outline_adapter_set",
    "resize": "library.adapters:resize",
    "save": "library.adapters:save",
}
"""What the package gives -> `module:name` of what it is. No module may be called as one of these: importing a module
puts it onto its package under its own name."""

if not TYPE_CHECKING:  # which knows the names from above, and is to miss all others

    def __getattr__(name: str) -> object:
        if name not in _FACE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, found = _FACE[name].partition(":")
        globals()[name] = value = getattr(import_module(f".{module}", __name__), found)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
