"""What a pretraining finds out before it begins: scans of other runs' test cases, sizes that fit into memory."""

import copy
import json
from pathlib import Path

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
    largest_batch,
    largest_patch,
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


def test_measured_steps_leave_the_network_alone():
    before = copy.deepcopy(NETWORK.state_dict())
    measure_steps(NETWORK, CONFIG.override(patch_size=(16, 16)), HARDWARE, [2])
    assert all(torch.equal(value, before[name]) for name, value in NETWORK.state_dict().items())


def test_the_batch_that_is_found_takes_about_the_memory_that_there_is():
    budget = 400 * MEGABYTE
    fits = largest_batch(NETWORK, CONFIG, HARDWARE, budget, most=1000)
    assert 2 < fits < 1000
    assert 0.6 * budget < measure_steps(NETWORK, CONFIG, HARDWARE, [1, fits])[1] < 1.2 * budget
    assert largest_batch(NETWORK, CONFIG, HARDWARE, budget, most=3) == 3


def test_the_patch_that_is_found_takes_about_the_memory_that_there_is():
    budget = 200 * MEGABYTE
    patch = largest_patch(NETWORK, CONFIG, HARDWARE, budget, (4096, 4096))
    assert all(side % 2 == 0 for side in patch)
    assert max(patch) <= 1.1 * min(patch)
    peaks = measure_steps(NETWORK, CONFIG.override(patch_size=patch), HARDWARE, [1, CONFIG.batch_size])
    assert 0.5 * budget < peaks[1] < 1.3 * budget
    assert largest_patch(NETWORK, CONFIG, HARDWARE, budget, (50, 33)) == (50, 32)


def test_says_when_nothing_fits():
    with pytest.raises(ConfigurationError, match=r"not one patch of \(256, 256\) fits into .* set patch_size smaller"):
        largest_batch(NETWORK, CONFIG, HARDWARE, 1000, most=10)
    with pytest.raises(ConfigurationError, match=r"a batch of 2 patches of .* does not fit into"):
        largest_patch(NETWORK, CONFIG, HARDWARE, -1, (64, 64))


def test_a_device_that_runs_out_of_memory_is_a_large_peak(monkeypatch):
    peaks = iter([10 * MEGABYTE, 10 * MEGABYTE])

    def peak(work, _device):
        if (taken := next(peaks, None)) is None:
            raise torch.OutOfMemoryError
        return taken

    monkeypatch.setattr(planning, "peak_memory", peak)
    assert largest_batch(NETWORK, CONFIG, HARDWARE, 400 * MEGABYTE, most=10) == 1  # two were too many


def test_memory_is_shared_by_the_processes_of_a_machine_or_the_system_does_not_tell(monkeypatch, tmp_path):
    def fit(notes):
        return fit_to_memory(NETWORK, [None] * 99, CONFIG, HARDWARE, notes, batch=True, patch=False).batch_size

    monkeypatch.setattr(planning, "largest_batch", lambda *given: given[-2] // MEGABYTE)
    monkeypatch.setattr(planning, "free_memory", lambda _: 1000 * MEGABYTE)
    assert fit(Notes()) == 800
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert fit(Notes()) == 200
    monkeypatch.setattr(planning, "free_memory", lambda _: None)
    monkeypatch.setattr(planning, "_PROCESS", tmp_path / "no")
    for ask in (lambda: fit(Notes()), lambda: peak_memory(lambda: None, CPU)):
        with pytest.raises(ConfigurationError, match="does not tell its memory"):
            ask()


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
