"""Labelled images: the layouts in which they come, and the way into memory."""

from modelsgenesis.data.labelled.cases import LabelledCase, LabelledData, PreparedCase, require_label
from modelsgenesis.data.labelled.contract import data_contract
from modelsgenesis.data.labelled.decathlon import read_decathlon
from modelsgenesis.data.labelled.fitting import fit_image
from modelsgenesis.data.labelled.preparation import check_same_grid, label_indices, prepare_case, prepare_cases
from modelsgenesis.data.labelled.reading import read_labelled
from modelsgenesis.data.labelled.sample import sample_data, sample_folder
from modelsgenesis.data.labelled.sources import FileImage, ImageSource

__all__ = [
    "FileImage",
    "ImageSource",
    "LabelledCase",
    "LabelledData",
    "PreparedCase",
    "check_same_grid",
    "data_contract",
    "fit_image",
    "label_indices",
    "prepare_case",
    "prepare_cases",
    "read_decathlon",
    "read_labelled",
    "require_label",
    "sample_data",
    "sample_folder",
]
