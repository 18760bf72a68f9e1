"""Slices of DICOM put together: which belong to one volume, in what order, and whether all are there."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelsgenesis.data.dicom_frames import pixels_of
from modelsgenesis.data.dicom_tags import Tags, numbers, text, whole
from modelsgenesis.errors import ScanError

_SPLITTERS = (
    *("AcquisitionNumber", "TemporalPositionIdentifier", "TemporalPositionIndex", "EchoNumbers", "EchoTime"),
    *("EffectiveEchoTime", "DiffusionBValue", "AcquisitionTime", "TriggerTime", "NominalCardiacTriggerDelayTime"),
    *("ImageType", "FrameType", "Folder"),
)
"""What tells volumes of one series apart that lie in the same place."""

_ALIKE = 1e-3  # of directions, and of spacing as a share of it: below are the digits that scanners round
_SAME = 1e-3  # mm between slices in one place
_TURN = 0.01  # of directions, within a volume and from perpendicular
_UNEVEN = 0.05  # of the distance between slices, and
_ROUNDING = 0.02  # mm, of the positions that scanners write
_TILT = 0.5  # degrees
_SIZES = (1e-4, 1e4)  # mm


@dataclass(frozen=True, kw_only=True, eq=False)
class Slice:
    """A plane of a volume.

    Attributes:
        frame: What its file says of it, see `frames_of`.
        position: (3,) mm, the centre of the first pixel, towards left, posterior, superior.
        orientation: (2, 3), the directions along a row and along a column.
        spacing: (2,) mm between rows and between columns.
    """

    frame: Tags
    position: np.ndarray
    orientation: np.ndarray
    spacing: np.ndarray


def sizes(frame: Tags, name: str, count: int) -> list[float]:
    """Return distances in mm; none where they cannot be."""
    found = numbers(frame, name)
    return found if len(found) == count and _SIZES[0] <= min(found) <= max(found) <= _SIZES[1] else []


def slice_of(frame: Tags) -> Slice:
    """Return a frame as a slice.

    Raises:
        ScanError: It has no position, orientation or spacing, or one that cannot be.
    """
    position, directions = numbers(frame, "ImagePositionPatient"), numbers(frame, "ImageOrientationPatient")
    spacing = sizes(frame, "PixelSpacing", 2)
    if (len(position), len(directions), len(spacing)) != (3, 6, 2):
        reason = "no position, orientation or pixel spacing; expected all three in a volume"
        raise ScanError(f"{frame['Path']}: {reason}")
    orientation = np.array(directions).reshape(2, 3)
    if np.abs(orientation @ orientation.T - np.eye(2)).max() > _TURN:
        raise ScanError(f"{frame['Path']}: orientation {directions}; expected two perpendicular directions of length 1")
    orientation /= np.linalg.norm(orientation, axis=1, keepdims=True)  # scanners round
    return Slice(frame=frame, position=np.array(position), orientation=orientation, spacing=np.array(spacing))


def series_key(frame: Tags) -> tuple[str, ...]:
    """Return what all slices of a series have in common.

    The folder stands in for a name that was removed. A file of several frames is a series by itself.
    """
    alone = str(frame["Path"]) if whole(frame, "NumberOfFrames", 1) > 1 else ""
    series = text(frame, "SeriesInstanceUID") or frame["Folder"]
    return text(frame, "PatientID"), text(frame, "StudyInstanceUID"), series, alone


def split_series(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Split a series into volumes: by grid, and by what tells repeated places apart."""
    grids = [
        [whole(one.frame, "Rows"), whole(one.frame, "Columns"), *np.log(one.spacing), *one.orientation.flat]
        for one in slices
    ]
    parts = [np.arange(len(slices))]
    for column in np.array(grids, float).T:
        parts = [part[run] for part in parts for run in _runs(column[part], _ALIKE)]
    volumes = [[slices[number] for number in sorted(part.tolist())] for part in sorted(parts, key=np.min)]
    return [part for volume in volumes for part in _split_repeated(volume)]


def _runs(values: np.ndarray, tolerance: float) -> list[np.ndarray]:
    """Return the indices of values that are alike, by the values; there is no border of bins that could part them."""
    order = np.argsort(values, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(values[order]) > tolerance) + 1)


def _places(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Return the slices in each place along the normal of the first one, from the lowest on."""
    heights = np.array([one.position for one in slices]) @ np.cross(*slices[0].orientation)
    return [[slices[number] for number in run] for run in _runs(heights, _SAME)]


def _split_repeated(slices: list[Slice]) -> list[list[Slice]]:
    """Split slices of which several lie in one place by the first name that tells them apart."""
    if len(_places(slices)) == len(slices):
        return [slices]
    for name in _SPLITTERS:
        parts = defaultdict(list)
        for one in slices:
            parts[str(one.frame.get(name))].append(one)
        if len(parts) > 1 and all(1 < len(part) == len(_places(part)) for part in parts.values()):
            return list(parts.values())
    return [slices]


def _copies(slices: Sequence[Slice]) -> bool:
    """Tell whether slices in one place hold the same: a folder may have a file twice."""
    names, first = ("RescaleSlope", "RescaleIntercept"), slices[0].frame
    rest = [one.frame for one in slices[1:]]
    same = all(frame.get(name) == first.get(name) for frame in rest for name in names)
    return not rest or (same and all(pixels_of(frame) == pixels_of(first) for frame in rest))


def order_series(slices: Sequence[Slice], source: str) -> tuple[list[Slice], np.ndarray, tuple[str, ...]]:
    """Put the slices of one volume in order and check that they are evenly spaced.

    Returns:
        The slices from the lowest to the highest; (4, 4), the affine from (column, row, slice) to mm in RAS+, which a
        tilted gantry shears; notes on what was left out or is unusual.

    Raises:
        ScanError: Slices are missing, unevenly spaced or turned, or different ones lie in the same place.
    """
    places, notes = _places(slices), []
    if repeated := len(slices) - len(places):
        if not all(_copies(place) for place in places):
            reason = f"{repeated} of {len(slices)} slices lie where another does, and differ from it"
            raise ScanError(f"{source}: {reason}; expected one series, part its files into folders")
        notes.append(f"{repeated} copies of slices left out")
    ordered = [place[0] for place in places]
    first, affine, normal = ordered[0], np.eye(4), np.cross(*ordered[0].orientation)
    if max(np.abs(one.orientation - first.orientation).max() for one in ordered) > _TURN:
        raise ScanError(f"{source}: its slices turn from one to the next; expected parallel ones")
    thickness = sizes(first.frame, "SliceThickness", 1) or sizes(first.frame, "SpacingBetweenSlices", 1)
    step = normal * (thickness or [1.0])[0] if len(ordered) == 1 else _step(ordered, source)
    if len(ordered) == 1 and not thickness:
        notes.append("a single slice without a thickness, taken for 1 mm")
    unit = text(first.frame, "RescaleType")
    if unit not in ("", "HU", "US") and text(first.frame, "Modality") == "CT":  # US: unspecified
        notes.append(f"values in {unit}, not HU")
    cosine = step @ normal / np.linalg.norm(step) / np.linalg.norm(normal)
    if (tilt := float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))) > _TILT:
        notes.append(f"gantry tilt of {tilt:.1f}°, kept in the affine")
    affine[:3, :2] = (first.orientation * first.spacing[::-1, None]).T
    affine[:3, 2], affine[:3, 3] = step, first.position
    return ordered, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, tuple(notes)


def _step(slices: Sequence[Slice], source: str) -> np.ndarray:
    """Return the vector from a slice to the next, (3,) mm.

    Raises:
        ScanError: The slices are not evenly spaced.
    """
    normal, positions = np.cross(*slices[0].orientation), np.array([one.position for one in slices])
    heights = positions @ normal
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    wrong = np.abs(gaps - usual) > _UNEVEN * usual + _ROUNDING
    if wrong.any():
        gap, place = float(gaps[wrong][0]), float(heights[:-1][wrong][0])
        missing = round(gap / usual) - 1
        reason = f"a gap of {gap:g} mm at {place:g} mm, the slices are {usual:g} mm apart"
        if missing > 0 and abs(gap - (missing + 1) * usual) < _UNEVEN * usual + _ROUNDING:
            reason += f": {missing} missing"
        raise ScanError(f"{source}: {reason}; expected an even distance, complete the series")
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    away = np.abs(positions - positions[0] - np.arange(len(slices))[:, None] * step).max()
    if away > max(_UNEVEN * usual + _ROUNDING, 0.5 * max(slices[0].spacing)):
        raise ScanError(f"{source}: its slices lie up to {away:.3g} mm beside a straight line; expected one")
    return step
