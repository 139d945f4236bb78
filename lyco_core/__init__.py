"""LoHa and LoKr adapters of any trainer, exactly: formats, architectures, algebra.

Pure torch; never imports ComfyUI. Importing this package imports nothing heavy: take what you
need from its modules.
"""

__version__ = "0.1.0"
