"""Slices of DICOM put together: which belong to one volume, in what order, and whether all are there."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelsgenesis.data.dicom_tags import Tags, integer, numbers, text
from modelsgenesis.errors import ScanError

_FRAMES, _ROWS, _COLUMNS = 0x00280008, 0x00280010, 0x00280011
_POSITION, _ORIENTATION, _SPACING = 0x00200032, 0x00200037, 0x00280030
_SHARED, _PER_FRAME = 0x52009229, 0x52009230
_GROUPS = {_POSITION: 0x00209113, _ORIENTATION: 0x00209116, _SPACING: 0x00289110}
_INSTANCE = 0x00080018
_PATIENT, _STUDY, _SERIES = 0x00100020, 0x0020000D, 0x0020000E
_SPLITTERS = (0x00200012, 0x00200100, 0x00180086, 0x00180081, 0x00189087, 0x00080032, 0x00181060, 0x00080008)
"""Acquisition, temporal position, echo, echo time, b-value, time, trigger, image type: what tells volumes of
one series apart that lie in the same place."""

_UNEVEN = 0.05  # of the distance between slices, and
_ROUNDING = 0.02  # mm, of the positions that scanners write
_TILT = 0.5  # degrees


@dataclass(frozen=True, kw_only=True, eq=False)
class Slice:
    """A plane of a volume.

    Attributes:
        path: Its file.
        frame: Its number in a file of several, else None.
        size: Rows and columns.
        position: (3,) mm, the centre of the first pixel, towards left, posterior, superior.
        orientation: (2, 3), the directions along a row and along a column.
        spacing: mm between rows and between columns.
        instance: Its unique name, empty where it was removed.
        splitters: What may tell it from another slice in its place; the file comes last.
    """

    path: Path
    frame: int | None
    size: tuple[int, int]
    position: np.ndarray
    orientation: np.ndarray
    spacing: tuple[float, float]
    instance: str
    splitters: tuple[str, ...]

    @property
    def height(self) -> float:
        """Its position along the normal of its plane, in mm."""
        return float(np.cross(*self.orientation) @ self.position)


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """Slices in order, evenly spaced.

    Attributes:
        slices: From the lowest to the highest.
        affine: (4, 4), from (column, row, slice) to mm in RAS+; a tilted gantry shears it.
        notes: What was left out or is unusual.
    """

    slices: tuple[Slice, ...]
    affine: np.ndarray
    notes: tuple[str, ...] = ()


def slices_of(path: Path, tags: Tags) -> Iterator[Slice]:
    """Yield the slices of a file, one a frame.

    Raises:
        ScanError: A frame has no position, orientation or spacing.
    """
    count = int((numbers(tags, _FRAMES) or [1])[0])
    frames = tags.get(_PER_FRAME) or [{}]
    shared = (tags.get(_SHARED) or [{}])[0]
    if count > 1 and len(frames) != count:
        raise ScanError(f"{path}: {count} frames, the positions of {len(frames)}; expected one each")
    for number, frame in enumerate(frames if count > 1 else [{}]):
        places = (_group(frame, tag) or _group(shared, tag) or numbers(tags, tag) for tag in _GROUPS)
        position, orientation, spacing = places
        if (len(position), len(orientation), len(spacing)) != (3, 6, 2) or not min(spacing) > 0:
            raise ScanError(f"{path}: no position, orientation or pixel spacing; expected all three in a volume")
        yield Slice(
            path=path,
            frame=number if count > 1 else None,
            size=(integer(tags, _ROWS), integer(tags, _COLUMNS)),
            position=np.array(position),
            orientation=np.array(orientation).reshape(2, 3),
            spacing=(spacing[0], spacing[1]),
            instance=text(tags, _INSTANCE),
            splitters=(*(text(tags, tag) for tag in _SPLITTERS), str(path)),
        )


def _group(frame: Tags, tag: int) -> list[float]:
    """Return numbers of a functional group, where multi-frame files keep the geometry."""
    items = frame.get(_GROUPS[tag]) or [{}]
    return numbers(items[0], tag)


def series_key(tags: Tags, path: Path) -> tuple[str, ...]:
    """Return what all slices of a series have in common; the folder stands in for names that were removed."""
    names = tuple(text(tags, tag) for tag in (_PATIENT, _STUDY, _SERIES))
    return names if names[2] else (*names, str(path.parent))


def split_series(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Split a series into volumes: by grid, and by what tells repeated places apart."""
    grids = defaultdict(list)
    for one in slices:
        grids[one.size, np.round(one.spacing, 3).tobytes(), (one.orientation.round(2) + 0.0).tobytes()].append(one)
    return [volume for grid in grids.values() for volume in _split_repeated(grid)]


def _split_repeated(slices: list[Slice]) -> list[list[Slice]]:
    if not _repeated(slices):
        return [slices]
    for number in range(len(slices[0].splitters)):
        parts = defaultdict(list)
        for one in slices:
            parts[one.splitters[number]].append(one)
        volumes = list(parts.values())
        if len(volumes) > 1 and all(len(part) > 1 and not _repeated(part) for part in volumes):
            return volumes
    return [slices]


def _repeated(slices: Sequence[Slice]) -> int:
    """Return how many slices lie where another does."""
    return len(slices) - len({round(one.height, 2) for one in slices})


def order_series(slices: Sequence[Slice], source: str) -> Series:
    """Put the slices of one volume in order and check that they are evenly spaced.

    Raises:
        ScanError: Slices are missing, unevenly spaced, or different ones lie in the same place.
    """
    ordered = sorted(slices, key=lambda one: one.height)
    distinct = _without_copies(ordered)
    notes = []
    if len(distinct) < len(ordered):
        notes.append(f"{len(ordered) - len(distinct)} copies of slices left out")
    if repeated := _repeated(distinct):
        raise ScanError(f"{source}: {repeated} of {len(distinct)} slices lie where another does, and differ from it")
    step = _step(distinct, source)
    normal = np.cross(*distinct[0].orientation)
    length = float(np.linalg.norm(step))
    tilt = float(np.degrees(np.arccos(np.clip(step @ normal / length / np.linalg.norm(normal), -1, 1))))
    if tilt > _TILT:
        notes.append(f"gantry tilt of {tilt:.1f}°, kept in the affine")
    first, affine = distinct[0], np.eye(4)
    affine[:3, 0] = first.orientation[0] * first.spacing[1]
    affine[:3, 1] = first.orientation[1] * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = step, first.position
    return Series(slices=tuple(distinct), affine=np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, notes=tuple(notes))


def _step(slices: Sequence[Slice], source: str) -> np.ndarray:
    """Return the vector from a slice to the next, (3,) mm.

    Raises:
        ScanError: The slices are not evenly spaced.
    """
    if len(slices) == 1:
        return np.cross(*slices[0].orientation)
    heights = np.array([one.height for one in slices])
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
    step = (slices[-1].position - slices[0].position) / (len(slices) - 1)
    places = slices[0].position + np.arange(len(slices))[:, None] * step
    away = np.abs(np.array([one.position for one in slices]) - places).max()
    if away > max(_UNEVEN * usual + _ROUNDING, 0.5 * max(slices[0].spacing)):
        raise ScanError(f"{source}: its slices lie up to {away:.3g} mm beside a straight line; expected one")
    return step


def _without_copies(ordered: Sequence[Slice]) -> list[Slice]:
    """Leave out slices that are in the folder twice: the same name, or the same bytes, in the same place."""
    places = defaultdict(list)
    for one in ordered:
        places[round(one.height, 2)].append(one)
    distinct = []
    for here in places.values():
        names = {one.instance or _digest(one.path) for one in here} if len(here) > 1 else {""}
        contents = {_digest(one.path) for one in here} if len(names) > 1 else {""}
        same = here[0].frame is None and (len(names) == 1 or len(contents) == 1)
        distinct += here[:1] if same else here
    return distinct


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
