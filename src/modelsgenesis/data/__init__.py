"""Reading scans, preparing them, keeping them in a cache, and drawing patches from it; labelled data in `labelled`.

What supervised training needs (`labelled`, `cases`, `augmentation`) is imported from its module, so that pretraining
does not load it.
"""

from modelsgenesis.data.cache import CacheEntry as CacheEntry
from modelsgenesis.data.cache import VolumeCache as VolumeCache
from modelsgenesis.data.finding import find_scans as find_scans
from modelsgenesis.data.finding import scan_sources as scan_sources
from modelsgenesis.data.finding import skipped_notes as skipped_notes
from modelsgenesis.data.finding import survey as survey
from modelsgenesis.data.nifti import nifti_image as nifti_image
from modelsgenesis.data.nifti import write_nifti as write_nifti
from modelsgenesis.data.patches import PatchDataset as PatchDataset
from modelsgenesis.data.patches import hold_out as hold_out
from modelsgenesis.data.patches import split_by_size as split_by_size
from modelsgenesis.data.preparation import PreparedVolume as PreparedVolume
from modelsgenesis.data.preparation import prepare as prepare
from modelsgenesis.data.preparation import prepare_label as prepare_label
from modelsgenesis.data.preparation import to_native as to_native
from modelsgenesis.data.reading import choose_contract as choose_contract
from modelsgenesis.data.reading import detect_modality as detect_modality
from modelsgenesis.data.reading import file_stem as file_stem
from modelsgenesis.data.reading import read_volume as read_volume
from modelsgenesis.data.volume import Geometry as Geometry
from modelsgenesis.data.volume import ScanReference as ScanReference
from modelsgenesis.data.volume import SkippedScan as SkippedScan
from modelsgenesis.data.volume import Volume as Volume
