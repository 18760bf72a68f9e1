"""Bundles on disk, importers of published formats, exporters."""

from modelsgenesis.checkpoints.bundle import Bundle, load_bundle, load_weights, read_config, save_bundle

__all__ = ["Bundle", "load_bundle", "load_weights", "read_config", "save_bundle"]
