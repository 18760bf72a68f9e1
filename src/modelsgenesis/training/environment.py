"""Versions and hardware, for the provenance of a bundle."""

import platform
from importlib.metadata import version

import torch

from modelsgenesis.hardware import Hardware


def environment(hardware: Hardware) -> dict[str, str]:
    """Return versions and hardware; nothing that names a person, a host or a path."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: version(name) for name in ("numpy", "monai")},
        "hardware": hardware.describe(),
    }
