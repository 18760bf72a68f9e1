"""Predictions come back in the space of their scan, however its axes lie."""

import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modelsgenesis.checkpoints import Bundle
from modelsgenesis.configs import CONTRACTS, BundleConfig, GenesisUNetConfig, PredictionConfig, Provenance
from modelsgenesis.data import Volume, prepare, prepare_label, read_volume, to_native
from modelsgenesis.errors import ShapeError
from modelsgenesis.hardware import choose_hardware
from modelsgenesis.inference.ensemble import Ensemble, to_scan

HARDWARE = choose_hardware("cpu", "float32")
SHAPES = CONTRACTS["shape"]
ANGLES = st.floats(-np.pi, np.pi)


@st.composite
def affines(draw):
    """Any rotation, any order and direction of the axes, sizes of 0.4 to 4 mm; half of them are left-handed."""
    turn = nib.eulerangles.euler2mat(*(draw(ANGLES) for _ in range(3)))
    order = np.eye(3)[:, draw(st.permutations(range(3)))]
    signs = np.diag(draw(st.tuples(*[st.sampled_from((-1.0, 1.0))] * 3)))
    sizes = np.diag(draw(st.tuples(*[st.floats(0.4, 4)] * 3)))
    place = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return nib.affines.from_matvec(turn @ order @ signs @ sizes, place)


SHAPE = st.tuples(*[st.integers(2, 9)] * 3)


@given(affine=affines(), shape=st.tuples(*[st.integers(2, 24)] * 3), wanted=st.tuples(*[st.floats(0.4, 4)] * 3))
def test_with_resampling_a_label_moves_by_less_than_a_voxel(affine, shape, wanted):
    """The label is the voxel's own number along an axis, so that it says where it comes from."""
    contract = SHAPES.override(spacing=wanted)
    for axis in range(3):
        numbers = np.moveaxis(np.broadcast_to(np.arange(shape[axis]), (*np.delete(shape, axis), shape[axis])), -1, axis)
        prepared = prepare_label(Volume(array=numbers, affine=affine, source="label"), contract)
        moved = np.abs(to_native(prepared.array, prepared).astype(int) - numbers).max()
        where = int(prepared.orientation[axis][0])  # type: ignore[index]
        step = prepared.steps[where]
        assert moved <= 0.75 * step + 0.5  # voxels: less than one of the coarser grid


class Threshold(nn.Module):
    """Finds what is brighter than one half, and what is brighter than three quarters."""

    size_divisor = (1, 1, 1)

    def forward(self, x):
        return torch.cat([torch.zeros_like(x), 40 * (x - 0.5), 80 * (x - 0.625)], dim=1)


def threshold(network=None, dims=3):
    contract, shape = SHAPES.override(dims=dims), GenesisUNetConfig(dims=dims, out_channels=3)
    made, size = Provenance(origin="untrained", library_version="0"), (4, 5, 3)[:dims]
    what = {"task": "segmentation", "labels": ("background", "bright", "brighter"), "provenance": made}
    return Bundle(network or Threshold(), BundleConfig(**what, network=shape, input=contract, patch_size=size))


def segmented(scan, members, **options):
    ensemble = Ensemble([("one", member) for member in members], PredictionConfig(**options), HARDWARE)
    return to_scan(ensemble.compute(ensemble.prepare([scan])), probabilities=True)


@settings(max_examples=25)
@given(affine=affines(), shape=SHAPE, flips=st.sampled_from([(), (1,), "all"]))
def test_a_prediction_lies_where_its_scan_does(affine, shape, flips):
    values = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)
    scan = Volume(array=values, affine=affine, source="scan")
    found = segmented(scan, [threshold()], flips=flips).labels
    assert np.array_equal(found, np.digitize(values, [0.5, 0.75]))


class Ramp(Threshold):
    """Answers differently in a mirrored window: the probability rises along each axis."""

    def forward(self, x):
        ramp = sum(torch.linspace(0, 1, side).reshape(-1, *[1] * (2 - axis)) for axis, side in enumerate(x.shape[2:]))
        return super().forward(x) + ramp * torch.tensor([0.0, 3.0, -2.0]).reshape(3, 1, 1, 1)


def test_flips_are_the_mean_of_mirrored_passes():
    values = np.random.default_rng(0).uniform(0, 1, (8, 10, 6)).astype(np.float32)
    member = threshold(Ramp())

    def soft(values, flips=()):
        scan = Volume(array=values, affine=np.eye(4), source="scan")
        return segmented(scan, [member], flips=flips).probabilities

    plain, mirrored = soft(values), soft(values[:, ::-1])[:, ::-1]
    assert np.abs(plain - mirrored).max() > 0.1
    np.testing.assert_allclose(soft(values, (1,)), (plain + mirrored) / 2, atol=1e-6)
    every, turned = soft(values, "all"), soft(values[::-1, :, ::-1], (0, 1, 2))[::-1, :, ::-1]
    np.testing.assert_allclose(turned, every, atol=1e-6)  # a mirrored scan gives the mirrored prediction


def test_refuses_flips_along_an_axis_that_is_not_there():
    with pytest.raises(ShapeError, match=r"flips along axes \(2,\): the image has 2"):
        segmented(None, [threshold(dims=2)], flips=(2,))


@pytest.mark.parametrize("spacing", [None, (2.0, 2.0, 2.0)])
def test_the_way_back_takes_no_memory_for_each_class(spacing):
    """Sixteen classes at once would take sixteen volumes and more; see docs/prediction.md."""
    values = np.random.default_rng(0).uniform(0, 1, (96, 80, 64)).astype(np.float32)
    scan = Volume(array=values, affine=np.diag([-1.0, 1, 1, 1]), source="scan")
    prepared = prepare(scan, SHAPES.override(spacing=spacing))
    soft = np.random.default_rng(1).uniform(0, 1, (16, *prepared.array.shape)).astype(np.float32)
    tracemalloc.start()
    to_scan([(soft, prepared)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4.5 * values.nbytes


@pytest.mark.shared
def test_a_series_and_its_label_lie_on_one_another(shared_data):
    """The label's rows run the other way: in one orientation both are the same grid."""
    series = read_volume(shared_data / "dicom" / "ct_abdomen")
    truth = read_volume(shared_data / "dicom" / "ct_abdomen_label.nii.gz")
    like = Volume(array=np.zeros(series.array.shape, np.uint8), affine=series.affine, source="series")
    prepared, of_series = prepare_label(truth, CONTRACTS["ct"]), prepare_label(like, CONTRACTS["ct"])
    assert prepared.array.shape == of_series.array.shape
    np.testing.assert_allclose(prepared.affine, of_series.affine, atol=0.1)
    back = to_native(prepared.array, of_series)
    assert (back.shape, set(np.unique(back))) == (series.array.shape, set(np.unique(truth.array)))
