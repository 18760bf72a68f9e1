"""Labelled images: the layouts in which they come, and the way into memory."""

from modelsgenesis.data.labelled.cases import data_contract
from modelsgenesis.data.labelled.preparation import label_indices, prepare_case, read_mask, whole_numbers
from modelsgenesis.data.labelled.reading import read_labelled
from modelsgenesis.data.labelled.sources import FileImage

__all__ = ["FileImage", "data_contract", "label_indices", "prepare_case", "read_labelled", "read_mask", "whole_numbers"]
