from pathlib import Path

import pytest

from modelsgenesis.cli.prediction import print_results

BASIS = {"patients": 39, "cases": 39, "seed": 0, "labels_used": None, "split_seed": 0}


def entry(value, low=None, high=None, **more):
    return {"value": value, "low": low, "high": high, **more}


@pytest.fixture
def shown(capsys):
    """Print results; return the lines with single blanks."""

    def run(test, **results):
        print_results(Path("runs/x"), {"test": test, **BASIS, **results})
        return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]

    return run


def test_a_segmentation_is_a_row_a_structure_with_intervals(shown):
    test = {
        "dice": entry(0.8781, 0.8712, 0.8846),
        "dice node [/]": entry(0.88, 0.87, 0.89),
        "dice Posterior": entry(0.87, 0.86, 0.88, undefined=2),
        "hausdorff95": entry(1.234, 1.1, 1.4),
        "hausdorff95 node [/]": entry(1.2, 1.1, 1.3),
        "hausdorff95 Posterior": entry(None, reason="no case has it"),
    }
    lines = shown(test, task="segmentation", labels=["background", "node [/]", "Posterior"])
    assert lines[:5] == [
        "Dice HD95 (mm)",
        "mean 0.878 (0.871–0.885) 1.23 (1.10–1.40)",
        "node [/] 0.880 (0.870–0.890) 1.20 (1.10–1.30)",
        "Posterior 0.870 (0.860–0.880) —",
        "39 test patients; 95% bootstrap intervals over patients",
    ]
    assert sum("Posterior" in line for line in lines[5:]) == 2  # what is undefined or left out is said
    assert "full results: runs/x/results.json" in lines


def test_two_classes_are_one_row_by_the_second(shown):
    test = {"auc": entry(0.9, 0.8, 0.95), "sensitivity": entry(0.7, 0.5, 0.9), "accuracy": entry(0.8, 0.7, 0.9)}
    lines = shown(test, task="classification", labels=["normal", "ill"], specificity=0.9, cases=50)
    assert lines[0] == "AUC sensitivity at specificity 0.9 accuracy"
    assert lines[1].startswith("ill 0.900")
    assert "39 test patients, 50 images; 95% bootstrap intervals over patients" in lines


def test_several_classes_have_a_row_each(shown):
    test = {"auc": entry(0.9), "auc a": entry(0.8), "auc b": entry(0.9), "auc c": entry(1.0), "accuracy": entry(0.5)}
    lines = shown(test, task="classification", labels=["a", "b", "c"], specificity=0.9, folds=5, fold=None)
    assert lines[1:5] == ["mean 0.900 0.500", "a 0.800", "b 0.900", "c 1.000"]
    assert lines[5].startswith("39 test patients in 5 folds")
    assert lines[-1] == "the models: runs/x/fold0, fold1 …"


@pytest.mark.parametrize(
    ("test", "patients", "line"),
    [
        ({}, 39, "no test patients: nothing was measured"),
        ({"auc": entry(1.0)}, 1, "1 test patient; no confidence interval"),
    ],
)
def test_little_to_measure_is_said(shown, test, patients, line):
    assert line in shown(test, task="classification", labels=["b", "a"], patients=patients, cases=patients)
