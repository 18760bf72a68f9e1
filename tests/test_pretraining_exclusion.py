import json
from pathlib import Path

import pytest

import modelsgenesis
from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.configs import GenesisUNetConfig, PretrainingConfig
from modelsgenesis.data import ScanReference
from modelsgenesis.errors import DataError
from modelsgenesis.pretraining import leave_out_test_cases
from recorded_notes import Notes


def split(path, *test):
    path.write_text(json.dumps({"training": [], "validation": [], "test": list(test)}))
    return path


def scan(name, group=None, folder="scans"):
    path = Path(folder) / name
    group = group or name.partition(".")[0]
    return ScanReference(path=path, format="NIfTI", shape=(8, 8, 8), spacing=None, modality=None, group=group)


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("hippocampus_001.nii.gz", "hippocampus_001"),
        ("brats_001_0000.nii.gz", "brats_001"),
        ("000013_005.png", "Effusion/000013_005.png"),
        ("000013_005.png", "Effusion/000013_005"),
        ("000013_005.png", "000013"),
    ],
)
def test_knows_a_scan_by_its_file_or_its_patient(tmp_path, name, case):
    group = "000013" if name.endswith("png") else None
    one, other = scan(name, group, folder="Effusion"), scan("other.nii.gz")
    left, held, count = leave_out_test_cases([one, other], [one], [split(tmp_path / "s.json", case)], Notes())
    assert (left, held, count) == ([other], [], 1)


def test_other_scans_of_the_same_patient_go_too(tmp_path):
    notes = Notes()
    scans = [scan("a_1.png", "a"), scan("a_2.png", "a"), scan("b_1.png", "b"), scan("c_1.png", "c")]
    splits = [split(tmp_path / "s.json", "a_1"), split(tmp_path / "t.json", "b_1")]
    left, _, count = leave_out_test_cases(scans, [], splits, notes)
    assert (left, count) == (scans[3:], 3)
    assert notes.notes == ["left out 3 scans of 2 patients that recorded splits keep for testing"]


def test_refuses_splits_that_do_not_fit(tmp_path):
    scans = [scan("a.nii.gz")]
    with pytest.raises(DataError, match=r"s\.json: none of its 2 test cases, such as 'x', is among the 1 scans"):
        leave_out_test_cases(scans, [], [split(tmp_path / "s.json", "x", "y")], Notes())
    with pytest.raises(DataError, match="none of its 0 test cases, an empty list"):
        leave_out_test_cases(scans, [], [split(tmp_path / "s.json")], Notes())
    with pytest.raises(DataError, match="name every scan; nothing is left to train on"):
        leave_out_test_cases(scans, [], [split(tmp_path / "s.json", "a")], Notes())
    with pytest.raises(DataError, match="there is no such file"):
        leave_out_test_cases(scans, [], [tmp_path / "nowhere.json"], Notes())


def test_a_pretraining_never_sees_them_and_the_card_counts_them(ct_folder, tmp_path):
    config = PretrainingConfig(
        network=GenesisUNetConfig(widths=(4, 8), norm="instance"),
        patch_size=(16, 16, 12),
        steps=1,
        batch_size=2,
        samples_per_scan=2,
        validation_samples=2,
        workers=0,
    )
    recorded = split(tmp_path / "split.json", "patient1")
    run = modelsgenesis.pretrain(ct_folder, tmp_path / "run", config=config, leave_out=recorded, device="cpu")
    seen = json.loads((run / "run.json").read_text())["split"]
    assert len(seen["training"]) + len(seen["validation"]) == 3
    assert not any("patient1" in name for names in seen.values() for name in names)
    assert load_bundle(run).config.provenance.data["left_out_test_scans"] == 1
    assert "| left out test scans | 1 |" in (run / "README.md").read_text()
