"""DICOM: series found by content and grouped by what they say of themselves."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from modelsgenesis.data.dicom_frames import PER_FRAME, frames_of, simpleitk, values_of
from modelsgenesis.data.dicom_series import Slice, order_series, series_key, sizes, slice_of, split_series
from modelsgenesis.data.dicom_tags import Tags, read_tags, text, whole
from modelsgenesis.data.raster import COLOUR
from modelsgenesis.data.volume import ScanReference, SkippedScan, Volume, check_shape, spacing_of
from modelsgenesis.errors import ScanError, UnreadableScanError
from modelsgenesis.files import parsing

SUFFIXES = (".dcm", ".dicom", ".ima")
FORMAT = "DICOM"

_NAMES = {"CT": "ct", "MR": "mri", "US": "ultrasound", "IVUS": "ultrasound"}
_NAMES |= dict.fromkeys(("CR", "DX", "MG", "XA", "RF", "PX", "IO", "RG"), "xray")
_VOLUMES = ("CT", "MR", "PT", "NM")
_DERIVED = ("SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "PR", "REG", "SR", "KO", "DOC", "FID", "RWV")
_COLOURS = ("RGB", "YBR", "PALETTE")
_DIRECTORY, _STORAGE = "1.2.840.10008.1.3.10", "1.2.840.10008.5.1.4.1.1."
_SCREEN, _IMAGES = "7", ("1", "2", "3", "4", "6", "7", "12", "13", "20", "128", "130")  # classes of storage


class _AsideError(ScanError):
    """A file with which nothing is wrong, but that is not an image of a patient."""


def find_series(paths: Iterable[Path]) -> tuple[list[ScanReference], list[SkippedScan]]:
    """Return the scans that DICOM files make up, whatever their names and folders, and what is refused.

    Localizers, reports and the like are left aside on purpose: `bad` of their refusal is False.

    Raises:
        MissingExtraError: SimpleITK is not installed.
    """
    simpleitk()
    scans: list[ScanReference] = []
    refused: list[SkippedScan] = []
    series: dict[tuple[str, ...], list[Slice]] = defaultdict(list)
    for path in paths:
        try:
            frames = _frames(path)
            if text(frames[0], "Modality") in _VOLUMES:
                slices = [slice_of(frame) for frame in frames]
                series[series_key(frames[0])] += slices
            else:
                scans += _describe_pictures(frames)
        except ScanError as error:
            refused.append(_refusal(path, error))
    for slices in series.values():
        volumes = split_series(slices)
        several = len(volumes) > 1 and whole(slices[0].frame, "NumberOfFrames", 1) > 1  # in one file
        for number, volume in enumerate(volumes):
            path = volume[0].frame["Path"]
            source = path if len(slices) == 1 else f"{path.parent} [{len(volume)} slices from {path.name}]"
            try:
                scans.append(_describe_volume(volume, str(source), number if several else None))
            except ScanError as error:
                refused.append(_refusal(source, error))
    return scans, refused


def _refusal(source: object, error: ScanError) -> SkippedScan:
    reason = str(error).removeprefix(f"{source}: ")
    return SkippedScan(source=str(source), reason=reason, bad=not isinstance(error, _AsideError))


def describe(path: Path) -> list[ScanReference]:
    """Return what one file holds: a volume of one slice or of its frames, or a picture a frame.

    Raises:
        ScanError: It cannot be used.
        MissingExtraError: SimpleITK is not installed.
    """
    _frames(path)  # what is wrong with it is raised as what it is
    scans, refused = find_series([path])
    if refused:
        raise ScanError(f"{path}: {refused[0].reason}")
    return scans


def read(path: Path, index: int | None) -> Volume:
    """Read one file by itself; see `modelsgenesis.data.read_volume`."""
    scans = describe(path)
    if len(scans) > 1 and index is None:
        raise ScanError(f"{path}: holds {len(scans)} images; choose one by its index")
    if index is not None and not 0 <= index < len(scans):
        raise ScanError(f"{path}: image {index} was asked for, it holds {len(scans)}")
    return read_reference(scans[index or 0])


def _frames(path: Path) -> list[Tags]:
    """Return the frames of a file that holds an image.

    Raises:
        ScanError: It holds none that is of a patient.
    """
    tags = read_tags(path)
    if reason := _why_aside(tags):
        raise _AsideError(f"{path}: {reason}; expected an image of a patient")
    if not tags.get("PixelData"):
        raise UnreadableScanError(f"{path}: holds no pixels; expected an image, it is truncated, copy it again")
    if tags.get("ModalityLUTSequence"):
        raise ScanError(f"{path}: its values are mapped by a table (Modality LUT); expected slope and intercept")
    if "ConcatenationUID" in tags:
        raise ScanError(f"{path}: is one part of an image (concatenation); expected the whole, export it as one file")
    return frames_of(path, tags)


def _why_aside(tags: Tags) -> str:
    """Return why a sound file is not an image to learn from; empty for one that is, or that should have been."""
    modality, kind = text(tags, "Modality"), text(tags, "SOPClassUID") or text(tags, "MediaStorageSOPClassUID")
    family = kind.removeprefix(_STORAGE).split(".")[0] if kind.startswith(_STORAGE) else ""
    reasons = {
        "is the index of a medium": kind == _DIRECTORY,
        f"{modality} is derived from images": modality in _DERIVED,
        "is a localizer, by which the scan was planned": "LOCALIZER" in text(tags, "ImageType").split("\\"),
        f"holds no pixels ({modality or kind})": kind and family not in _IMAGES and not tags.get("PixelData"),
    }
    if modality in _VOLUMES:
        placed = tags.keys() & {"ImagePositionPatient", PER_FRAME}
        coloured = text(tags, "PhotometricInterpretation").startswith(_COLOURS)
        reasons["is the picture of a screen or report (secondary capture)"] = family == _SCREEN and not placed
        reasons["is coloured, so that its values are not what was measured"] = coloured
    return next((reason for reason, true in reasons.items() if true), "")


def _describe_volume(slices: list[Slice], source: str, index: int | None) -> ScanReference:
    ordered, affine, notes = order_series(slices, source)
    frame, files = ordered[0].frame, tuple(dict.fromkeys(one.frame["Path"] for one in ordered))
    shape = whole(frame, "Columns"), whole(frame, "Rows"), len(ordered)
    files = files if len(files) > 1 else ()
    return _found(frame, shape=shape, spacing=spacing_of(affine), index=index, files=files, notes=notes)


def _describe_pictures(frames: list[Tags]) -> list[ScanReference]:
    """Return a reference per frame of an image that is no slice of a volume."""
    first = frames[0]
    notes = (COLOUR,) if whole(first, "SamplesPerPixel", 1) > 1 else ()
    if text(first, "PhotometricInterpretation") == "MONOCHROME1":
        notes = ("MONOCHROME1 inverted",)
    found = []
    for number, frame in enumerate(frames):
        spacing = sizes(frame, "PixelSpacing", 2) or sizes(frame, "ImagerPixelSpacing", 2)  # uncalibrated: none, or 0
        index = number if len(frames) > 1 else None
        shape = whole(frame, "Rows"), whole(frame, "Columns")
        found.append(_found(frame, shape=shape, spacing=tuple(spacing) or None, index=index, notes=notes))
    return found


def _found(frame: Tags, **found: Any) -> ScanReference:
    """Return a reference; its group is the patient, where the name was removed the study, else the folder."""
    path, modality = frame["Path"], _NAMES.get(text(frame, "Modality"))
    check_shape(found["shape"], str(path))
    group = text(frame, "PatientID") or text(frame, "StudyInstanceUID") or path.parent.name
    return ScanReference(path=path, format=FORMAT, modality=modality, group=group, **found)


def read_reference(reference: ScanReference) -> Volume:
    """Read a volume or picture that `find_series` found.

    Raises:
        UnreadableScanError: A file is damaged.
        ScanError: The series is no longer complete, or the file no longer the one that was found.
    """
    number = reference.index or 0
    with parsing(reference.source, UnreadableScanError):
        frames = [frame for path in reference.parts for frame in _frames(path)]
        picture = len(reference.shape) == 2
        found: list[Any] = frames if picture else split_series([slice_of(frame) for frame in frames])
        if number < len(found):
            return _read_picture(found[number], reference) if picture else _read_volume(found[number], reference)
    raise ScanError(f"{reference.source}: has no image {number}; find it again, it was changed")


def _read_volume(slices: list[Slice], reference: ScanReference) -> Volume:
    ordered, affine, notes = order_series(slices, reference.source)
    planes = [values_of(one.frame) for one in ordered]
    exact = all(values.dtype != np.float32 for values, _ in planes)
    array = np.stack([values for values, _ in planes], dtype=None if exact else np.float32, casting="unsafe")
    padding = min((own for _, own in planes if own is not None), default=None)
    for values, (_, own) in zip(array, planes, strict=True):
        if own is not None and own != padding:  # rescaled by numbers of its own
            values[values == own] = padding
    found = {"source": reference.source, "modality": reference.modality, "padding": padding, "notes": notes}
    return Volume(array=array.transpose(2, 1, 0), affine=affine, **found)


def _read_picture(frame: Tags, reference: ScanReference) -> Volume:
    array, padding = values_of(frame, picture=True)
    spacing = reference.spacing or (1.0, 1.0)
    found = {"source": reference.source, "modality": reference.modality, "padding": padding, "notes": reference.notes}
    measured = reference.spacing is not None
    return Volume(array=array, affine=np.diag([*spacing, 1.0, 1.0]), has_spacing=measured, **found)
