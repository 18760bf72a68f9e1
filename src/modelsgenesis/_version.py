"""The version, alone in a module that imports nothing, so that every room may record it."""

__version__ = "0.1.0"
