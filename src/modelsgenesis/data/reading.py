"""Reading scans of every format, and telling which input contract they call for.

A contract is chosen by what the files say, else by their values, else it is an error. The thresholds are physical where
HU give any: CT holds air or fat, whatever part of the body it shows, and nothing above 33,000. MR has arbitrary units,
whose scale differs from scan to scan. Whatever fits neither is left to the user.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from modelsgenesis.configs import CONTRACTS, InputContract
from modelsgenesis.data.volume import ScanReference, Volume, VoxelLayout
from modelsgenesis.errors import ConfigurationError, DataError, ScanError, counted, did_you_mean, require
from modelsgenesis.files import open_regular, parsing

READERS = {
    "nifti": (".nii", ".nii.gz", ".hdr", ".mgh", ".mgz"),
    "itk": (".nrrd", ".nhdr", ".mha", ".mhd"),
    "images": (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"),
    "dicom": (".dcm", ".dicom", ".ima"),
}
"""The module that reads a format, by `read_header(path)`, and the endings of its files, which DICOM does without."""

KNOWN_FORMATS = "NIfTI, Analyze, MGH, MetaImage, NRRD, DICOM, PNG, JPEG, TIFF"

_DICOM_STARTS = (b"\x08\x00\x05\x00", b"\x08\x00\x08\x00", b"\x08\x00\x16\x00", b"\x02\x00\x00\x00")

_SAMPLE = 8  # scans whose values are looked at
_WATER = 0.0
_FAT = -90.0  # HU
_SHARE = 1e-3  # of the voxels are air or fat
_PADDING = -1100.0  # HU; below is a scanner's padding
_DENSEST = 33_000  # no CT number is above, and MR in arbitrary units often is
_TWELVE_BITS = 5000  # above what a CT with a missing rescale intercept holds
_SPREAD = 3.0  # between the brightest and the darkest scan; HU do not scale from scan to scan

_ADVICE = "say which with --modality ct, mri, xray or ultrasound"
_PICTURES = "say which with --modality xray, ultrasound, photo or ct-8bit (CT slices saved as pictures, without HU)"


def is_dicom(start: bytes) -> bool:
    """Tell DICOM by a file's first 132 bytes: the magic word, or a first element that can only be DICOM's."""
    return start[128:132] == b"DICM" or start[:4] in _DICOM_STARTS


def reader_of(path: Path) -> str | None:
    """Return the module that reads a file by its ending, DICOM's by content; None for a file that none can read."""
    name = path.name.lower()
    for reader, suffixes in READERS.items():
        if name.endswith(suffixes):
            return reader
    with suppress(OSError):  # whoever asks for it by name is told why it cannot be opened
        if path.is_file():  # a FIFO would block
            with path.open("rb") as file:
                return "dicom" if is_dicom(file.read(132)) else None
    return None


def file_stem(path: Path) -> str:
    """Return a file's name without the ending of its format, if it has one: DICOM's numbers with dots are kept.

    Example:
        >>> file_stem(Path("scans/c02.nii.gz")), file_stem(Path("series/1.2.840.7"))
        ('c02', '1.2.840.7')
    """
    endings = (ending for endings in READERS.values() for ending in endings)
    ending = next(filter(path.name.lower().endswith, endings), "")
    return path.name[: len(path.name) - len(ending)]


def read_header(path: Path) -> VoxelLayout | list[ScanReference]:
    """Return what a file holds, by its header, or the DICOM series in a folder.

    Raises:
        ScanError: The file is damaged or no image, or its geometry cannot be right.
    """
    with parsing(path, ScanError):
        if not path.is_dir():
            open_regular(path, ScanError).close()  # a FIFO would block its reader for ever
        reader = "dicom" if path.is_dir() else reader_of(path)
        require(reader, ScanError, f"{path}: of no known format; expected {KNOWN_FORMATS}")
        return import_module(f"modelsgenesis.data.{reader}").read_header(path)  # the one format's, only now


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

    Example:
        volume = read_volume("scans/c02.nii.gz")
        volume.array.shape, volume.spacing  # (122, 101, 112), (3.0, 3.0, 3.0)
    """
    reference = scan if isinstance(scan, ScanReference) else None
    if reference and reference.format == "DICOM":
        return import_module("modelsgenesis.data.dicom").read_reference(reference)
    path, index = (scan.path, scan.index) if isinstance(scan, ScanReference) else (Path(scan), index)
    found = read_header(path)
    with parsing(path, ScanError):
        count = len(found) if isinstance(found, list) else found.count
        if count > 1 and index is None:
            raise ScanError(f"{path}: holds {count} volumes or images; choose one by its index")
        require(0 <= (index or 0) < count, ScanError, f"{path}: volume {index} was asked for, it holds {count}")
        if isinstance(found, list):
            return read_volume(found[index or 0])
        array = found.load(index or 0)
        return Volume(
            array=array.astype(array.dtype.newbyteorder("="), copy=False),
            affine=np.eye(4) if found.affine is None else found.affine,
            source=str(path) if index is None else f"{path} [{index}]",
            modality=reference.modality if reference else None,
            has_spacing=found.affine is not None,
            header=found.header,
            notes=found.notes,
        )


def choose_contract(
    scans: Sequence[ScanReference],
    *,
    modality: str = "auto",
    spacing: tuple[float, ...] | None = None,
    window: tuple[float, float] | None = None,
    dims: int | None = None,
    orientation: str | None = None,
) -> tuple[InputContract, str]:
    """Choose the input contract of a set of scans.

    Args:
        scans: The references of `find_scans`.
        modality: One of the modalities, or `"auto"` to decide by tags and then by values.
        spacing: Voxel size in mm to bring every scan to; None keeps each scan's own.
        window: Intensities that become 0 and 1, instead of the modality's own choice.
        dims: 2 or 3; None takes the axes of the scans.
        orientation: Axes that volumes are turned to; None for `RAS`.

    Returns:
        The contract, and a sentence that says why.

    Raises:
        DataError: The modality cannot be told, or the scans are of several, or of both 2 and 3 axes.
        ConfigurationError: The modality is unknown, or spacing, window or dims cannot be right.

    Example:
        contract, why = choose_contract(scans)
        why  # "modality: ct (air or fat and soft tissue in HU in 4 scans looked at)"
    """
    if modality not in ("auto", *CONTRACTS):
        raise ConfigurationError(f"modality: received {modality!r}; {did_you_mean(modality, ('auto', *CONTRACTS))}")
    why = f"modality: {modality} (from --modality)"
    if modality == "auto":
        modality, why = _tell_modality(scans)
    axes = Counter(len(scan.shape) for scan in scans)
    if dims is None and len(axes) > 1:
        shown = f"{axes[3]} volumes and {axes[2]} planes in one set"
        raise DataError(f"{shown}; keep them apart, or choose 2 dimensions")
    dims = dims or next(iter(axes), 3)
    changes: dict[str, Any] = {"dims": dims, "spacing": spacing} | (
        {"orientation": orientation or "RAS"} if dims == 3 else {}
    )
    changes |= {} if window is None else {"intensity": "window", "window": window}
    return CONTRACTS[modality].override(**changes), why


def detect_modality(volume: Volume) -> str | None:
    """Return what a scan's file says it is, else what its values can only be; None where neither tells.

    Example:
        detect_modality(read_volume("scans/c02.nii.gz"))  # 'ct': air and soft tissue in HU
    """
    low, high = volume.array.min(), volume.array.max()
    if volume.modality or not (np.isfinite(low) and np.isfinite(high)):
        return volume.modality
    imaged = volume.array[::2, ::2, ...]  # a quarter tells as much
    if low < _FAT and high < _DENSEST and ((imaged > _PADDING) & (imaged < _FAT)).mean() > _SHARE:
        return "ct" if high > _WATER else None
    if volume.array.ndim == 3 and low >= 0 and np.percentile(imaged, 99) > _TWELVE_BITS:
        return "mri"
    return None


def _tell_modality(scans: Sequence[ScanReference]) -> tuple[str, str]:
    """Return the modality and why: by the tags where every scan has one, else by the values of a few."""
    tags, volumes = Counter(scan.modality for scan in scans if scan.modality), []
    if len(tags) == 1 and tags.total() == len(scans):
        return scans[0].modality or "", f"modality: {scans[0].modality} (from the files or their data set)"
    looked_at = np.linspace(0, len(scans) - 1, min(_SAMPLE, len(scans))).round().astype(int)
    for index in looked_at if len(tags) < 2 else ():
        with suppress(ScanError):  # what preparation will refuse anyway does not vote
            volume = read_volume(scans[index])
            if np.isfinite([volume.array.min(), volume.array.max()]).all() and np.ptp(volume.array):
                volumes.append(volume)
    votes = Counter(vote for volume in volumes if (vote := detect_modality(volume)))
    if several := next((counts for counts in (tags, votes) if len(counts) > 1), None):
        shown = ", ".join(f"{count} {name}" for name, count in several.most_common())
        how = "" if several is tags else " by their values"
        raise DataError(f"scans of several modalities{how}: {shown}; keep them apart, or {_ADVICE}")
    require(volumes, DataError, "none of the scans looked at can be used, so their modality cannot be told")
    count, axes = len(volumes), {volume.array.ndim for volume in volumes}
    if votes["ct"] == count:
        return "ct", f"modality: ct (air or fat and soft tissue in HU in {counted(count, 'scan')} looked at)"
    low, high = min(volume.array.min() for volume in volumes), max(volume.array.max() for volume in volumes)
    tops = [float(np.percentile(volume.array, 99)) for volume in volumes]
    if axes == {3} and low >= 0 and min(tops) > 0 and not votes["ct"]:
        ratio = max(tops) / min(tops)
        if votes["mri"] or ratio > _SPREAD:
            spread = f", whose scale differs {ratio:.0f}-fold between scans" if ratio > _SPREAD else ""
            return "mri", f"modality: mri (positive values up to {high:g} in arbitrary units{spread})"
    kind = "planes and volumes" if len(axes) > 1 else "volumes" if 3 in axes else "planes"
    advice = _ADVICE if any(volume.has_spacing for volume in volumes) else _PICTURES
    raise DataError(f"the modality of {kind} with values {low:g} to {high:g} cannot be told; {advice}")
