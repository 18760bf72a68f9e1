import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from modelsgenesis.configs import ClassificationConfig, SegmentationConfig
from modelsgenesis.data.cases import LabelledCase, LabelledData, unread
from modelsgenesis.data.labelled import read_labelled
from modelsgenesis.errors import ConfigurationError, DataError
from modelsgenesis.training import splits
from modelsgenesis.training.splits import Split, check_split, choose_labelled, count_split, split_cases

IMAGE = (unread(Path("x.png")),)


def segmentation(count=20):
    cases = [LabelledCase(name=f"c{i:02d}", patient=f"c{i:02d}", images=IMAGE) for i in range(count)]
    return LabelledData(name="seg", task="segmentation", cases=tuple(cases[::-1]), labels=("background", "a"))


def classification(patients=40, images=3, rare=10, parts=(None,), more=()):
    """Every `rare`-th patient has the second class in the last image."""
    cases = []
    for patient, image in itertools.product(range(patients), range(images)):
        name, part = f"p{patient:02d}", parts[patient % len(parts)]
        held = (int(patient % rare == 0 and image == images - 1),)
        cases.append(LabelledCase(name=f"{name}_{image}", patient=name, images=IMAGE, classes=held, part=part))
    return LabelledData(name="cls", task="classification", cases=(*cases, *more), labels=("no", "yes"))


def patients(names):
    return {name.split("_")[0] for name in names}


@pytest.mark.parametrize("seed", [0, 3])
def test_with_one_case_a_patient_the_split_is_the_published_one_and_folds_test_each_once(seed):
    data = segmentation()
    split = split_cases(data, SegmentationConfig(split_seed=seed, seed=seed + 1))
    order = np.random.default_rng(seed).permutation(sorted(case.name for case in data.cases)).tolist()
    assert split == Split(tuple(sorted(order[6:])), tuple(sorted(order[4:6])), tuple(sorted(order[:4])))
    folds = [split_cases(data, SegmentationConfig(folds=5, fold=fold, split_seed=seed)) for fold in range(5)]
    assert sorted(name for split in folds for name in split.test) == sorted(order)
    assert {(len(split.training), len(split.validation)) for split in folds} == {(14, 2)}


def test_all_images_of_a_patient_stay_together():
    data = classification()
    split = split_cases(data, ClassificationConfig())
    parts = [patients(part) for part in (split.training, split.validation, split.test)]
    assert [len(part) for part in parts] == [29, 3, 8]
    assert len(set.union(*parts)) == 40
    counts = count_split(split, data)
    assert (counts["test"]["patients"], counts["test"]["cases"]) == (8, 24)
    assert sum(part["classes"]["yes"] for part in counts.values()) == 4


@pytest.mark.parametrize("seed", range(5))
def test_every_part_and_every_fold_has_the_classes_in_proportion(seed):
    data = classification(patients=50, images=2, rare=5)  # a fifth of the patients
    split = split_cases(data, ClassificationConfig(split_seed=seed))
    counts = {name: part["classes"]["yes"] for name, part in count_split(split, data).items()}
    assert counts == {"training": 7, "validation": 1, "test": 2}
    folds = [split_cases(data, ClassificationConfig(folds=4, fold=fold, split_seed=seed)) for fold in range(4)]
    held = [count_split(fold, data)["test"] for fold in folds]
    assert [(one["patients"], one["classes"]["yes"]) for one in held] == [(13, 3), (13, 3), (12, 2), (12, 2)]
    assert sorted(name for fold in folds for name in fold.test) == sorted(case.name for case in data.cases)
    assert split == split_cases(data, ClassificationConfig(split_seed=seed))
    for rare, parts in ((17, "yyy"), (25, "y-y"), (49, "y-y"), (50, "y--")):  # 3, 2, 2 and 1 patients of 50
        few = classification(50, rare=rare)
        found = count_split(split_cases(few, ClassificationConfig(split_seed=seed)), few)
        assert "".join("-y"[part["classes"]["yes"] > 0] for part in found.values()) == parts


def test_the_parts_of_the_users_file_win():
    split = split_cases(classification(parts=["training", "training", "test"]), ClassificationConfig(split_seed=5))
    assert {int(name[1:]) % 3 for name in patients(split.test)} == {2}
    assert len(patients(split.validation)) == 3  # of the training patients, for the file names none
    both = classification(parts=["training", "validation"])
    assert len(patients(split_cases(both, ClassificationConfig()).validation)) == 20
    single = split_cases(classification(2, parts=["training", "test"]), ClassificationConfig())
    assert (patients(single.training), single.validation, patients(single.test)) == ({"p00"}, (), {"p01"})


OTHER = LabelledCase(name="x", patient="p00", images=IMAGE, classes=(0,), part="test")


@pytest.mark.parametrize(
    ("data", "config", "error", "message"),
    [
        (classification(more=(OTHER,)), {}, DataError, "patient 'p00' is in no part and in test"),
        (classification(parts=["training", None]), {}, DataError, "20 of 40 patients have no part, such as 'p01'"),
        (segmentation(3), {"test_fraction": 1.0}, DataError, "no patient is left for training after 3 for the test"),
        (segmentation(), {"folds": 21, "fold": 0}, ConfigurationError, "received 21, expected at most the 20 patients"),
        (
            classification(parts=["training", "test"]),
            {"folds": 5, "fold": 1},
            ConfigurationError,
            "folds cannot be made",
        ),
    ],
)
def test_refuses_what_cannot_be_split(data, config, error, message):
    with pytest.raises(error, match=message):
        split_cases(data, SegmentationConfig(**config))


def test_few_labels_are_among_more_and_leave_the_other_parts():
    data = segmentation()
    whole = split_cases(data, SegmentationConfig())
    few = {count: choose_labelled(whole, data, count, seed=0) for count in ("1%", "2", "5", "50%", "10")}
    sets = [set(split.training) for split in (*few.values(), whole)]
    assert [len(names) for names in sets] == [1, 2, 5, 7, 10, 14]
    assert all(small < large for small, large in itertools.pairwise(sets))
    assert {(split.validation, split.test) for split in few.values()} == {(whole.validation, whole.test)}
    assert choose_labelled(whole, data, "10", seed=1) != few["10"]
    assert split_cases(data, SegmentationConfig(labelled_patients="5")) == few["5"]


def test_few_labels_of_a_classification_hold_every_class_and_its_share():
    data = classification()
    whole = split_cases(data, ClassificationConfig())
    for seed in range(5):
        two, ten = (choose_labelled(whole, data, count, seed) for count in ("2", "10"))
        assert count_split(two, data)["training"] == {"patients": 2, "cases": 6, "classes": {"no": 5, "yes": 1}}
        assert patients(two.training) < patients(ten.training)
        assert 1 <= count_split(ten, data)["training"]["classes"]["yes"] <= 2


@pytest.mark.parametrize("labels", ["0", "15", "ten", "0%", "200%", "-1"])
def test_refuses_labels_that_cannot_be(labels):
    data = segmentation()
    with pytest.raises(ConfigurationError, match=f"labelled_patients: received '{labels}', expected"):
        choose_labelled(split_cases(data, SegmentationConfig()), data, labels, seed=0)


def test_refuses_a_split_that_does_not_fit_the_data():
    data = classification(patients=4, rare=4)
    for split, message in (
        (Split(("zzz",), (), ()), "names 'zzz', which is not in cls"),
        (Split(("p00_0",), (), ("p00_1",)), "has 'p00' in two parts, training and test"),
    ):
        with pytest.raises(DataError, match=message):
            check_split(split, data)


def test_a_split_comes_back_from_its_file(tmp_path):
    splits.write_split(split := Split(("a", "b"), (), ("c",)), tmp_path / "split.json")
    assert splits.read_split(tmp_path / "split.json") == split


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *(("{", "as JSON"), ("[" * 100_000, "as JSON"), ("[]", "expected lists"), ("{}", "expected lists")),
        (json.dumps({"training": ["a", "a"], "validation": [], "test": []}), "each once"),
        (json.dumps({"training": [], "validation": [], "test": "a"}), "expected lists"),
        (json.dumps({"training": [[]], "validation": [], "test": []}), "expected lists"),
    ],
)
def test_says_what_is_wrong_with_the_file_of_a_split(tmp_path, content, message):
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(DataError, match=message):
        splits.read_split(tmp_path / "split.json")


@pytest.mark.shared
@pytest.mark.parametrize(("source", "recorded"), [("Task04_Hippocampus", "hippocampus"), ("chestxray8", "chestxray8")])
def test_the_splits_of_the_measured_comparisons_fit_their_data(shared_data, source, recorded):
    data = read_labelled(shared_data / source)
    split = splits.read_split(Path(__file__).parents[2] / "benchmarks" / "splits" / f"{recorded}.json")
    check_split(split, data)
    assert sum(part["cases"] for part in count_split(split, data).values()) == len(data.cases)
