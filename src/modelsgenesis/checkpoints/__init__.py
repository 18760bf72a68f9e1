"""Bundles on disk, importers of published formats, exporters."""

from modelsgenesis.checkpoints.bundle import Bundle, load_bundle, load_weights, read_config, save_bundle
from modelsgenesis.checkpoints.card import render_card

__all__ = ["Bundle", "load_bundle", "load_weights", "read_config", "render_card", "save_bundle"]
