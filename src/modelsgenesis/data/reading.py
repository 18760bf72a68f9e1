"""Which reader a file needs, and reading through it.

A format is a module with `SUFFIXES` and `layout_of(path)`, listed in `READERS`; DICOM, whose scans are several files,
has more to say.
"""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

from modelsgenesis.data import dicom, images, itk, nifti
from modelsgenesis.data.dicom_file import is_dicom
from modelsgenesis.data.volume import ScanReference, Volume, VoxelLayout, check_index
from modelsgenesis.errors import ScanError
from modelsgenesis.files import check_regular, parsing

READERS: tuple[ModuleType, ...] = (nifti, itk, images, dicom)

KNOWN_FORMATS = "NIfTI, Analyze, MGH, MetaImage, NRRD, DICOM, PNG, JPEG, TIFF"


def reader_of(path: Path) -> ModuleType | None:
    """Return the reader of a file by its ending, DICOM's by content; None for a file that none can read."""
    name = path.name.lower()
    for reader in READERS:
        if name.endswith(reader.SUFFIXES):
            return reader
    try:
        return dicom if path.is_file() and is_dicom(path) else None
    except (OSError, ScanError):  # whoever asks for it by name is told why it cannot be opened
        return None


def describe(path: Path) -> list[ScanReference]:
    """Read a file's header and return a reference per volume in it.

    Raises:
        ScanError: The file is damaged or no image, or its geometry cannot be right.
        MissingExtraError: The format needs an optional dependency.
    """
    with parsing(path, ScanError):
        layout = _look_into(path)
        return layout.references() if isinstance(layout, VoxelLayout) else layout


def _look_into(path: Path) -> VoxelLayout | list[ScanReference]:
    """Return what one file holds, if it is a regular one: a FIFO would block its reader for ever."""
    check_regular(path, ScanError)
    reader = reader_of(path)
    if reader is None:
        raise ScanError(f"{path}: of no known format; expected {KNOWN_FORMATS}")
    return dicom.describe(path) if reader is dicom else reader.layout_of(path)


def read_volume(scan: str | Path | ScanReference, index: int | None = None) -> Volume:
    """Read the voxels and the geometry of one scan.

    Args:
        scan: A file, a folder with one DICOM series, or a reference from `find_scans`.
        index: Which volume of a file that holds several.

    Returns:
        The volume, its values after the file's own rescale.

    Raises:
        ScanError: The file is missing, damaged, truncated or no image; it holds several volumes and none was chosen;
            or its geometry cannot be right.
        MissingExtraError: The format needs an optional dependency.

    Example:
        volume = read_volume("scans/c02.nii.gz")
        volume.array.shape, volume.spacing  # (122, 101, 112), (3.0, 3.0, 3.0)
    """
    reference = scan if isinstance(scan, ScanReference) else None
    if reference is not None and reference.format == dicom.FORMAT:
        return dicom.read_reference(reference)
    path, index = (scan.path, scan.index) if isinstance(scan, ScanReference) else (Path(scan), index)
    with parsing(path, ScanError):
        if path.is_dir():
            return _read_folder(path)
        layout = _look_into(path)
        if not isinstance(layout, VoxelLayout):
            check_index(index, len(layout), path)
            return dicom.read_reference(layout[index or 0])
        volume = layout.read(index)
    return replace(volume, modality=reference.modality) if reference and reference.modality else volume


def _read_folder(folder: Path) -> Volume:
    """Read the one DICOM series that lies in a folder."""
    files = [path for path in sorted(folder.iterdir()) if reader_of(path) is dicom]
    scans, skipped = dicom.find_series(files) if files else ([], [])
    wrong = [one for one in skipped if one.bad] or (skipped if not scans else [])
    if wrong:  # a slice that is damaged may be the series' last, whose absence nothing else would tell
        raise ScanError(f"{wrong[0].source}: {wrong[0].reason}")
    if len(scans) == 1:
        return dicom.read_reference(scans[0])
    patients = len({scan.group for scan in scans})
    found = f"{len(scans)} series of {patients} patients" if scans else "no DICOM series"
    raise ScanError(f"{folder}: holds {found}; expected one scan, name its file, or see find_scans for many")
