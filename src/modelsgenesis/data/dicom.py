"""DICOM: series found by content and grouped by what they say of themselves, and their slices put into order."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from einops import rearrange

from modelsgenesis.data.dicom_file import PER_FRAME, Tags, frames_of, numbers, read_tags, text, values_of, whole
from modelsgenesis.data.reading import reader_of
from modelsgenesis.data.volume import COLOUR, ScanReference, SkippedScan, Volume, check_geometry
from modelsgenesis.errors import ScanError, require
from modelsgenesis.files import parsing

_NAMES = {"CT": "ct", "MR": "mri", "US": "ultrasound", "IVUS": "ultrasound"}
_NAMES |= dict.fromkeys(("CR", "DX", "MG", "XA", "RF", "PX", "IO", "RG"), "xray")
_VOLUMES = ("CT", "MR", "PT", "NM")
_DERIVED = ("SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "PR", "REG", "SR", "KO", "DOC", "FID", "RWV")
_COLOURS = ("RGB", "YBR", "PALETTE")
_DIRECTORY, _STORAGE = "1.2.840.10008.1.3.10", "1.2.840.10008.5.1.4.1.1."
_SCREEN, _IMAGES = "7", ("1", "2", "3", "4", "6", "7", "12", "13", "20", "128", "130")  # classes of storage

# What tells volumes of one series apart that lie in the same place.
_SPLITTERS = "AcquisitionNumber TemporalPositionIdentifier TemporalPositionIndex EchoNumbers EchoTime EffectiveEchoTime"
_SPLITTERS += " DiffusionBValue AcquisitionTime TriggerTime NominalCardiacTriggerDelayTime ImageType FrameType Folder"
_ALIKE = 1e-3  # of directions, and of spacing as a share of it: below are the digits that scanners round
_SAME = 1e-3  # mm between slices in one place
_TURN = 0.01  # of directions, within a volume and from perpendicular
_UNEVEN = 0.05  # of the distance between slices, and
_ROUNDING = 0.02  # mm, of the positions that scanners write
_SIZES = (1e-4, 1e4)  # mm


class _AsideError(ScanError):
    """A file with which nothing is wrong, but that is not an image of a patient."""


def find_series(paths: Iterable[Path]) -> tuple[list[ScanReference], list[SkippedScan]]:
    """Return the scans that DICOM files make up, whatever their names and folders, and what is skipped.

    Localizers, reports and the like are left aside on purpose: `bad` is False for them.
    """
    skipped: list[SkippedScan] = []
    series: dict[tuple[str, ...], list[Tags]] = defaultdict(list)
    for path in paths:
        try:
            frames = _frames(path)
        except ScanError as error:
            skipped.append(SkippedScan.because(path, error, bad=not isinstance(error, _AsideError)))
            continue
        # The folder stands in for a name that was removed. A picture, or a file of frames, is a series by itself.
        names = [text(frames[0], name) for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")]
        alone = len(frames) > 1 or not _is_slice(frames[0])
        series[*names[:2], names[2] or frames[0]["Folder"], str(path) if alone else ""] += frames
    scans: list[ScanReference] = []
    for key, frames in series.items():
        volumes = _split_series(frames)
        for number, volume in enumerate(volumes):
            path = volume[0]["Path"]
            source = path if key[-1] or len(frames) == 1 else f"{path.parent} [{len(volume)} slices from {path.name}]"
            try:
                scans.append(_describe(volume, str(source), number if len(volumes) > 1 and key[-1] else None))
            except ScanError as error:
                skipped.append(SkippedScan.because(source, error))
    return scans, skipped


def _describe(frames: list[Tags], source: str, index: int | None) -> ScanReference:
    """Return the reference of a volume's slices, or of a frame that is a picture.

    Its group is the patient, where the name was removed the study, else the folder.
    """
    frame = frames[0]
    shape: tuple[int, ...] = whole(frame, "Rows"), whole(frame, "Columns")
    if _is_slice(frame):
        frames, affine, notes = _order_series(frames, source)
        shape = *shape[::-1], len(frames)
        spacing = check_geometry(shape, affine, source)
    else:
        check_geometry(shape, None, source)
        # Uncalibrated: none, or 0.
        spacing = tuple(_sizes(frame, "PixelSpacing", 2) or _sizes(frame, "ImagerPixelSpacing", 2)) or None
        inverted = text(frame, "PhotometricInterpretation") == "MONOCHROME1"
        notes = ("MONOCHROME1 inverted",) if inverted else (COLOUR,) if whole(frame, "SamplesPerPixel", 1) > 1 else ()
    files, modality = tuple(dict.fromkeys(one["Path"] for one in frames)), _NAMES.get(text(frame, "Modality"))
    group = text(frame, "PatientID") or text(frame, "StudyInstanceUID") or files[0].parent.name
    told = {"format": "DICOM", "modality": modality, "group": group, "notes": notes}
    return ScanReference(path=files[0], files=files, shape=shape, spacing=spacing, index=index, **told)


def read_header(path: Path) -> list[ScanReference]:
    """Return what a file holds, a volume of one slice or of its frames, or a picture a frame; of a folder the one scan.

    Raises:
        ScanError: It cannot be used, or the folder holds no DICOM or several scans.
    """
    folder = path.is_dir()
    files = [one for one in sorted(path.iterdir()) if reader_of(one) == "dicom"] if folder else [path]
    scans, skipped = find_series(files) if files else ([], [])
    wrong = [one for one in skipped if one.bad] or (skipped if not scans else [])
    if wrong:  # a slice that is damaged may be the series' last, whose absence nothing else would tell
        raise ScanError(f"{wrong[0].source}: {wrong[0].reason}")
    if folder and len(scans) != 1:
        found = f"{len(scans)} series of {len({scan.group for scan in scans})} patients" if scans else "no DICOM series"
        raise ScanError(f"{path}: holds {found}; expected one scan, name its file, or see find_scans for many")
    return scans


def _frames(path: Path) -> list[Tags]:
    """Return the frames of a file that holds an image, those of a volume with their place; see `_place`.

    Raises:
        ScanError: It holds none that is of a patient, or a slice without a place.
    """
    tags = read_tags(path)
    modality, kind = text(tags, "Modality"), text(tags, "SOPClassUID") or text(tags, "MediaStorageSOPClassUID")
    family = kind.removeprefix(_STORAGE).split(".")[0] if kind.startswith(_STORAGE) else ""
    placed = tags.keys() & {"ImagePositionPatient", PER_FRAME}
    coloured = text(tags, "PhotometricInterpretation").startswith(_COLOURS)
    reasons = {
        "is the index of a medium": kind == _DIRECTORY,
        f"{modality} is derived from images": modality in _DERIVED,
        "is a localizer, by which the scan was planned": "LOCALIZER" in text(tags, "ImageType").split("\\"),
        f"holds no pixels ({modality or kind})": kind and family not in _IMAGES and not tags.get("PixelData"),
        "is the picture of a screen or report": _is_slice(tags) and family == _SCREEN and not placed,
        "is coloured, so that its values are not what was measured": _is_slice(tags) and coloured,
    }
    if reason := next((reason for reason, true in reasons.items() if true), ""):  # nothing is wrong with the file
        raise _AsideError(f"{path}: {reason}; expected an image of a patient")
    require(tags.get("PixelData"), ScanError, f"{path}: holds no pixels; it is truncated, copy it again")
    if tags.get("ModalityLUTSequence") or "ConcatenationUID" in tags:
        reason = "its values are mapped by a table (Modality LUT), or it is one part of an image (concatenation)"
        raise ScanError(f"{path}: {reason}; expected a whole image with slope and intercept, export it again")
    frames = frames_of(path, tags)
    return [_place(frame) for frame in frames] if _is_slice(tags) else frames


def _is_slice(tags: Tags) -> bool:
    """Tell whether frames are slices of a volume; else each is a picture of its own."""
    return text(tags, "Modality") in _VOLUMES


def read_reference(reference: ScanReference) -> Volume:
    """Read a volume or picture that `find_series` found.

    Raises:
        ScanError: A file is damaged, the series is no longer complete, or the file no longer the one that was found.
    """
    with parsing(reference.source, ScanError):
        volumes = _split_series([frame for path in reference.files for frame in _frames(path)])
        if (number := reference.index or 0) >= len(volumes):
            raise ScanError(f"{reference.source}: has no image {number}; find it again, it was changed")
        frames = volumes[number]
        if len(reference.shape) == 2:
            affine = np.diag([*(reference.spacing or (1.0, 1.0)), 1.0, 1.0])
            array, padding = values_of(frames[0], picture=True)
        else:
            frames, affine, _ = _order_series(frames, reference.source)
            planes, paddings = zip(*map(values_of, frames), strict=True)
            padding = min((own for own in paddings if own is not None), default=None)
            for plane, own in zip(planes, paddings, strict=True):
                if own is not None and own != padding:  # PET rescales every slice by numbers of its own
                    plane[plane == own] = padding
            array = rearrange(np.stack(planes), "slices rows columns -> columns rows slices")
            array = array.astype(np.float32) if array.dtype == np.float64 else array  # integers beside float32
        return Volume(
            array=array,
            affine=affine,
            source=reference.source,
            modality=reference.modality,
            has_spacing=reference.spacing is not None,
            padding=padding,
            notes=reference.notes,
        )


def _sizes(frame: Tags, name: str, count: int) -> list[float]:
    """Return distances in mm; none where they cannot be."""
    found = numbers(frame, name)
    return found if len(found) == count and _SIZES[0] <= min(found) <= max(found) <= _SIZES[1] else []


def _place(frame: Tags) -> Tags:
    """Return a frame with its place as a slice.

    Returns:
        The frame with `"Position"`, (3,) mm, the centre of the first pixel towards left, posterior, superior;
        `"Directions"`, (2, 3), along a row and along a column; and `"Sizes"`, (2,) mm between rows and columns.

    Raises:
        ScanError: It has no position, orientation or spacing, or one that cannot be.
    """
    position, directions = numbers(frame, "ImagePositionPatient"), numbers(frame, "ImageOrientationPatient")
    sizes = _sizes(frame, "PixelSpacing", 2)
    if (len(position), len(directions), len(sizes)) != (3, 6, 2):
        reason = "no position, orientation or pixel spacing; expected all three in a volume"
        raise ScanError(f"{frame['Path']}: {reason}")
    axes = np.array(directions).reshape(2, 3)
    if np.abs(axes @ axes.T - np.eye(2)).max() > _TURN:
        raise ScanError(f"{frame['Path']}: orientation {directions}; expected two perpendicular directions of length 1")
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)  # scanners round
    return {**frame, "Position": np.array(position), "Directions": axes, "Sizes": np.array(sizes)}


def _split_series(frames: Sequence[Tags]) -> list[list[Tags]]:
    """Split a series into volumes, by grid and by what tells repeated places apart; pictures into each of them."""
    if not _is_slice(frames[0]):
        return [[frame] for frame in frames]
    grids = [
        [whole(one, "Rows"), whole(one, "Columns"), *np.log(one["Sizes"]), *one["Directions"].flat] for one in frames
    ]
    parts = [np.arange(len(frames))]
    for column in np.array(grids, float).T:
        parts = [part[run] for part in parts for run in _runs(column[part], _ALIKE)]
    volumes = [[frames[number] for number in sorted(part.tolist())] for part in sorted(parts, key=np.min)]
    return [part for volume in volumes for part in _split_repeated(volume)]


def _runs(values: np.ndarray, tolerance: float) -> list[np.ndarray]:
    """Return the indices of values that are alike, by the values; there is no border of bins that could part them."""
    order = np.argsort(values, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(values[order]) > tolerance) + 1)


def _places(slices: Sequence[Tags]) -> list[list[Tags]]:
    """Return the slices in each place along the normal of the first one, from the lowest on."""
    heights = np.array([one["Position"] for one in slices]) @ np.cross(*slices[0]["Directions"])
    return [[slices[number] for number in run] for run in _runs(heights, _SAME)]


def _split_repeated(slices: list[Tags]) -> list[list[Tags]]:
    """Split slices of which several lie in one place by the first name that tells them apart."""
    if len(_places(slices)) == len(slices):
        return [slices]
    for name in _SPLITTERS.split():
        parts = defaultdict(list)
        for one in slices:
            parts[str(one.get(name))].append(one)
        if len(parts) > 1 and all(1 < len(part) == len(_places(part)) for part in parts.values()):
            return list(parts.values())
    return [slices]


def _order_series(slices: Sequence[Tags], source: str) -> tuple[list[Tags], np.ndarray, tuple[str, ...]]:
    """Put the slices of one volume in order and check that they are evenly spaced.

    Returns:
        The slices from the lowest to the highest; (4, 4), the affine from (column, row, slice) to mm in RAS+, which a
        tilted gantry shears; notes on what was left out or is unusual.

    Raises:
        ScanError: Slices are missing, unevenly spaced or turned, or different ones lie in the same place.
    """
    places, notes = _places(slices), []
    if repeated := len(slices) - len(places):  # copies, if they are alike: a folder may have a file twice
        if any(len({values_of(one)[0].tobytes() for one in place}) > 1 for place in places if len(place) > 1):
            reason = f"{repeated} of {len(slices)} slices lie where another does, and differ from it"
            raise ScanError(f"{source}: {reason}; expected one series, part its files into folders")
        notes.append(f"{repeated} copies of slices left out")
    ordered = [place[0] for place in places]
    first, affine, directions = ordered[0], np.eye(4), ordered[0]["Directions"]
    if max(np.abs(one["Directions"] - directions).max() for one in ordered) > _TURN:
        raise ScanError(f"{source}: its slices turn from one to the next; expected parallel ones")
    thickness = _sizes(first, "SliceThickness", 1) or _sizes(first, "SpacingBetweenSlices", 1)
    step = np.cross(*directions) * (thickness or [1.0])[0] if len(ordered) == 1 else _step(ordered, source)
    if len(ordered) == 1 and not thickness:
        notes.append("a single slice without a thickness, taken for 1 mm")
    unit = text(first, "RescaleType")
    if unit not in ("", "HU", "US") and text(first, "Modality") == "CT":  # US: unspecified
        notes.append(f"values in {unit}, not HU")
    affine[:3] = np.column_stack([*(directions * first["Sizes"][::-1, None]), step, first["Position"]])
    return ordered, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, tuple(notes)


def _step(slices: Sequence[Tags], source: str) -> np.ndarray:
    """Return the vector from a slice to the next, (3,) mm.

    Raises:
        ScanError: The slices are not evenly spaced.
    """
    positions = np.array([one["Position"] for one in slices])
    heights = positions @ np.cross(*slices[0]["Directions"])
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    tolerance = _UNEVEN * usual + _ROUNDING
    if (wrong := np.abs(gaps - usual) > tolerance).any():
        gap, place = gaps[wrong][0], heights[:-1][wrong][0]
        reason = f"a gap of {gap:g} mm at {place:g} mm, the slices are {usual:g} mm apart"
        raise ScanError(f"{source}: {reason}; expected an even distance, complete the series")
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    away = np.abs(positions - positions[0] - np.arange(len(slices))[:, None] * step).max()
    if away > max(tolerance, 0.5 * max(slices[0]["Sizes"])):
        raise ScanError(f"{source}: its slices lie up to {away:.3g} mm beside a straight line; expected one")
    return step
