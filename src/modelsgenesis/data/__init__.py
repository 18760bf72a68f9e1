"""Reading scans, preparing them, keeping them in a cache, and sampling sub-volumes from it."""

from modelsgenesis.data.finding import find_scans, survey
from modelsgenesis.data.modality import choose_contract
from modelsgenesis.data.nifti import write_nifti
from modelsgenesis.data.preparation import PreparedVolume, check_same_grid, prepare, prepare_label, to_native
from modelsgenesis.data.reading import read_volume
from modelsgenesis.data.splitting import split_by_group
from modelsgenesis.data.volume import Refusal, ScanReference, Volume

__all__ = [
    "PreparedVolume",
    "Refusal",
    "ScanReference",
    "Volume",
    "check_same_grid",
    "choose_contract",
    "find_scans",
    "prepare",
    "prepare_label",
    "read_volume",
    "split_by_group",
    "survey",
    "to_native",
    "write_nifti",
]
