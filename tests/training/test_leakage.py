import dataclasses
import json
import shutil

import pytest

from modelsgenesis.checkpoints import load_bundle
from modelsgenesis.data.labelled import read_labelled
from modelsgenesis.errors import DataError
from modelsgenesis.reporting import Reporter
from modelsgenesis.training.leakage import refuse_seen
from modelsgenesis.training.splits import Split
from recorded_notes import Notes

SPLIT = Split(training=("ball_000", "ball_001", "ball_002", "ball_003"), validation=("ball_004",), test=("ball_005",))


@pytest.fixture
def learnt_from(genesis, tmp_path):
    """Make a run that lists one more scan."""

    def make(scan):
        seen = shutil.copytree(genesis, tmp_path / "seen")
        told = json.loads((seen / "run.json").read_text())
        told["split"]["validation"].append(str(scan))
        (seen / "run.json").write_text(json.dumps(told))
        return str(seen)

    return make


def known_of(weights, data, pattern=None):
    """Return what is known of the scans that weights have seen, and the notes."""
    notes, bundle = Notes(), load_bundle(weights)
    return refuse_seen(weights, bundle, read_labelled(data), SPLIT, pattern, notes), notes.notes


def test_weights_that_have_seen_a_test_patient_are_refused(decathlon, learnt_from):
    expected = r"has seen 1 of the 1 test patient, such as 'ball_005': .*data.exclude_test_cases=SPLIT.json and compare"
    with pytest.raises(DataError, match=expected):
        known_of(learnt_from(decathlon / "imagesTr" / "ball_005.nii.gz"), decathlon)


def test_a_copy_of_a_test_case_is_refused_and_another_scan_of_its_name_is_none(decathlon, learnt_from, tmp_path):
    scan = tmp_path / "imagesTr" / "ball_005.nii.gz"
    scan.parent.mkdir()
    shutil.copy(decathlon / "imagesTr" / "ball_005.nii.gz", scan)
    weights = learnt_from(scan)
    with pytest.raises(DataError, match="has seen 1 of the 1 test patient"):
        known_of(weights, decathlon)
    shutil.copy(decathlon / "imagesTr" / "ball_001.nii.gz", scan)
    assert known_of(weights, decathlon) == ("its run lists no file of a test case", [])


@pytest.mark.parametrize("place", ["imagesTr/ball_005.nii.gz", "imagesTr/ball_005 [20 slices from 1.dcm]"])
def test_a_scan_that_is_gone_and_is_called_as_a_test_case_is_a_warning(decathlon, learnt_from, place):
    told, [warning] = known_of(learnt_from(f"somewhere/{place}"), decathlon)
    assert told == "its run lists scans called as those of 1 of the 1 test patient, such as 'ball_005'"
    assert warning.startswith("warning: ")
    assert warning.endswith(f"{told}: if they are the same, its figures are too good")


def test_another_scan_of_a_test_patient_is_told_by_the_pattern_of_the_patients(decathlon, learnt_from, tmp_path):
    data = shutil.copytree(decathlon, tmp_path / "data")
    other = shutil.copy(data / "imagesTr" / "ball_001.nii.gz", data / "imagesTr" / "ball_005_b.nii.gz")
    weights, pattern = learnt_from(other), r"(ball_\d+)"
    with pytest.raises(DataError, match="has seen 1 of the 1 test patient"):
        known_of(weights, data, pattern)
    assert known_of(weights, data) == ("its run lists no file of a test case", [])
    assert len(known_of(weights, decathlon, pattern)[1]) == 1  # a patient of that name, elsewhere
    assert known_of(weights, decathlon, r"(\d+)$")[0] == "its run lists no scan of a test patient"


def test_what_is_known_of_the_scans_that_weights_have_seen_is_returned(decathlon, genesis):
    data, bundle = read_labelled(decathlon), load_bundle(genesis)
    known = {"data": data, "split": SPLIT, "pattern": None, "reporter": Reporter()}
    assert "is not recorded" in refuse_seen("org/model", bundle, **known)
    facts = bundle.config.provenance.override(data={"left_out_test_scans": 39})
    left_out = dataclasses.replace(bundle, config=bundle.config.override(provenance=facts))
    assert "left out 39 scans" in refuse_seen("org/model", left_out, **known)
