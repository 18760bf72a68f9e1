"""Patches: a function of seed, epoch and index alone, and where the rules allow."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from modelsgenesis.configs import CONTRACTS, InputContract
from modelsgenesis.data import CacheEntry, PatchDataset, VolumeCache, split_by_group, split_by_size
from modelsgenesis.data.cache import quantize, volume_path, write_set
from modelsgenesis.data.patches import _margins, _miss
from modelsgenesis.errors import ConfigurationError, DataError

CT = CONTRACTS["ct"]


def make_cache(folder: Path, arrays: list[np.ndarray], contract: InputContract = CT) -> VolumeCache:
    """Cache arrays of [0, 1] as they are."""
    entries = []
    for number, array in enumerate(arrays):
        path = volume_path(folder, f"{number:040x}")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, quantize(array.astype(np.float32)))
        geometry = {"shape": array.shape, "spacing": (1.0,) * array.ndim, "bounds": (-1000.0, 1000.0)}
        entries.append(CacheEntry(key=f"{number:040x}", name=f"scan {number}", group=f"{number}", **geometry))
    return VolumeCache(folder, write_set(folder, entries, contract))


@pytest.fixture
def cache(tmp_path: Path) -> VolumeCache:
    random = np.random.default_rng(0)
    return make_cache(tmp_path, [random.random((24, 20, 16)), random.random((16, 32, 12))])


def test_an_item_is_a_piece_of_its_scan(cache: VolumeCache) -> None:
    dataset = PatchDataset(cache, patch_size=(4, 4, 4), per_scan=3, rule="none")
    assert (len(dataset), dataset[4].shape, dataset[4].dtype) == (6, (1, 4, 4, 4), torch.float32)
    patch = (dataset[4][0].numpy() * 65535).round().astype(np.uint16)
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(cache[1]), (4, 4, 4))
    assert (windows == patch).all(axis=(3, 4, 5)).sum() == 1


def test_seed_epoch_and_index_decide_alone(cache: VolumeCache) -> None:
    dataset = PatchDataset(cache, patch_size=(8, 8, 4), per_scan=6, seed=3)
    again = PatchDataset(cache, patch_size=(8, 8, 4), per_scan=6, seed=3)
    other = PatchDataset(cache, patch_size=(8, 8, 4), per_scan=6, seed=4)
    backwards = [again[index] for index in reversed(range(12))][::-1]
    assert all(torch.equal(dataset[index], backwards[index]) for index in range(12))
    assert not all(torch.equal(dataset[index], other[index]) for index in range(12))
    later = dataset[12 * 2 + 5]
    assert torch.equal(again[12 * 2 + 5], later)
    assert not torch.equal(dataset[5], later)


def test_workers_change_nothing_and_their_tries_are_counted(cache: VolumeCache) -> None:
    alone = PatchDataset(cache, patch_size=(8, 8, 4), per_scan=6)
    shared = PatchDataset(cache, patch_size=(8, 8, 4), per_scan=6)
    expected = torch.stack(list(alone))
    batches = list(DataLoader(shared, batch_size=5, num_workers=2))
    assert torch.equal(torch.cat(batches), expected)
    assert shared.tries == alone.tries == (12, 0)


def test_lung_rule_refuses_dense_tissue(tmp_path: Path) -> None:
    """Left half lung (−850 HU), right half chest wall (50 HU): only patches on the left are drawn."""
    array = np.full((64, 64, 64), 0.075)
    array[32:] = 0.525
    dataset = PatchDataset(make_cache(tmp_path, [array]), patch_size=(16, 16, 16), rule="lung")
    shares = [float((patch > 0.425).float().mean()) for patch in dataset]
    assert max(shares) <= 0.15
    drawn, refused = dataset.tries
    assert drawn - refused == len(dataset)
    assert 0.3 < dataset.refused_share < 0.9


def test_lung_rule_looks_three_slices_ahead(tmp_path: Path) -> None:
    """A dense slice every 8: without the look-ahead at most a quarter of 4 slices, with it half of them."""
    array = np.full((16, 16, 40), 0.075)
    array[:, :, ::8] = 0.525
    dataset = PatchDataset(make_cache(tmp_path, [array]), patch_size=(8, 8, 1), rule="lung", per_scan=64)
    lung = [index for index in range(64) if dataset[index].max() < 0.4]
    assert len(lung) == 64
    volume = np.asarray(dataset.cache[0])
    shares = [_miss(volume[:8, :8, z : z + 4], dataset._criterion, 1) for z in range(37)]
    dense = [z for z, miss in enumerate(shares) if miss > 0]
    assert dense == [z for z in range(37) if any((z + ahead) % 8 == 0 for ahead in range(4))]


def test_lung_rule_without_a_fitting_place_takes_the_nearest(tmp_path: Path) -> None:
    array = np.full((24, 24, 24), 0.9)
    dataset = PatchDataset(make_cache(tmp_path, [array]), patch_size=(8, 8, 8), rule="lung", per_scan=2)
    assert dataset[0].shape == (1, 8, 8, 8)
    assert dataset.tries == (50, 50)


def test_margins_are_those_of_2019() -> None:
    assert _margins((512, 512, 300), (64, 64, 32)) == (100, 100, 30)
    assert _margins((120, 120, 40), (64, 64, 32)) == (23, 23, 4)
    assert _margins((64, 64, 32), (64, 64, 32)) == (0, 0, 0)


def test_foreground_rule_refuses_air(tmp_path: Path) -> None:
    array = np.zeros((48, 48, 48))
    array[:24, :24, :24] = 0.5
    dataset = PatchDataset(make_cache(tmp_path, [array]), patch_size=(8, 8, 8), rule="foreground")
    assert min(float((patch > 0.25).float().mean()) for patch in dataset) >= 0.1
    assert dataset.refused_share > 0.5


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_planes_are_slices_of_any_axis(tmp_path: Path, axis: int) -> None:
    places = np.indices((12, 14, 16))[axis] / 20
    cache = make_cache(tmp_path, [places], CT.override(dims=2))
    dataset = PatchDataset(cache, patch_size=(8, 6), rule="none", axis=axis)
    for patch in dataset:
        assert patch.shape == (1, 8, 6)
        assert patch.max() == patch.min()


def test_too_small_scans_are_told_apart(cache: VolumeCache) -> None:
    fitting, small = split_by_size(cache, (20, 20, 8))
    assert (fitting, small[0].source) == ([0], "scan 1")
    assert len(PatchDataset(cache, fitting, patch_size=(20, 20, 8))) == 32
    with pytest.raises(DataError, match=r"1 scans are too small: scan 1: 16×32×12 voxels do not hold"):
        PatchDataset(cache, patch_size=(20, 20, 8))


def test_a_plane_holds_planes_and_no_volume(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, [np.random.default_rng(0).random((30, 40))], CONTRACTS["xray"])
    assert split_by_size(cache, (8, 8, 8))[0] == []
    assert PatchDataset(cache, patch_size=(16, 24))[0].shape == (1, 16, 24)


def test_wrong_arguments(cache: VolumeCache, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"rule: received 'lungs'; did you mean lung"):
        PatchDataset(cache, patch_size=(8, 8, 8), rule="lungs")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigurationError, match=r"expected 2 or 3 numbers"):
        PatchDataset(cache, patch_size=(8,))
    with pytest.raises(DataError, match=r"no scan to draw"):
        PatchDataset(cache, [], patch_size=(8, 8, 8))
    mri = make_cache(tmp_path / "mri", [np.ones((9, 9, 9))], CONTRACTS["mri"])
    with pytest.raises(ConfigurationError, match=r"rule 'lung' tells tissue by HU: .* received mri"):
        PatchDataset(mri, patch_size=(8, 8, 8), rule="lung")


@dataclass
class Scan:
    group: str


@given(
    groups=st.lists(st.sampled_from("abcdefgh"), min_size=2).filter(lambda names: len(set(names)) > 1),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 9),
)
def test_splits(groups: list[str], fraction: float, seed: int) -> None:
    scans = [Scan(group) for group in groups]
    training, held_out = split_by_group(scans, fraction, seed)
    assert sorted(training + held_out) == list(range(len(scans)))
    assert training
    assert held_out
    assert not {groups[index] for index in training} & {groups[index] for index in held_out}
    backwards = split_by_group(scans[::-1], fraction, seed)[1]
    assert {groups[::-1][index] for index in backwards} == {groups[index] for index in held_out}


def test_splits_that_cannot_be() -> None:
    with pytest.raises(DataError, match=r"2 scans of 1 patient; expected at least 2 to hold one out"):
        split_by_group([Scan("a"), Scan("a")], 0.2, 0)
    with pytest.raises(ConfigurationError, match=r"fraction: received 1, expected between 0 and 1"):
        split_by_group([Scan("a"), Scan("b")], 1, 0)
