"""Bundles on disk, importers of published formats, exporters."""

from modelsgenesis.checkpoints.bundle import Bundle, load_bundle, read_config, save_bundle
from modelsgenesis.checkpoints.card import render_card
from modelsgenesis.checkpoints.conversion import CONVERTER_VERSION, ConversionReport, convert_checkpoint
from modelsgenesis.checkpoints.export import export_bundle

__all__ = [
    "CONVERTER_VERSION",
    "Bundle",
    "ConversionReport",
    "convert_checkpoint",
    "export_bundle",
    "load_bundle",
    "read_config",
    "render_card",
    "save_bundle",
]
