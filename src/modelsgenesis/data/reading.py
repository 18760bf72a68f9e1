"""Which reader a file needs, and reading through it."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

from modelsgenesis.data import dicom, images, itk, nifti
from modelsgenesis.data.dicom_tags import is_dicom
from modelsgenesis.data.volume import ScanReference, Volume, reading
from modelsgenesis.errors import ScanError, UnreadableScanError
from modelsgenesis.files import check_regular

READERS: tuple[ModuleType, ...] = (nifti, itk, images, dicom)
"""Modules with `SUFFIXES`, `describe(path)` and `read(path, index)`."""

KNOWN_FORMATS = "NIfTI, Analyze, MGH, MetaImage, NRRD, DICOM, PNG, JPEG, TIFF"


def reader_of(path: Path) -> ModuleType | None:
    """Return the reader of a file by its ending, DICOM's by content; None for a file that none can read."""
    name = path.name.lower()
    for reader in READERS:
        if name.endswith(reader.SUFFIXES):
            return reader
    try:
        return dicom if path.is_file() and is_dicom(path) else None
    except (OSError, ScanError):  # what cannot be opened is told by who asks for it by name
        return None


def describe(path: Path) -> list[ScanReference]:
    """Read a file's header and return a reference per volume in it.

    Raises:
        UnreadableScanError: The file is damaged or no image.
        ScanError: Its geometry cannot be right.
        MissingExtraError: The format needs an optional dependency.
    """
    return _reader(path).describe(path)


def _reader(path: Path) -> ModuleType:
    """Return the reader of a regular file: a FIFO would block it for ever."""
    check_regular(path, UnreadableScanError)
    reader = reader_of(path)
    if reader is None:
        raise UnreadableScanError(f"{path}: of no known format; expected {KNOWN_FORMATS}")
    return reader


def read_volume(scan: str | Path | ScanReference, index: int | None = None) -> Volume:
    """Read the voxels and the geometry of one scan.

    Args:
        scan: A file, a folder with one DICOM series, or a reference from `find_scans`.
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
    reference = scan if isinstance(scan, ScanReference) else None
    if reference is not None and reference.format == dicom.FORMAT:
        return dicom.read_reference(reference)
    path, index = (scan.path, scan.index) if isinstance(scan, ScanReference) else (Path(scan), index)
    with reading(path):
        if path.is_dir():
            return _read_folder(path)
    volume = _reader(path).read(path, index)
    if reference is not None and reference.modality and not volume.modality:
        volume = replace(volume, modality=reference.modality)
    return volume


def _read_folder(folder: Path) -> Volume:
    """Read the one DICOM series that lies in a folder."""
    files = [path for path in sorted(folder.iterdir()) if reader_of(path) is dicom]
    scans, refused = dicom.find_series(files) if files else ([], [])
    wrong = [one for one in refused if one.bad] or (refused if not scans else [])
    if wrong:  # a slice that is damaged may be the series' last, whose absence nothing else would tell
        raise ScanError(f"{wrong[0].source}: {wrong[0].reason}")
    if len(scans) == 1:
        return dicom.read_reference(scans[0])
    patients = len({scan.group for scan in scans})
    found = f"{len(scans)} series of {patients} patients" if scans else "no DICOM series"
    raise ScanError(f"{folder}: holds {found}; expected one scan, name its file, or see find_scans for many")
