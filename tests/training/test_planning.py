"""What a pretraining finds out before it begins: scans of other runs' test cases, the batch that fits into memory."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from modelsgenesis.configs import GenesisUNetConfig, PretrainingConfig
from modelsgenesis.data import ScanReference
from modelsgenesis.errors import ConfigurationError, DataError
from modelsgenesis.hardware import Hardware
from modelsgenesis.networks import build_network
from modelsgenesis.training import planning
from modelsgenesis.training.planning import exclude_test_cases, fit_batch
from recorded_notes import Notes

CONFIG = PretrainingConfig(
    network=GenesisUNetConfig(dims=2, widths=(4, 8), norm="instance"), patch_size=(256, 256), batch_size=2
)
MEGABYTE = 2**20
NETWORK = build_network(CONFIG.network)


@pytest.mark.parametrize(
    ("free", "samples", "batch", "words"),
    [
        (1000, 10_000, 997, "batch_size=997: what 1.0 GiB hold"),
        (1000, 30, 30, "batch_size=30: there are no more samples"),
        (1, 30, None, r"not one patch of \(256, 256\) fits into .* set patch_size smaller"),
    ],
)
def test_the_largest_batch_that_fits_is_no_larger_than_an_epoch(monkeypatch, free, samples, batch, words):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free * MEGABYTE / 0.8, 0))
    monkeypatch.setattr(planning, "measure_steps", lambda *_: [0, 4 * MEGABYTE, 5 * MEGABYTE])
    notes = Notes()
    with pytest.raises(ConfigurationError, match=words) if batch is None else nullcontext():
        assert fit_batch(NETWORK, samples, CONFIG, Hardware(torch.device("cuda")), notes).batch_size == batch
        assert notes.notes == [words]


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
