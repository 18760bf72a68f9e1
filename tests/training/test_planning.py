"""What a pretraining finds out before it begins: scans of other runs' test cases, sizes that fit into memory."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from modelsgenesis.configs import GenesisUNetConfig, PretrainingConfig
from modelsgenesis.data import ScanReference
from modelsgenesis.errors import ConfigurationError, DataError
from modelsgenesis.hardware import Hardware
from modelsgenesis.networks import build_network
from modelsgenesis.training import planning
from modelsgenesis.training.planning import (
    exclude_test_cases,
    fit_to_memory,
    measure_steps,
    peak_memory,
)
from recorded_notes import Notes

CPU = torch.device("cpu")
HARDWARE = Hardware(CPU)
CONFIG = PretrainingConfig(
    network=GenesisUNetConfig(dims=2, widths=(4, 8), norm="instance"), patch_size=(256, 256), batch_size=2
)
MEGABYTE = 2**20


NETWORK = build_network(CONFIG.network)


def test_the_peak_is_what_was_taken_for_a_while():
    taken = peak_memory(lambda: torch.ones(64 * MEGABYTE // 4).sum(), CPU)
    assert 60 * MEGABYTE < taken < 90 * MEGABYTE


class Scans(list):
    """Stands for a cache: shapes of scans."""

    def entry(self, index):
        return SimpleNamespace(shape=self[index])


@pytest.fixture
def fit(monkeypatch):
    """Return a function that tells what fits into so many bytes."""

    def fit(budget, shape=(4096, 4096), notes=None, **sizes):
        monkeypatch.setattr(planning, "free_memory", lambda _: budget and budget / 0.8)
        scans, asked = Scans([shape] * 30), {"batch": False, "patch": False, **sizes}
        return fit_to_memory(NETWORK, scans, CONFIG, HARDWARE, notes or Notes(), **asked)

    return fit


def test_the_batch_that_is_found_takes_about_the_memory_that_there_is(fit):
    budget, before = 400 * MEGABYTE, copy.deepcopy(NETWORK.state_dict())
    found = fit(budget, batch=True).batch_size
    assert all(torch.equal(value, before[name]) for name, value in NETWORK.state_dict().items())
    assert 2 < found < 900
    assert 0.6 * budget < measure_steps(NETWORK, CONFIG, HARDWARE, [1, found])[1] < 1.2 * budget


def test_the_patch_that_is_found_takes_about_the_memory_that_there_is(fit):
    budget, notes = 200 * MEGABYTE, Notes()
    patch = fit(budget, patch=True, notes=notes).patch_size
    assert notes.notes == [f"patch_size={patch[0]},{patch[1]} is what 0.2 GiB hold"]
    assert all(side % 2 == 0 for side in patch)
    assert max(patch) <= 1.1 * min(patch)
    peaks = measure_steps(NETWORK, CONFIG.override(patch_size=patch), HARDWARE, [1, CONFIG.batch_size])
    assert 0.5 * budget < peaks[1] < 1.3 * budget
    assert fit(budget, (50, 33), patch=True).patch_size == (50, 32)


def test_a_device_that_runs_out_of_memory_is_a_large_peak(monkeypatch, fit):
    peaks = iter([10 * MEGABYTE, 10 * MEGABYTE])

    def peak(work, _device):
        if (taken := next(peaks, None)) is None:
            raise torch.OutOfMemoryError
        return taken

    monkeypatch.setattr(planning, "peak_memory", peak)
    assert fit(400 * MEGABYTE, batch=True).batch_size == 1  # two were too many


def test_the_processes_of_a_machine_share_its_memory(monkeypatch, fit):
    monkeypatch.setattr(planning, "measure_steps", lambda *_: [0, MEGABYTE, 2 * MEGABYTE])
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert fit(800 * MEGABYTE, batch=True).batch_size == 200


@pytest.mark.parametrize(
    ("budget", "size", "words"),
    [
        (1000, "batch", r"not one patch of \(256, 256\) fits into .* set patch_size smaller"),
        (-1, "patch", r"a batch of 2 patches of .* does not fit into"),
        (None, "batch", "does not tell its memory"),
    ],
)
def test_says_when_nothing_fits_or_the_system_does_not_tell(monkeypatch, tmp_path, fit, budget, size, words):
    with pytest.raises(ConfigurationError, match=words):
        fit(budget, **{size: True})
    monkeypatch.setattr(planning, "_PROCESS", tmp_path / "no")
    with pytest.raises(ConfigurationError, match="does not tell its memory"):
        peak_memory(lambda: None, CPU)


def write_split(path, *test):
    path.write_text(json.dumps({"training": [], "validation": [], "test": list(test)}))
    return path


def scan(name, group=None, folder="scans"):
    group = group or name.partition(".")[0]
    path = Path(folder) / name
    return ScanReference(path=path, files=(path,), format="NIfTI", shape=(8, 8, 8), spacing=None, group=group)


@pytest.mark.parametrize(
    ("name", "group", "case"),
    [
        ("hippocampus_001.nii.gz", None, "hippocampus_001"),
        ("brats_001_0000.nii.gz", None, "brats_001"),
        ("000013_005.png", "000013", "Effusion/000013_005.png"),
        ("000013_005.png", "000013", "Effusion/000013_005"),
        ("000013_005.png", "000013", "000013"),
    ],
)
def test_a_split_names_a_scan_by_its_file_or_its_patient(tmp_path, name, group, case):
    one, other = scan(name, group, folder="Effusion"), scan("other.nii.gz")
    splits = [write_split(tmp_path / "s.json", case)]
    assert exclude_test_cases([one, other], [one], splits, Notes()) == ([other], [], 1)


def test_other_scans_of_the_same_patient_are_excluded_too(tmp_path):
    notes = Notes()
    scans = [scan("a_1.png", "a"), scan("a_2.png", "a"), scan("b_1.png", "b"), scan("c_1.png", "c")]
    splits = [write_split(tmp_path / "s.json", "a_1"), write_split(tmp_path / "t.json", "b_1")]
    assert exclude_test_cases(scans, [], splits, notes) == (scans[3:], [], 3)
    assert notes.notes == ["excluded 3 scans of 2 patients that other runs keep for testing"]
    for tested, words in ((["x", "y"], "none of its 2 test cases, such as 'x'"), ([], "0 test cases, an empty list")):
        with pytest.raises(DataError, match=words):
            exclude_test_cases(scans, [], [write_split(tmp_path / "s.json", *tested)], notes)
    with pytest.raises(DataError, match="nothing is left to train on"):
        exclude_test_cases(scans[:2], [], [write_split(tmp_path / "s.json", "a")], notes)
