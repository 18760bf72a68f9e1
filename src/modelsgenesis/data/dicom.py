"""DICOM: series found by content and grouped by what they say of themselves, pixels through SimpleITK."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from modelsgenesis.data.dicom_series import Series, Slice, order_series, series_key, slices_of, split_series
from modelsgenesis.data.dicom_tags import PIXELS, Tags, integer, is_dicom, numbers, read_tags, text
from modelsgenesis.data.raster import COLOUR, grey
from modelsgenesis.data.volume import (
    Refusal,
    ScanReference,
    Volume,
    check_shape,
    reading,
    spacing_of,
)
from modelsgenesis.errors import MissingExtraError, ScanError, UnreadableScanError

SUFFIXES = (".dcm", ".dicom", ".ima")
FORMAT = "DICOM"

_MODALITY, _IMAGE_TYPE, _CLASS = 0x00080060, 0x00080008, 0x00020002
_PATIENT, _STUDY = 0x00100020, 0x0020000D
_FRAMES, _SAMPLES, _PHOTOMETRIC = 0x00280008, 0x00280002, 0x00280004
_ROWS, _COLUMNS, _SIGNED, _BITS = 0x00280010, 0x00280011, 0x00280103, 0x00280100
_PADDING, _SLOPE, _INTERCEPT = 0x00280120, 0x00281053, 0x00281052
_SPACINGS = (0x00280030, 0x00181164)  # of pixels, else on the detector
_DIRECTORY = "1.2.840.10008.1.3.10"
_SYNTAX, _COMPRESSED = 0x00020010, ("1.2.840.10008.1.2.4", "1.2.840.10008.1.2.5")
_SMALLEST = 50_000  # JPEG 2000 shrinks a constant slice to a 3,500th

_NAMES = {"CT": "ct", "MR": "mri", "US": "ultrasound", "IVUS": "ultrasound"}
_NAMES |= dict.fromkeys(("CR", "DX", "MG", "XA", "RF", "PX", "IO", "RG"), "xray")
_VOLUMES = ("CT", "MR", "PT", "NM")
_DERIVED = ("SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "PR", "REG", "SR", "KO", "DOC", "FID", "RWV")


def find_series(paths: Iterable[Path]) -> tuple[list[ScanReference], list[Refusal]]:
    """Return the scans that DICOM files make up, whatever their names and folders, and what is refused.

    Raises:
        MissingExtraError: SimpleITK is not installed.
    """
    simpleitk()
    scans: list[ScanReference] = []
    refused: list[Refusal] = []
    series: dict[tuple[str, ...], list[Slice]] = defaultdict(list)
    first: dict[tuple[str, ...], Tags] = {}
    for path in paths:
        try:
            tags = _tags(path)
            if text(tags, _CLASS) == _DIRECTORY:
                continue
            if text(tags, _MODALITY) in _VOLUMES:
                key = series_key(tags, path)
                series[key] += slices_of(path, tags)
                first.setdefault(key, tags)
            else:
                scans += _describe_planes(path, tags)
        except ScanError as error:
            refused.append(Refusal(source=str(path), reason=str(error).removeprefix(f"{path}: ")))
    for key, slices in series.items():
        found, bad = _describe_volumes(slices, first.get(key, {}))
        scans += found
        refused += bad
    return scans, refused


def describe(path: Path) -> list[ScanReference]:
    """Return what one file holds: a volume of one slice or of its frames, or an image a frame.

    Raises:
        ScanError: It cannot be used.
        MissingExtraError: SimpleITK is not installed.
    """
    _tags(path)  # says what is wrong in its own words
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


def read_reference(reference: ScanReference) -> Volume:
    """Read a volume or image that `find_series` found.

    Raises:
        UnreadableScanError: A file is damaged, or is no longer the one that was found.
        ScanError: The series is no longer complete.
    """
    if len(reference.shape) == 2:
        return _read_plane(reference)
    with reading(reference.source):
        tagged = [(path, _tags(path)) for path in reference.files or (reference.path,)]
        volumes = split_series([one for path, tags in tagged for one in slices_of(path, tags)])
        if (reference.index or 0) >= len(volumes):
            raise ScanError(f"{reference.source}: holds {len(volumes)} volumes; find it again, it was changed")
        series = order_series(volumes[reference.index or 0], reference.source)
        array = np.stack([_pixels(one.path, one.frame or 0) for one in series.slices])
    tags = tagged[0][1]
    return Volume(
        array=array.transpose(2, 1, 0),
        affine=series.affine,
        source=reference.source,
        modality=reference.modality,
        padding=_padding(tags),
        notes=series.notes,
    )


def _tags(path: Path) -> Tags:
    """Return the elements of a file that holds an image.

    Raises:
        ScanError: It holds none that is of a patient, or promises pixels that it has not.
    """
    with reading(path):
        if not is_dicom(path):
            raise UnreadableScanError(f"{path}: has no DICOM content; it is damaged or of another format")
        tags = read_tags(path)
    modality = text(tags, _MODALITY)
    if text(tags, _CLASS) == _DIRECTORY:
        return tags
    if modality in _DERIVED:
        raise ScanError(f"{path}: {modality} is derived from images; expected an image")
    if not tags.get(PIXELS):
        raise ScanError(f"{path}: holds no pixels{f' ({modality})' if modality else ''}; expected an image")
    if "LOCALIZER" in text(tags, _IMAGE_TYPE).split("\\"):
        raise ScanError(f"{path}: is a localizer, by which the scan was planned; expected the scan")
    _check_pixels(path, tags)
    return tags


def _check_pixels(path: Path, tags: Tags) -> None:
    """Refuse a size that the pixels' bytes cannot be.

    Raises:
        UnreadableScanError: Rows, columns and frames promise more.
    """
    sides = (integer(tags, _ROWS), integer(tags, _COLUMNS), _count(tags), integer(tags, _SAMPLES, 1))
    promised = int(np.prod(sides, dtype=object)) * integer(tags, _BITS, 16) // 8
    compressed = text(tags, _SYNTAX).startswith(_COMPRESSED)
    stored = tags[PIXELS] * (_SMALLEST if compressed else 1)
    if not 0 < promised <= stored:
        shown = "×".join(map(str, sides))
        raise UnreadableScanError(
            f"{path}: {shown} pixels in {tags[PIXELS]} bytes; it is truncated or damaged, copy it again"
        )


def _count(tags: Tags) -> int:
    """Return the number of frames."""
    return int((numbers(tags, _FRAMES) or [1])[0])


def _describe_volumes(slices: Sequence[Slice], tags: Tags) -> tuple[list[ScanReference], list[Refusal]]:
    """Return a reference per volume of a series; `tags` are of any of its files."""
    scans: list[ScanReference] = []
    refused: list[Refusal] = []
    volumes = split_series(slices)
    for number, volume in enumerate(volumes):
        source = _source(volume)
        alone = len({one.path for one in slices}) == 1 and len(volumes) > 1  # several in one file
        try:
            series = order_series(volume, source)
            scans.append(_reference(series, tags, number if alone else None))
        except ScanError as error:
            refused.append(Refusal(source=source, reason=str(error).removeprefix(f"{source}: ")))
    return scans, refused


def _reference(series: Series, tags: Tags, index: int | None) -> ScanReference:
    first = series.slices[0]
    shape = (first.size[1], first.size[0], len(series.slices))
    files = tuple(dict.fromkeys(one.path for one in series.slices))
    check_shape(shape, str(first.path))
    return ScanReference(
        path=first.path,
        format=FORMAT,
        shape=shape,
        spacing=spacing_of(series.affine),
        modality=_NAMES.get(text(tags, _MODALITY)),
        group=_group(tags, first.path),
        index=index,
        files=files if len(files) > 1 else (),
        notes=series.notes,
    )


def _describe_planes(path: Path, tags: Tags) -> list[ScanReference]:
    """Return a reference per frame of an image that is no slice of a volume."""
    shape = (integer(tags, _ROWS), integer(tags, _COLUMNS))
    check_shape(shape, str(path))
    count = _count(tags)
    notes = (COLOUR,) if integer(tags, _SAMPLES, 1) > 1 else ()
    return [
        ScanReference(
            path=path,
            format=FORMAT,
            shape=shape,
            spacing=_plane_spacing(tags),
            modality=_NAMES.get(text(tags, _MODALITY)),
            group=_group(tags, path),
            index=index,
            notes=notes,
        )
        for index in (range(count) if count > 1 else [None])
    ]


def _read_plane(reference: ScanReference) -> Volume:
    path = reference.path
    tags = _tags(path)
    with reading(path):
        array = _pixels(path, reference.index or 0)
    inverted = text(tags, _PHOTOMETRIC) == "MONOCHROME1"  # SimpleITK turns it, so that white is high
    affine = np.eye(4)
    affine[[0, 1], [0, 1]] = reference.spacing or (1.0, 1.0)
    return Volume(
        array=array,
        affine=affine,
        source=reference.source,
        modality=reference.modality,
        measured=reference.spacing is not None,
        padding=None if inverted else _padding(tags),
        notes=(*reference.notes, "MONOCHROME1 inverted") if inverted else reference.notes,
    )


def _plane_spacing(tags: Tags) -> tuple[float, ...] | None:
    """Return mm between rows and columns; radiographs without a calibration say nothing, or 0."""
    for tag in _SPACINGS:
        spacing = numbers(tags, tag)
        if len(spacing) == 2 and min(spacing) > 0 and max(spacing) < np.inf:
            return tuple(spacing)
    return None


def _pixels(path: Path, frame: int) -> np.ndarray:
    """Return the values of a frame after the file's rescale, [rows, columns], colour made grey."""
    tags = read_tags(path)
    frames = _decode(path, path.stat().st_mtime_ns) if _count(tags) > 1 else _load(path)
    frames = frames.reshape(-1, *frames.shape[-3:]) if integer(tags, _SAMPLES, 1) > 1 else frames
    if frame >= len(frames):
        raise UnreadableScanError(f"{path}: frame {frame} was asked for, it holds {len(frames)}")
    array = frames[frame]
    return grey(array) if array.ndim == 3 else array


@lru_cache(1)
def _decode(path: Path, changed: int) -> np.ndarray:
    """Return all frames of a file and keep them: its next frame is likely to be asked for next."""
    del changed  # it makes the key of a file that was written anew another one
    return _load(path)


def _load(path: Path) -> np.ndarray:
    """Return [frames, rows, columns], with colours last where there are any."""
    sitk = simpleitk()
    with reading(path):
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        image = reader.Execute()
        array = sitk.GetArrayFromImage(image)
    axes = 3 + (image.GetNumberOfComponentsPerPixel() > 1)
    return array if array.ndim == axes else array[None]


def _padding(tags: Tags) -> float | None:
    """Return the value of pixels outside the field of view, rescaled as the pixels are."""
    if _PADDING not in tags:
        return None
    stored, bits = integer(tags, _PADDING), integer(tags, _BITS, 16)
    if integer(tags, _SIGNED) and stored >= 2 ** (bits - 1):
        stored -= 2**bits
    slope, intercept = numbers(tags, _SLOPE) or [1.0], numbers(tags, _INTERCEPT) or [0.0]
    return stored * slope[0] + intercept[0]


def _group(tags: Tags, path: Path) -> str:
    """Return the patient; where the name was removed the study, else the folder."""
    return text(tags, _PATIENT) or text(tags, _STUDY) or path.parent.name


def _source(slices: Sequence[Slice]) -> str:
    """Return what a message calls a series."""
    folders = Counter(str(one.path.parent) for one in slices)
    first = min(slices, key=lambda one: one.height).path.name
    return f"{folders.most_common(1)[0][0]} [{len(slices)} slices from {first}]"


def simpleitk() -> Any:
    """Return SimpleITK, told to keep its warnings to itself: what matters is raised.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import SimpleITK as sitk  # noqa: N813 - its own customary name
    except ImportError as error:
        raise MissingExtraError("reading DICOM", "io") from error
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk
