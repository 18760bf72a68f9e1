"""From a scan to what a network expects, and exactly back."""

import tracemalloc
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes

from modelsgenesis.configs import CONTRACTS, InputContract
from modelsgenesis.data import Volume, prepare, prepare_label, to_native
from modelsgenesis.data.preparation import interpolate, nearest, source_positions
from modelsgenesis.errors import ScanError, ShapeError

CT, MRI, XRAY = CONTRACTS["ct"], CONTRACTS["mri"], CONTRACTS["xray"]
NNUNET = InputContract(modality="ct", intensity="standardize", mean=-775.8457, deviation=251.9326)
SIZES = st.tuples(*[st.floats(0.4, 4)] * 3)
ORIENTATIONS = ["".join(codes) for axes in permutations(("LR", "PA", "IS")) for codes in product(*axes)]


def volume(array: np.ndarray, affine: np.ndarray | None = None, **options) -> Volume:
    return Volume(array=array, affine=np.eye(4) if affine is None else affine, source="scan", **options)


def oriented(codes: str, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> np.ndarray:
    """An affine with these axis codes."""
    affine = np.diag([0.0, 0, 0, 1])
    affine[:3, 3] = 5, -7, 11
    for axis, code in enumerate(codes):
        affine["LRPAIS".index(code) // 2, axis] = spacing[axis] * (1 if code in "RAS" else -1)
    return affine


def hounsfield(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1024, 1500, shape).astype(np.int16)


def test_the_ct_window_is_exact() -> None:
    values = np.array([-3024, -2048, -1024, -1000, -500, 0, 60, 1000, 3071], np.int16).reshape(3, 3, 1)
    prepared = prepare(volume(values.repeat(2, axis=2)), CT)
    np.testing.assert_allclose(prepared.array[..., 0].ravel(), [0, 0, 0, 0, 0.25, 0.5, 0.53, 1, 1], atol=1e-6)
    assert (prepared.array.dtype, prepared.bounds) == (np.float32, (-1000, 1000))


@pytest.mark.parametrize("padding", [-2000, -2048, -3024])
def test_padding_shifts_nothing(padding: int) -> None:
    """Neither the window, nor its neighbours when voxels are merged, nor the mean of standardized scans."""
    air = hounsfield((16, 16, 8))
    air[:4] = -1024
    padded = air.copy()
    padded[:4] = padding
    merging, scored = CT.override(spacing=(2.5, 1.7, 2.0)), InputContract(modality="ct", intensity="zscore")
    for contract in (CT, merging, scored, NNUNET):
        np.testing.assert_array_equal(prepare(volume(padded), contract).array, prepare(volume(air), contract).array)


def test_standardize_is_that_of_the_nnunet_variant() -> None:
    array = hounsfield((8, 8, 8))
    standardized = prepare(volume(array), NNUNET).array
    np.testing.assert_allclose(standardized, (array + 775.8457) / 251.9326, rtol=1e-5, atol=1e-5)
    scored = prepare(volume(array), InputContract(modality="mri", intensity="zscore"))
    np.testing.assert_allclose(scored.array, (array - array.mean()) / array.std(), atol=1e-4)


def test_percentiles_are_of_the_foreground() -> None:
    head = np.zeros((20, 20, 20), np.float32)
    head[5:15, 5:15, 5:15] = np.linspace(100, 1100, 1000).reshape(10, 10, 10)
    prepared = prepare(volume(head), MRI)
    assert prepared.bounds == pytest.approx((105, 1095), abs=0.1)
    assert (prepared.array.min(), prepared.array.max()) == (0, 1)
    np.testing.assert_allclose(prepared.array, prepare(volume(head * 1000), MRI).array, atol=1e-4)
    radiograph = np.linspace(100, 200, 900).reshape(30, 30).astype(np.float32)
    radiograph[:, 20:] = 4095
    assert prepare(volume(radiograph, padding=4095.0), XRAY).bounds[1] < 200


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_orientation_becomes_ras_and_comes_back(codes: str) -> None:
    scan = volume(hounsfield((4, 5, 6)), oriented(codes))
    assert "".join(aff2axcodes(scan.affine)) == codes
    prepared = prepare(scan, CT)
    assert "".join(aff2axcodes(prepared.affine)) == "RAS"
    label = volume(np.arange(120).reshape(4, 5, 6), scan.affine)
    there = prepare_label(label, CT).array
    np.testing.assert_array_equal(to_native(np.stack([there, there + 1]), prepared)[1], label.array + 1)
    place = np.argwhere(prepared.array == prepared.array.max())[0]
    origin = np.linalg.inv(scan.affine) @ prepared.affine @ [*place, 1]
    assert scan.array[tuple(np.rint(origin[:3]).astype(int))] >= 1000


@settings(max_examples=40, deadline=None)
@given(codes=st.sampled_from(ORIENTATIONS), spacing=SIZES, wanted=SIZES)
def test_resampling_keeps_the_place_in_space(codes: str, spacing: tuple, wanted: tuple) -> None:
    """A bright ball's centre stays where it is, in mm, and a prediction has the scan's own shape."""
    shape = (14, 12, 16)
    affine = oriented(codes, spacing)
    places = np.indices(shape).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]
    centre = places.mean(axis=0)
    ball = np.exp(-(((places - centre) / (2 * max(*spacing, *wanted))) ** 2).sum(axis=1)).reshape(shape)
    ball = (ball - ball.min()) / np.ptp(ball)
    prepared = prepare(volume(ball * 2000 - 1000, affine), CT.override(spacing=wanted))
    weights = prepared.array.ravel()
    found = np.indices(prepared.array.shape).reshape(3, -1).T @ prepared.affine[:3, :3].T + prepared.affine[:3, 3]
    np.testing.assert_allclose((found * weights[:, None]).sum(axis=0) / weights.sum(), centre, atol=1e-2)
    np.testing.assert_allclose(voxel_sizes(prepared.affine), wanted, rtol=1e-3)
    assert to_native(prepared.array, prepared, order=1).shape == shape
    assert to_native(prepared.array[None].repeat(2, axis=0), prepared).shape == (2, *shape)


def test_probabilities_come_back_smooth() -> None:
    prepared = prepare(volume(hounsfield((12, 12, 12)), np.diag([1, 1, 2, 1.0])), CT.override(spacing=(0.5, 2.0, 1.0)))
    ramp = np.broadcast_to(np.linspace(0, 1, prepared.array.shape[0])[:, None, None], prepared.array.shape)
    native = to_native(np.stack([ramp, 1 - ramp]), prepared, order=1)
    assert native.dtype == np.float32
    np.testing.assert_allclose(native.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(np.diff(native[0, 2:-2, 0, 0]), 2 / 23, atol=1e-3)


def test_planes_and_slices_for_two_dimensions() -> None:
    plane = prepare(volume(hounsfield((8, 9)).astype(np.float32)), XRAY)
    np.testing.assert_array_equal(to_native(plane.array, plane), plane.array)
    contract = CT.override(dims=2, spacing=(2.0, 2.0))
    slices = prepare(volume(hounsfield((8, 8, 5)), np.diag([1, 1, 3, 1.0])), contract)
    assert (slices.array.shape, tuple(voxel_sizes(slices.affine))) == ((4, 4, 5), (2, 2, 3))


def test_ct_as_pictures_keeps_its_grey_values_and_photographs_are_stretched() -> None:
    grey = volume(np.arange(20, 84, dtype=np.uint8).reshape(8, 8), has_spacing=False)
    found = {name: prepare(grey, CONTRACTS[name]).array for name in ("ct-8bit", "photo")}
    np.testing.assert_allclose(found["ct-8bit"], grey.array / np.float32(255), atol=1e-6)
    assert (found["photo"].min(), found["photo"].max()) == (0, 1)


def test_labels_keep_their_numbers_and_come_back() -> None:
    label = volume(np.arange(60).reshape(3, 4, 5) % 7, oriented("LPS", (1, 1, 2)))
    finer = prepare_label(label, CT.override(spacing=(0.5, 0.5, 0.5)))
    assert (finer.array.shape, finer.array.dtype) == ((6, 8, 20), label.array.dtype)
    np.testing.assert_array_equal(to_native(finer.array, finer), label.array)


@pytest.mark.parametrize(
    ("array", "contract", "reason"),
    [
        (np.full((4, 4, 4), 7, np.int16), CT, "every voxel is 7; there is nothing to learn from a constant scan"),
        (np.full((4, 4, 4), np.nan), CT, "64 voxels are NaN or infinite; repair or replace them"),
        (np.zeros((4, 0, 4)), CT, "4×0×4 voxels are empty"),
        (np.arange(512.0).reshape(16, 16, 2), CT, r"values 0 to 511 are not in HU \(nothing below 0\)"),
        (np.linspace(-1040, -960, 4096).reshape(16, 16, 16), CT, "all air, hardly a voxel above -700 HU"),
        (np.arange(16.0).reshape(4, 4), CT, "has 2 axes; expected 3"),
        (np.arange(64.0).reshape(4, 4, 4), CT.override(window=(100, 200)), "lie outside the window 100 to 200"),
        (np.arange(64).reshape(4, 4, 4) // 60, MRI, "its foreground is constant at 1"),
        (hounsfield((4, 4)), CONTRACTS["ct-8bit"], "are not of 8 bits; take --modality ct for HU, else a window"),
        (np.arange(16.0).reshape(4, 4), CT.override(dims=2), "a picture of CT is --modality ct-8bit"),
        (hounsfield((4, 4)), XRAY.override(spacing=(1.0, 1.0)), "has no voxel size; expected one to bring to 1×1 mm"),
    ],
)
def test_scans_that_teach_nothing(array: np.ndarray, contract: InputContract, reason: str) -> None:
    with pytest.raises(ScanError, match=r"scan: .*" + reason):
        prepare(volume(array, has_spacing=False), contract)


@pytest.mark.parametrize(("shape", "order"), [((4, 5), 0), ((1, 1, 4, 5, 6), 0), ((4, 5, 6), 3)])
def test_predictions_of_the_wrong_shape(shape: tuple, order: int) -> None:
    prepared = prepare(volume(hounsfield((4, 5, 6))), CT)
    with pytest.raises(ShapeError, match=r"expected \(4, 5, 6\), with channels|order: received 3"):
        to_native(np.zeros(shape), prepared, order=order)


@pytest.mark.parametrize("contract", [CT, CT.override(spacing=(1.5, 1.5, 1.5)), MRI])
def test_memory_is_at_most_four_float32_volumes(contract: InputContract) -> None:
    array = np.asfortranarray(hounsfield((160, 160, 120)) + np.int16(1024 if contract is MRI else 0))
    tracemalloc.start()
    prepare(volume(array, oriented("LPS", (0.8, 0.8, 1.5))), contract)
    peak = tracemalloc.get_traced_memory()[1] + array.nbytes
    tracemalloc.stop()
    assert peak <= 4 * 4 * array.size


def test_a_ramp_stays_one_and_shrinking_averages() -> None:
    ramp = np.arange(10, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
    for length, step in [(20, 0.5), (5, 2.0), (7, 10 / 7)]:
        inside = interpolate(ramp, (length, 3), (step, 1.0))[2:-2, 0]  # at the border the nearest voxels count
        np.testing.assert_allclose(inside, source_positions(10, length, step)[2:-2], atol=1e-2)
    stripes = np.tile(np.array([0, 1], np.float32), 16)[:, None].repeat(2, axis=1)
    np.testing.assert_allclose(interpolate(stripes, (8, 2), (4.0, 1.0))[1:-1], 0.5, atol=1e-6)


@given(shape=st.tuples(*[st.integers(1, 9)] * 3), steps=st.tuples(*[st.floats(0.2, 5)] * 3), seed=st.integers(0, 99))
def test_values_stay_in_their_range(shape: tuple, steps: tuple, seed: int) -> None:
    array = np.random.default_rng(seed).random((2, *shape)).astype(np.float32)
    new = tuple(max(1, round(side / step)) for side, step in zip(shape, steps, strict=True))
    result = interpolate(array, new, steps)
    assert result.shape == (2, *new)
    np.testing.assert_allclose(result[1], interpolate(array[1], new, steps), atol=1e-6)
    assert array.min() - 1e-6 <= result.min() <= result.max() <= array.max() + 1e-6
    assert np.isin(nearest(array, new, steps), array).all()
    np.testing.assert_array_equal(interpolate(array, shape, (1.0,) * 3), array)
