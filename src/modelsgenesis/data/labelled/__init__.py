"""Labelled images: the layouts in which they come, and the way into memory."""

from modelsgenesis.data.labelled.cases import data_contract as data_contract
from modelsgenesis.data.labelled.cases import digest_files as digest_files
from modelsgenesis.data.labelled.images import FileImage as FileImage
from modelsgenesis.data.labelled.preparation import label_indices as label_indices
from modelsgenesis.data.labelled.preparation import prepare_case as prepare_case
from modelsgenesis.data.labelled.preparation import read_mask as read_mask
from modelsgenesis.data.labelled.preparation import whole_numbers as whole_numbers
from modelsgenesis.data.labelled.reading import read_labelled as read_labelled
