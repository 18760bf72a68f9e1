"""Which reader a file needs, and reading through it."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

from modelsgenesis.data import images, nifti
from modelsgenesis.data.volume import ScanReference, Volume
from modelsgenesis.errors import ScanError, UnreadableScanError

READERS: tuple[ModuleType, ...] = (nifti, images)
"""Modules with `SUFFIXES`, `describe(path)` and `read(path, index)`."""

KNOWN_FORMATS = "NIfTI, Analyze, MGH, MetaImage, NRRD, DICOM, PNG, JPEG, TIFF"


def reader_of(path: Path) -> ModuleType | None:
    """Return the reader of a file by its ending, None for an ending that no reader knows."""
    name = path.name.lower()
    for reader in READERS:
        if name.endswith(reader.SUFFIXES):
            return reader
    return None


def describe(path: Path) -> list[ScanReference]:
    """Read a file's header and return a reference per volume in it.

    Raises:
        UnreadableScanError: The file is damaged or no image.
        ScanError: Its geometry cannot be right.
        MissingExtraError: The format needs an optional dependency.
    """
    reader = reader_of(path)
    if reader is None:
        raise UnreadableScanError(f"{path}: of no known format; expected {KNOWN_FORMATS}")
    return reader.describe(path)


def read_volume(scan: str | Path | ScanReference, index: int | None = None) -> Volume:
    """Read the voxels and the geometry of one scan.

    Args:
        scan: A file, or a reference from `find_scans`.
        index: Which volume of a file that holds several.

    Returns:
        The volume, its values after the file's own rescale.

    Raises:
        UnreadableScanError: The file is missing, damaged, truncated or no image.
        ScanError: It holds several volumes and none was chosen, or its geometry cannot be right.
        MissingExtraError: The format needs an optional dependency.

    Example:
        volume = read_volume("scans/c02.nii.gz")
        volume.array.shape, volume.spacing  # (122, 101, 112), (3.0, 3.0, 3.0)
    """
    if isinstance(scan, ScanReference):
        reference, path, index = scan, scan.path, scan.index
    else:
        reference, path = None, Path(scan)
    reader = reader_of(path)
    if reader is None:
        if not path.exists():
            raise UnreadableScanError(f"{path}: there is no such file")
        if path.is_dir():
            raise ScanError(f"{path}: is a folder; expected one scan, see find_scans for many")
        raise UnreadableScanError(f"{path}: of no known format; expected {KNOWN_FORMATS}")
    volume = reader.read(path, index)
    if reference is not None and reference.modality and not volume.modality:
        volume = replace(volume, modality=reference.modality)
    return volume
