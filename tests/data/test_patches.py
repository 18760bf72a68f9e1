"""Patches: a function of seed, epoch and index alone, and where the rules allow."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from modelsgenesis.configs import CONTRACTS, InputContract
from modelsgenesis.data import CacheEntry, PatchDataset, VolumeCache, hold_out, split_by_size
from modelsgenesis.data.cache import VOLUME, write_set
from modelsgenesis.errors import ConfigurationError

CT = CONTRACTS["ct"]
LUNG, WALL = 0.075, 0.525  # −850 and 50 HU


def make_cache(folder: Path, arrays: list[np.ndarray], contract: InputContract = CT) -> VolumeCache:
    """Cache arrays of [0, 1] as they are."""
    entries = []
    for number, array in enumerate(arrays):
        path = folder / VOLUME.format(f"{number:040x}")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.rint(array * 65535).astype(np.uint16))
        geometry = {"shape": array.shape, "spacing": (1.0,) * array.ndim}
        entries.append(CacheEntry(key=f"{number:040x}", name=f"scan {number}", group=f"{number}", **geometry))
    return VolumeCache(folder, write_set(folder, entries, contract))


@pytest.fixture
def cache(tmp_path: Path) -> VolumeCache:
    random = np.random.default_rng(0)
    return make_cache(tmp_path, [random.random((24, 20, 16)), random.random((16, 32, 12))])


def patches_of(cache: VolumeCache, *patch_size: int, **options) -> PatchDataset:
    return PatchDataset(cache, range(len(cache)), patch_size=patch_size, **options)


def drawn(dataset: PatchDataset) -> list[torch.Tensor]:
    return [dataset[index] for index in range(len(dataset))]


def test_an_item_is_a_piece_of_its_scan(cache: VolumeCache) -> None:
    dataset = patches_of(cache, 4, 4, 4, per_scan=3, rule="none")
    assert (len(dataset), dataset[4].shape, dataset[4].dtype) == (6, (1, 4, 4, 4), torch.float32)
    patch = (dataset[4][0].numpy() * 65535).round().astype(np.uint16)
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(cache[1]), (4, 4, 4))
    assert (windows == patch).all(axis=(3, 4, 5)).sum() == 1


def test_seed_epoch_and_index_decide_alone(cache: VolumeCache) -> None:
    dataset, again, other = (patches_of(cache, 8, 8, 4, per_scan=6, seed=seed) for seed in (3, 3, 4))
    backwards = [again[index] for index in reversed(range(36))][::-1]
    assert all(torch.equal(dataset[index], backwards[index]) for index in range(36))
    assert not all(torch.equal(dataset[index], other[index]) for index in range(12))
    assert not torch.equal(dataset[5], dataset[12 * 2 + 5])
    assert len(list(dataset)) == 12  # one epoch, although any number is an item


def test_workers_change_nothing_and_what_they_refuse_is_counted(cache: VolumeCache) -> None:
    alone, shared = (patches_of(cache, 8, 8, 4, per_scan=6, rule="lung") for _ in range(2))
    expected = torch.stack(drawn(alone))
    assert torch.equal(torch.cat(list(DataLoader(shared, batch_size=5, num_workers=2))), expected)
    assert shared.refused_share == alone.refused_share > 0.9


@pytest.mark.parametrize(
    ("rule", "left", "right", "least", "most"), [("lung", LUNG, WALL, 0, 0.15), ("foreground", 0.5, 0.0, 0.1, 1)]
)
def test_rules_refuse_dense_tissue_and_air(tmp_path: Path, rule, left, right, least, most) -> None:
    array = np.full((64, 64, 64), left)
    array[32:] = right
    dataset = patches_of(make_cache(tmp_path, [array]), 16, 16, 16, rule=rule)
    assert all(least <= float((patch > 0.425).float().mean()) <= most for patch in drawn(dataset))
    assert 0.2 < dataset.refused_share < 0.9


@pytest.mark.parametrize("patch_size", [(8, 8, 1), (8, 8)])
def test_lung_rule_looks_three_slices_ahead(tmp_path: Path, patch_size: tuple) -> None:
    """A dense slice every 8: a slice of which three slices behind it are not dense is taken, and no other."""
    slices = np.arange(40) / 1000 + np.where(np.arange(40) % 8, 0, WALL)
    array = np.broadcast_to(slices, (16, 16, 40))
    dataset = patches_of(make_cache(tmp_path, [array]), *patch_size, rule="lung", per_scan=200)
    found = {round(float(patch.max()) * 1000) for patch in drawn(dataset)}
    inside = range(10, 30)  # the borders are a quarter of the 40 slices
    assert found == {z for z in inside if all((z + ahead) % 8 for ahead in range(4))}


def test_lung_rule_without_a_fitting_place_takes_the_nearest(tmp_path: Path) -> None:
    array = np.full((48, 48, 48), 0.9)
    array[:18, :18, :18] = LUNG
    dataset = patches_of(make_cache(tmp_path, [array]), 16, 16, 16, rule="lung", per_scan=2)
    # 0.12 is the most, and the mean of all places 0.015.
    assert min(float((patch < 0.5).float().mean()) for patch in drawn(dataset)) > 0.04
    assert dataset.refused_share == 1


def test_planes_are_slices_across_the_last_axis(tmp_path: Path) -> None:
    places = np.indices((12, 14, 16))[2] / 20
    cache = make_cache(tmp_path, [places, places[..., 0]], CT.override(dims=2))
    assert split_by_size(cache, (8, 8, 8))[0] == [0]
    for patch in drawn(patches_of(cache, 8, 6, rule="none")):
        assert patch.shape == (1, 8, 6)
        assert patch.max() == patch.min()


def test_too_small_scans_are_told_apart(cache: VolumeCache) -> None:
    fitting, (small,) = split_by_size(cache, (20, 20, 8))
    assert (fitting, small.source) == ([0], "scan 1")
    assert small.reason == "16×32×12 voxels do not hold a patch of 20×20×8"


def test_lung_needs_hounsfield_units(tmp_path: Path) -> None:
    mri = make_cache(tmp_path, [np.ones((9, 9, 9))], CONTRACTS["mri"])
    with pytest.raises(ConfigurationError, match=r"rule 'lung' tells tissue by HU: .* received mri"):
        patches_of(mri, 8, 8, 8, rule="lung")


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1), st.floats(0.01, 0.99), st.integers(0, 9))
def test_patients_held_out(patients: list[str], fraction: float, seed: int) -> None:
    held_out = hold_out(patients, fraction, seed)
    assert held_out < set(patients)
    assert bool(held_out) is (len(set(patients)) > 1)
    assert held_out == hold_out(patients[::-1], fraction, seed)
