"""Bundles on disk, importers of published formats, exporters."""

from modelsgenesis.checkpoints.bundle import Bundle as Bundle
from modelsgenesis.checkpoints.bundle import load_bundle as load_bundle
from modelsgenesis.checkpoints.bundle import read_config as read_config
from modelsgenesis.checkpoints.bundle import save_bundle as save_bundle
from modelsgenesis.checkpoints.card import render_card as render_card
from modelsgenesis.checkpoints.conversion import CONVERTER_VERSION as CONVERTER_VERSION
from modelsgenesis.checkpoints.conversion import convert_checkpoint as convert_checkpoint
from modelsgenesis.checkpoints.export import export_bundle as export_bundle
