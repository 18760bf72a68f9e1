"""From a scan to what a network expects, and back into the scan's own frame."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from einops import rearrange
from nibabel import orientations
from nibabel.affines import voxel_sizes

from modelsgenesis.configs import InputContract
from modelsgenesis.data.volume import Geometry, Volume, check_geometry
from modelsgenesis.errors import ScanError, ShapeError, require

_AIR = -1024.0  # HU; scanners pad with −2048 or −3024, and nothing that is imaged lies below air
_BODY = -700.0  # HU; above the noise of air, below lung with its vessels
_ROWS = 8  # that fit into a processor's cache, several hundred voxels wide and deep
_GROWTH, _SMALL = 100, 2**26  # resampling makes at most 100 times the voxels, unless they are few
_SAME_SIZE = 1e-4  # of a voxel size: headers hold float32, and resampling for less would only blur
_EIGHT_BITS = 255.0
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
        bounds: The values of the scan that became 0 and 1 (standardized: mean and mean + one deviation).
    """

    array: np.ndarray
    affine: np.ndarray
    source: str
    geometry: Geometry
    orientation: np.ndarray | None
    steps: tuple[float, ...]
    bounds: tuple[float, float] = (0.0, 1.0)


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
    oriented, shape, frame = _frame(volume, contract)
    low, high = _bounds(volume, contract)
    # Files store the first axis contiguous, float32 here the last. Copied at once, every voxel would be fetched from
    # memory by itself, which takes longer than decompression; so a few rows at a time.
    array: np.ndarray = np.empty(oriented.shape, np.float32)
    for first in range(0, array.shape[1], _ROWS):
        array[:, first : first + _ROWS] = oriented[:, first : first + _ROWS]
    bounded = contract.intensity in ("window", "percentiles")
    if bounded:
        np.clip(array, low, high, out=array)
    elif contract.modality == "ct":
        np.maximum(array, _AIR, out=array)
    array = interpolate(array, shape, frame["steps"])
    array -= np.float32(low)
    array *= np.float32(1 / (high - low))
    if bounded:  # rounding may have left it by a bit
        np.clip(array, 0, 1, out=array)
    return PreparedVolume(array=array, bounds=(low, high), **frame)


def prepare_label(label: Volume, contract: InputContract) -> PreparedVolume:
    """Bring a label map into the frame of a contract by the nearest voxel.

    Args:
        label: Numbers of structures.
        contract: The one of the image.

    Returns:
        The prepared label, of the same type: the nearest voxel invents no number.

    Raises:
        ScanError: The label has no spacing where the contract wants one.
    """
    array, shape, frame = _frame(label, contract)
    return PreparedVolume(array=nearest(array, shape, frame["steps"]), **frame)


def to_native(array: np.ndarray, prepared: PreparedVolume, *, order: int = 0) -> np.ndarray:
    """Bring a prediction from the prepared frame into the scan's own shape and orientation.

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
        write_nifti("labels.nii.gz", labels, scan)
    """
    spatial = prepared.array.shape
    fits = array.shape[-len(spatial) :] == spatial and array.ndim - len(spatial) in (0, 1) and order in (0, 1)
    message = (
        f"{prepared.source}: an array of {array.shape} and order {order}; expected {spatial}, with channels before it"
    )
    require(fits, ShapeError, f"{message}, and order 0 (nearest) or 1 (linear)")
    oriented = prepared.geometry.shape
    if prepared.orientation is not None:  # row i says on which axis the scan's axis i came to lie
        oriented = tuple(oriented[axis] for axis in np.argsort(prepared.orientation[:, 0]))
    inverse = tuple(1 / step for step in prepared.steps)
    array = (interpolate if order == 1 else nearest)(array, oriented, inverse)
    if prepared.orientation is None:
        return array
    identity = np.array([[axis, 1] for axis in range(len(spatial))])
    back = orientations.ornt_transform(identity, prepared.orientation)
    channels_last = rearrange(array, "... x y z -> x y z ...")  # nibabel turns the first axes and leaves the others
    return rearrange(orientations.apply_orientation(channels_last, back), "x y z ... -> ... x y z")


def interpolate(array: np.ndarray, shape: tuple[int, ...], steps: tuple[float, ...]) -> np.ndarray:
    """Interpolate linearly along the last axes, averaging over the new voxel where it is larger than the old.

    Args:
        array: [..., *spatial].
        shape: [*new spatial].
        steps: New voxel size over old, an axis each.

    Returns:
        [..., *new spatial], float32, within the range of the input; the array itself where nothing changes.
    """
    array, first = array.astype(np.float32, copy=False), array.ndim - len(shape)
    order = sorted(range(len(shape)), key=lambda axis: shape[axis] / array.shape[first + axis])
    for axis in order:  # what shrinks comes first, so that the others have less to do
        length = array.shape[first + axis]
        if steps[axis] != 1 or shape[axis] != length:
            # A triangle as wide as the larger voxel: linear interpolation, and an average where voxels are merged.
            centres = np.clip(source_positions(length, shape[axis], steps[axis]), 0, length - 1)
            weights = np.maximum(0.0, 1 - np.abs(np.arange(length) - centres[:, None]) / max(steps[axis], 1.0))
            weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
            array = np.moveaxis(np.tensordot(array, weights, axes=(first + axis, 1)), -1, first + axis)
    return np.ascontiguousarray(array)


def nearest(array: np.ndarray, shape: tuple[int, ...], steps: tuple[float, ...]) -> np.ndarray:
    """Take the nearest voxel along the last axes; see `interpolate` for the arguments."""
    first = array.ndim - len(shape)
    for axis, (side, step) in enumerate(zip(shape, steps, strict=True)):
        length = array.shape[first + axis]
        index = np.clip(np.rint(source_positions(length, side, step)), 0, length - 1).astype(np.intp)
        if side != length or step != 1:
            array = np.take(array, index, axis=first + axis)
    return np.ascontiguousarray(array)


def source_positions(length: int, new_length: int, step: float) -> np.ndarray:
    """Return where the new voxels' centres lie, in old voxels; both grids share their centre.

    Args:
        length: Voxels of the old grid.
        new_length: Voxels of the new one.
        step: New voxel size over old.

    Example:
        >>> source_positions(4, 2, 2.0).tolist()
        [0.5, 2.5]
    """
    return (np.arange(new_length) - (new_length - 1) / 2) * step + (length - 1) / 2


def _frame(volume: Volume, contract: InputContract) -> tuple[np.ndarray, tuple[int, ...], dict[str, Any]]:
    """Return a view in the contract's orientation, its shape in the contract's spacing, and the frame of that.

    Planes keep their orientation.

    Returns:
        [*spatial]; the new shape; and the fields of a `PreparedVolume` but array and bounds.
    """
    array, affine, orientation = volume.array, volume.affine, None
    check_geometry(array.shape, affine, volume.source)
    expected = f"{volume.source}: has {array.ndim} axes; expected {contract.dims}"
    require(contract.dims <= array.ndim <= 3, ScanError, expected)
    if array.ndim == 3 and contract.orientation is not None:
        wanted = orientations.axcodes2ornt(contract.orientation)
        orientation = orientations.ornt_transform(orientations.io_orientation(affine), wanted)
        affine = affine @ orientations.inv_ornt_aff(orientation, array.shape)
        array = orientations.apply_orientation(array, orientation)
    shape, steps = array.shape, (1.0,) * array.ndim
    if contract.spacing is not None:
        sizes = "×".join(f"{size:g}" for size in contract.spacing)
        unknown = f"{volume.source}: has no voxel size; expected one to bring to {sizes} mm"
        require(volume.has_spacing, ScanError, unknown)
        spacing = tuple(voxel_sizes(affine)[: array.ndim].tolist())
        wanted = contract.spacing + spacing[len(contract.spacing) :]  # slices of a volume keep their distance
        steps = tuple(new / old for new, old in zip(wanted, spacing, strict=True))
        steps = tuple(1.0 if abs(step - 1) < _SAME_SIZE else step for step in steps)
        shape = tuple(max(1, round(n * a / (a * step))) for n, a, step in zip(array.shape, spacing, steps, strict=True))
        grown = f"at {sizes} mm it has {math.prod(shape):.2g} voxels, {array.size:.2g} now; take a larger spacing"
        is_small = math.prod(shape) <= max(_GROWTH * array.size, _SMALL)
        require(is_small, ScanError, f"{volume.source}: {grown}, for which a model's is in its config.json")
        # An affine places the centre of voxel 0. Both grids share the centre of the field of view, so that the first
        # new voxel's centre lies (step - 1) / 2 old ones further in than the old one's, corrected for a rounded shape.
        change = np.diag([*steps, *(1.0,) * (4 - len(steps))])
        change[: array.ndim, 3] = [source_positions(*axis)[0] for axis in zip(array.shape, shape, steps, strict=True)]
        affine = affine @ change
    frame = {"affine": affine, "source": volume.source, "orientation": orientation, "steps": steps}
    return array, shape, {**frame, "geometry": volume.geometry}


def _bounds(volume: Volume, contract: InputContract) -> tuple[float, float]:
    """Return the values that become 0 and 1; refuse a scan that cannot be prepared."""
    array, source = volume.array, volume.source
    if array.dtype.kind == "f" and (bad := array.size - int(np.isfinite(array).sum())):
        raise ScanError(f"{source}: {bad} voxels are NaN or infinite; repair or replace them")
    low, high = float(array.min()), float(array.max())
    message = f"{source}: every voxel is {low:g}; there is nothing to learn from a constant scan"
    require(low < high, ScanError, message)
    window = contract.window if contract.intensity == "window" else None
    if contract.modality == "ct" and contract.intensity != "percentiles" and (window is None or window[0] < 0):
        # A picture has neither a voxel size nor values below zero, whatever it shows.
        remedy = "store HU, or choose a window" if volume.has_spacing else "a picture of CT is --modality ct-8bit"
        message = f"{source}: values {low:g} to {high:g} are not in HU (nothing below 0); {remedy}"
        require(low < 0, ScanError, message)
        is_imaged = np.count_nonzero(array > _BODY) >= _ALL_AIR * array.size
        require(is_imaged, ScanError, f"{source}: all air, hardly a voxel above {_BODY:g} HU")
    if window is not None:
        shown = f"the window {window[0]:g} to {window[1]:g}; choose a window that fits"
        message = f"{source}: values {low:g} to {high:g} lie outside {shown}"
        require(low < window[1] and high > window[0], ScanError, message)
        message = f"{source}: values {low:g} to {high:g} are not of 8 bits; take --modality ct for HU, else a window"
        is_eight_bit = contract.modality != "ct-8bit" or (low >= 0 and high <= max(_EIGHT_BITS, window[1]))
        require(is_eight_bit, ScanError, message)
        return window
    if contract.intensity == "standardize" and contract.mean is not None and contract.deviation is not None:
        low, high = contract.mean, contract.mean + contract.deviation
    elif contract.intensity == "percentiles" and contract.percentiles is not None:
        # Of the voxels above the lowest value: no zeros around a head, no padding.
        inside = array > array.min()
        if volume.padding is not None and (inside & (array != volume.padding)).any():
            inside &= array != volume.padding
        foreground = array[inside].astype(np.float32)
        low, high = map(float, np.percentile(foreground, contract.percentiles, overwrite_input=True))
    else:
        if contract.modality == "ct":
            array = np.maximum(array, array.dtype.type(_AIR))
        low = float(array.mean(dtype=np.float64))
        high = low + float(array.std(dtype=np.float64))
    message = f"{source}: its foreground is constant at {low:g}; there is nothing to learn from it"
    require(low < high, ScanError, message)
    return low, high
