"""Reading scans, preparing them, keeping them in a cache, and sampling sub-volumes from it."""

from modelsgenesis.data.cache import VolumeCache
from modelsgenesis.data.finding import find_scans, survey
from modelsgenesis.data.modality import choose_contract
from modelsgenesis.data.nifti import write_nifti
from modelsgenesis.data.preparation import PreparedVolume, prepare, prepare_label, to_native
from modelsgenesis.data.reading import read_volume
from modelsgenesis.data.sampling import SubvolumeDataset, split_fitting
from modelsgenesis.data.splitting import split_by_group
from modelsgenesis.data.store import CacheEntry
from modelsgenesis.data.volume import Geometry, Refusal, ScanReference, Volume

__all__ = [
    "CacheEntry",
    "Geometry",
    "PreparedVolume",
    "Refusal",
    "ScanReference",
    "SubvolumeDataset",
    "Volume",
    "VolumeCache",
    "choose_contract",
    "find_scans",
    "prepare",
    "prepare_label",
    "read_volume",
    "split_by_group",
    "split_fitting",
    "survey",
    "to_native",
    "write_nifti",
]
