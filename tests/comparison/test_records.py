import csv

import pytest

from comparison_results import make_records
from modelsgenesis.comparison.records import Records, write_table
from modelsgenesis.comparison.trials import Trial
from modelsgenesis.errors import ResumeError, TrainingError

ARM = {"init": None, "settings": []}
ASKED = {"fixed": {"training": {"steps": 8}}, "arms": {"scratch": ARM}}
TRIAL = Trial(arm="scratch", labels=5, seed=0, cases=("a", "b"))


@pytest.fixture
def records(tmp_path):
    records = Records(tmp_path / "compared")
    records.describe(ASKED)
    yield records
    records.close()


def again(records, asked):
    records.close()
    other = Records(records.folder)
    try:
        other.describe(asked)
    finally:
        other.close()


def test_a_finished_trial_is_read_again(records):
    assert records.read(TRIAL) is None
    records.write(TRIAL, {"training": ["a", "b"], "settings": [], "test": {"dice": 0.5}})
    assert records.read(TRIAL)["test"] == {"dice": 0.5}


def test_candidates_do_not_overwrite_each_other_or_the_runs(records):
    trials = [Trial(arm="scratch", labels=5, seed=0, cases=(), settings=(s,), tuning=True) for s in ("a=1", "a=2")]
    assert len({records.path(trial) for trial in (*trials, TRIAL)}) == 3


def test_another_configuration_is_refused_with_its_differences(records):
    with pytest.raises(
        ResumeError, match=r"another configuration: training\.steps was 8, now 9; .*choose another folder"
    ):
        again(records, {**ASKED, "fixed": {"training": {"steps": 9}}})
    with pytest.raises(ResumeError, match=r"scratch: init was None, now x"):
        again(records, {**ASKED, "arms": {"scratch": {**ARM, "init": "x"}}})


def test_a_field_that_came_with_a_new_version_had_its_default_before(records):
    newer = {**ASKED, "fixed": {"training": {"steps": 8, "rescale": False}}}
    records.describe(newer, {"steps": 1, "rescale": False})
    with pytest.raises(ResumeError, match=r"training\.rescale was False, now True"):
        records.describe({**ASKED, "fixed": {"training": {"steps": 8, "rescale": True}}}, {"rescale": False})


def test_more_arms_may_come_and_stay_known(records):
    again(records, {**ASKED, "arms": {"genesis": {**ARM, "init": "x"}}})
    with pytest.raises(ResumeError, match="genesis: init was x, now y"):
        again(records, {**ASKED, "arms": {"genesis": {**ARM, "init": "y"}}})


def test_a_trial_of_other_cases_is_not_taken_for_this_one(records):
    records.write(TRIAL, {"training": ["a", "c"], "settings": []})
    with pytest.raises(ResumeError, match=r"seed-0\.json: was made otherwise: training was"):
        records.read(TRIAL)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", "[" * 100_000, "\0" * 40, "\udcff", "flipped", "cut"])
def test_a_damaged_record_is_named(records, content):
    records.write(TRIAL, {"training": ["a", "b"], "settings": [], "test": {"dice": 0.53}})
    path = records.path(TRIAL)
    text = path.read_text()
    content = {"flipped": text.replace("0.53", "0.93"), "cut": '{"training": ["a", "b"], "settings": []}'}.get(
        content, content
    )
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ResumeError, match=r"seed-0\.json: "):
        records.read(TRIAL)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"fixed": [], "arms": {}}', "[" * 100_000, "\udcff"])
def test_a_damaged_description_is_named(records, content):
    path = records.folder / "comparison.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ResumeError, match=r"comparison\.json: "):
        again(records, ASKED)


def test_cases_that_changed_since_the_comparison_began_are_named(records):
    records.check_cases({"a": "01", "b": "02"})
    again(records, ASKED)
    records.check_cases({"b": "02", "c": "03"})
    with pytest.raises(ResumeError, match=r"1 cases or their labels have changed .* such as a; restore them"):
        records.check_cases({"a": "ff", "c": "03"})


def test_one_process_at_a_time(records):
    with pytest.raises(TrainingError, match="another process compares in this folder"):
        Records(records.folder)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(TrainingError, match="holds something else"):
        Records(tmp_path)
    with pytest.raises(TrainingError, match="is a file"):
        Records(tmp_path / "thesis.tex")


def test_the_work_folder_goes_and_takes_along_what_a_crash_left(records):
    (records.folder / ".work-old").mkdir()
    with records.work_folder() as work:
        assert work.is_dir()
        assert not (records.folder / ".work-old").exists()
    assert not work.exists()


def test_the_table_of_runs_has_a_row_a_run(tmp_path):
    write_table(tmp_path / "runs.csv", make_records({"scratch": 0.0, "genesis": 0.1}, runs=2))
    rows = list(csv.DictReader((tmp_path / "runs.csv").read_text().splitlines()))
    assert len(rows) == 12
    assert list(rows[0])[:3] == ["arm", "labels", "seed"]
    assert float(rows[0]["dice"]) == float(rows[0]["validation dice"])
