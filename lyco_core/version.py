"""The version of everything here, which what is written says of itself."""

__all__ = ["__version__"]

__version__ = "0.1.0"
