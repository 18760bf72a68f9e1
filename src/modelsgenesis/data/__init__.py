"""Reading scans, preparing them, keeping them in a cache, and sampling sub-volumes from it."""

from modelsgenesis.data.augmentation import LabelledImages, LabelledPatches, class_target, class_weights
from modelsgenesis.data.cache import CacheEntry, VolumeCache
from modelsgenesis.data.finding import find_scans, refusal_notes, survey
from modelsgenesis.data.labelled.cases import (
    LabelledCase,
    LabelledData,
    PreparedCase,
    data_contract,
    require_label,
)
from modelsgenesis.data.labelled.fitting import fit_image
from modelsgenesis.data.labelled.preparation import check_same_grid, prepare_case, prepare_cases, read_mask
from modelsgenesis.data.labelled.reading import read_labelled
from modelsgenesis.data.labelled.sample import sample_data, sample_folder
from modelsgenesis.data.labelled.sources import FileImage, ImageSource
from modelsgenesis.data.modality import choose_contract, told_modality
from modelsgenesis.data.nifti import write_nifti
from modelsgenesis.data.preparation import PreparedVolume, prepare, prepare_label, to_native
from modelsgenesis.data.reading import read_volume
from modelsgenesis.data.sampling import SubvolumeDataset, split_fitting
from modelsgenesis.data.splitting import split_by_group
from modelsgenesis.data.volume import Geometry, Refusal, ScanReference, Volume, file_stem

__all__ = [
    "CacheEntry",
    "FileImage",
    "Geometry",
    "ImageSource",
    "LabelledCase",
    "LabelledData",
    "LabelledImages",
    "LabelledPatches",
    "PreparedCase",
    "PreparedVolume",
    "Refusal",
    "ScanReference",
    "SubvolumeDataset",
    "Volume",
    "VolumeCache",
    "check_same_grid",
    "choose_contract",
    "class_target",
    "class_weights",
    "data_contract",
    "file_stem",
    "find_scans",
    "fit_image",
    "prepare",
    "prepare_case",
    "prepare_cases",
    "prepare_label",
    "read_labelled",
    "read_mask",
    "read_volume",
    "refusal_notes",
    "require_label",
    "sample_data",
    "sample_folder",
    "split_by_group",
    "split_fitting",
    "survey",
    "to_native",
    "told_modality",
    "write_nifti",
]
