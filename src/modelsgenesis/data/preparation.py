"""From a scan to what a network expects, and back into the scan's own frame."""

import math
from dataclasses import dataclass

import numpy as np
from nibabel import orientations

from modelsgenesis.configs import InputContract
from modelsgenesis.data.resampling import interpolate, nearest, resampled_shape, source_positions
from modelsgenesis.data.volume import Geometry, Volume, check_affine, check_shape, spacing_of
from modelsgenesis.errors import ScanError, ShapeError

_AIR = -1024.0  # HU; scanners pad with −2048 or −3024, and nothing that is imaged lies below air
_BODY = -700.0  # HU; above the noise of air, below lung with its vessels
_ROWS = 8  # that fit into a processor's cache, several hundred voxels wide and deep
_GROWTH, _SMALL = 100, 2**26  # resampling makes at most 100 times the voxels, unless they are few
_ALL_AIR = 1e-4  # share of voxels above `_BODY` that an empty scan does not reach


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedVolume:
    """A scan as a network expects it, with the way back.

    Attributes:
        array: [*spatial] in the contract's orientation and spacing; float32, in [0, 1] for the intensities
            `"window"` and `"percentiles"`. A prepared label holds integers.
        affine: (4, 4), from its voxels to mm in RAS+.
        source: What a message calls it.
        geometry: The frame of the scan that it was made from.
        orientation: How the scan's axes became its own: nibabel's (axes, 2) array, None where they stayed.
        steps: Its voxel size over the scan's, along each of its own axes.
        bounds: The values of the scan that became 0 and 1 (or, standardized, mean and mean + deviation).
    """

    array: np.ndarray
    affine: np.ndarray
    source: str
    geometry: Geometry
    orientation: np.ndarray | None
    steps: tuple[float, ...]
    bounds: tuple[float, float] = (0.0, 1.0)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size in mm along each axis."""
        return spacing_of(self.affine, self.array.ndim)


def prepare(volume: Volume, contract: InputContract) -> PreparedVolume:
    """Bring a scan into the orientation, spacing and intensities of a contract.

    The same function serves pretraining, fine-tuning and prediction. Values are clipped before they are
    interpolated, so that a scanner's padding reaches no neighbour. A contract of two dimensions takes planes
    and volumes; of a volume its slices along the last axis are the planes, and the spacing is theirs.

    Args:
        volume: The scan, in its own units.
        contract: What the network expects.

    Returns:
        The prepared volume, which remembers the scan's frame; see `to_native`.

    Raises:
        ScanError: The scan is empty, constant, all air, holds NaN, is not in HU as the contract wants, has no
            spacing where the contract wants one, or has the wrong number of axes.

    Example:
        prepared = prepare(read_volume("scan.nii.gz"), CONTRACTS["ct"])
        prepared.array.min(), prepared.array.max()  # 0.0, 1.0
    """
    _check(volume, contract)
    low, high = _bounds(volume, contract)
    array, affine, orientation = _oriented(volume, contract)
    array = _in_rows(array)
    if contract.intensity in ("window", "percentiles"):
        np.clip(array, low, high, out=array)
    elif contract.modality == "ct":
        np.maximum(array, _AIR, out=array)
    steps, affine, shape = _grid(volume, array.shape, affine, contract)
    if shape != array.shape or set(steps) != {1.0}:
        array = interpolate(array, shape, steps)
    array -= np.float32(low)
    array *= np.float32(1 / (high - low))
    if contract.intensity in ("window", "percentiles"):
        np.clip(array, 0, 1, out=array)
    return PreparedVolume(
        array=array,
        affine=affine,
        source=volume.source,
        geometry=volume.geometry,
        orientation=orientation,
        steps=steps,
        bounds=(low, high),
    )


def prepare_label(label: Volume, contract: InputContract) -> PreparedVolume:
    """Bring a label map into the frame of a contract by the nearest voxel.

    Args:
        label: Integers, stored in any type.
        contract: The one of the image.

    Returns:
        The prepared label, uint8 where the classes fit, else int32.

    Raises:
        ScanError: The values are no integers, or the label has no spacing where the contract wants one.
    """
    check_shape(label.array.shape, label.source)
    check_affine(label.affine, label.source)
    _check_axes(label, contract)
    array, affine, orientation = _oriented(label, contract)
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)) or (array.dtype.kind == "f" and (array % 1 != 0).any()):
        raise ScanError(f"{label.source}: values {low:g} to {high:g} with fractions; expected the integers of a label")
    if max(-low, high) >= 2**31:
        raise ScanError(f"{label.source}: values {low:g} to {high:g}; expected the integers of a label")
    array = array.astype(np.uint8 if low >= 0 and high < 256 else np.int32)
    steps, affine, shape = _grid(label, array.shape, affine, contract)
    return PreparedVolume(
        array=nearest(array, shape, steps),
        affine=affine,
        source=label.source,
        geometry=label.geometry,
        orientation=orientation,
        steps=steps,
    )


def to_native(array: np.ndarray, prepared: PreparedVolume, *, order: int = 0) -> np.ndarray:
    """Bring an answer from the prepared frame into the scan's own shape and orientation.

    Args:
        array: [*spatial] or [channels, *spatial] with the prepared volume's spatial shape.
        prepared: What the network was given.
        order: 0 takes the nearest voxel (labels, exact without resampling), 1 interpolates (probabilities).

    Returns:
        [*scan's shape] or [channels, *scan's shape]; order 0 keeps the dtype, order 1 gives float32.

    Raises:
        ShapeError: The array has another shape than the prepared volume.

    Example:
        labels = to_native(logits.argmax(0), prepared)
        write_nifti("answer.nii.gz", labels, scan)
    """
    spatial = prepared.array.shape
    if array.shape[-len(spatial) :] != spatial or array.ndim - len(spatial) not in (0, 1):
        raise ShapeError(f"{prepared.source}: an answer of {array.shape}; expected {spatial}, with channels before it")
    if order not in (0, 1):
        raise ShapeError(f"order: received {order}, expected 0 (nearest) or 1 (linear)")
    oriented = _oriented_shape(prepared.geometry.shape, prepared.orientation)
    inverse = tuple(1 / step for step in prepared.steps)
    if order == 1:
        array = interpolate(array.astype(np.float32, copy=False), oriented, inverse)
    else:
        array = nearest(array, oriented, inverse)
    if prepared.orientation is None:
        return array
    identity = np.array([[axis, 1] for axis in range(len(spatial))])
    back = orientations.ornt_transform(identity, prepared.orientation)
    if array.ndim == len(spatial):
        return orientations.apply_orientation(array, back)
    return np.stack([orientations.apply_orientation(channel, back) for channel in array])


def _oriented(volume: Volume, contract: InputContract) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return a view in the contract's orientation; planes stay as they are."""
    if volume.array.ndim != 3 or contract.orientation is None:
        return volume.array, volume.affine, None
    wanted = orientations.axcodes2ornt(contract.orientation)
    change = orientations.ornt_transform(orientations.io_orientation(volume.affine), wanted)
    affine = volume.affine @ orientations.inv_ornt_aff(change, volume.array.shape)
    return orientations.apply_orientation(volume.array, change), affine, change


def _in_rows(array: np.ndarray) -> np.ndarray:
    """Copy into float32 with the last axis contiguous, a few rows at a time.

    Files store the first axis contiguous. Copied at once, every voxel would be fetched from memory by itself,
    which takes longer than decompression.
    """
    rows = np.empty(array.shape, np.float32)
    for first in range(0, array.shape[1], _ROWS):
        rows[:, first : first + _ROWS] = array[:, first : first + _ROWS]
    return rows


def _oriented_shape(shape: tuple[int, ...], orientation: np.ndarray | None) -> tuple[int, ...]:
    if orientation is None:
        return shape
    oriented = [0] * len(shape)
    for side, (axis, _) in zip(shape, orientation, strict=True):
        oriented[int(axis)] = side
    return tuple(oriented)


def _grid(
    volume: Volume, shape: tuple[int, ...], affine: np.ndarray, contract: InputContract
) -> tuple[tuple[float, ...], np.ndarray, tuple[int, ...]]:
    """Return steps, affine and shape of the contract's grid; both grids share their centre."""
    if contract.spacing is None:
        return (1.0,) * len(shape), affine, shape
    if not volume.has_spacing:
        wanted = "×".join(f"{size:g}" for size in contract.spacing)
        raise ScanError(f"{volume.source}: has no voxel size; expected one to bring to {wanted} mm")
    spacing = spacing_of(affine, len(shape))
    wanted = contract.spacing + spacing[len(contract.spacing) :]  # slices of a volume keep their distance
    steps = tuple(new / old for new, old in zip(wanted, spacing, strict=True))
    steps = tuple(1.0 if abs(step - 1) < 1e-4 else step for step in steps)
    new_shape = resampled_shape(shape, spacing, tuple(old * step for old, step in zip(spacing, steps, strict=True)))
    if math.prod(new_shape) > max(_GROWTH * math.prod(shape), _SMALL):
        sizes = "×".join(f"{size:g}" for size in wanted)
        raise ScanError(
            f"{volume.source}: at {sizes} mm it has {math.prod(new_shape):.2g} voxels, {math.prod(shape):.2g} now; "
            "take a larger spacing, for which a model's is in its config.json"
        )
    change = np.eye(4)
    for axis, step in enumerate(steps):
        change[axis, axis] = step
        change[axis, 3] = source_positions(shape[axis], new_shape[axis], step)[0]
    return steps, affine @ change, new_shape


def _check_axes(volume: Volume, contract: InputContract) -> None:
    if volume.array.ndim < contract.dims or volume.array.ndim > 3:
        raise ScanError(f"{volume.source}: has {volume.array.ndim} axes; expected {contract.dims}")


def _check(volume: Volume, contract: InputContract) -> None:
    """Refuse what cannot be prepared."""
    check_shape(volume.array.shape, volume.source)
    check_affine(volume.affine, volume.source)
    _check_axes(volume, contract)
    if volume.array.dtype.kind == "f":
        bad = volume.array.size - int(np.isfinite(volume.array).sum())
        if bad:
            raise ScanError(f"{volume.source}: {bad} voxels are NaN or infinite; repair or replace them")
    low, high = volume.array.min(), volume.array.max()
    if low == high:
        raise ScanError(f"{volume.source}: every voxel is {low:g}; there is nothing to learn from a constant scan")
    if contract.modality == "ct" and contract.intensity != "percentiles":
        _check_hounsfield(volume, contract)


def _check_hounsfield(volume: Volume, contract: InputContract) -> None:
    low, high = float(volume.array.min()), float(volume.array.max())
    expects_air = contract.intensity != "window" or (contract.window is not None and contract.window[0] < 0)
    if low >= 0 and expects_air:
        raise ScanError(
            f"{volume.source}: values {low:g} to {high:g} are not in HU (nothing below 0); store HU, "
            "or choose a window that fits"
        )
    if expects_air and np.count_nonzero(volume.array > _BODY) < _ALL_AIR * volume.array.size:
        raise ScanError(f"{volume.source}: all air, hardly a voxel above {_BODY:g} HU")


def _bounds(volume: Volume, contract: InputContract) -> tuple[float, float]:
    """Return the values that become 0 and 1."""
    low, high = _intensities(volume, contract)
    if not low < high:
        raise ScanError(f"{volume.source}: its foreground is constant at {low:g}; there is nothing to learn from it")
    if contract.intensity == "window" and (volume.array.min() >= high or volume.array.max() <= low):
        raise ScanError(
            f"{volume.source}: values {volume.array.min():g} to {volume.array.max():g} lie outside the "
            f"window {low:g} to {high:g}; choose a window that fits"
        )
    return low, high


def _intensities(volume: Volume, contract: InputContract) -> tuple[float, float]:
    if contract.intensity == "window" and contract.window is not None:
        return contract.window
    if contract.intensity == "standardize" and contract.mean is not None and contract.deviation is not None:
        return contract.mean, contract.mean + contract.deviation
    array = volume.array
    if contract.intensity == "percentiles" and contract.percentiles is not None:
        low, high = np.percentile(_foreground(volume), contract.percentiles, overwrite_input=True)
        return float(low), float(high)
    if contract.modality == "ct":
        array = np.maximum(array, array.dtype.type(_AIR))
    mean = float(array.mean(dtype=np.float64))
    return mean, mean + float(array.std(dtype=np.float64))


def _foreground(volume: Volume) -> np.ndarray:
    """Return the voxels above the lowest value: no zeros around a head, no padding."""
    values = volume.array
    floor = values.min()
    inside = values > floor
    if volume.padding is not None and (inside & (values != volume.padding)).any():
        inside &= values != volume.padding
    return values[inside].astype(np.float32)
