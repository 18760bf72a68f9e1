from pathlib import Path

from modelsgenesis.cli.results import print_results


def entry(value, low=None, high=None, **more):
    return {"value": value, "low": low, "high": high, **more}


BASIS = {"patients": 39, "cases": 39, "seed": 0, "labels_used": None, "split_seed": 0}


def test_a_segmentation_is_a_row_a_structure_with_intervals(capsys):
    test = {
        "dice": entry(0.8781, 0.8712, 0.8846),
        "dice Anterior": entry(0.88, 0.87, 0.89),
        "dice Posterior": entry(0.87, 0.86, 0.88, undefined=2),
        "hausdorff95": entry(1.234, 1.1, 1.4),
        "hausdorff95 Anterior": entry(1.2, 1.1, 1.3),
        "hausdorff95 Posterior": entry(None, reason="no case has it"),
    }
    results = {"task": "segmentation", "labels": ["background", "Anterior", "Posterior"], "test": test, **BASIS}
    print_results(Path("runs/x"), results)
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "Dice 95% Hausdorff, mm" in lines
    assert "mean 0.878 (0.871–0.885) 1.23 (1.10–1.40)" in lines
    assert "Posterior 0.870 (0.860–0.880) —" in lines
    assert "39 test patients; 95% intervals by bootstrap over patients" in lines
    assert "hausdorff95 Posterior is undefined: no case has it" in lines
    assert "dice Posterior: the mean leaves out 2 cases in which the truth lacks the structure" in lines
    assert "runs/x/split.json: which cases were for what; --split uses it again" in lines


def test_two_classes_are_one_row_by_the_second(capsys):
    test = {"auc": entry(0.9, 0.8, 0.95), "sensitivity": entry(0.7, 0.5, 0.9), "accuracy": entry(0.8, 0.7, 0.9)}
    labels = {"task": "classification", "labels": ["normal", "ill"], "specificity": 0.9}
    print_results(Path("run"), {**labels, "test": test, **BASIS, "cases": 50})
    out = capsys.readouterr().out
    assert "ill" in out
    assert "normal" not in out
    assert "39 test patients, 50 images; 95% intervals by bootstrap over patients" in out
    assert "; sensitivity at a specificity of 0.9" in out


def test_several_classes_have_a_row_each(capsys):
    test = {"auc": entry(0.9), "auc a": entry(0.8), "auc b": entry(0.9), "auc c": entry(1.0), "accuracy": entry(0.5)}
    labels = {"task": "classification", "labels": ["a", "b", "c"], "specificity": 0.9}
    print_results(Path("run"), {**labels, "test": test, **BASIS, "folds": 5, "fold": None})
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {"mean 0.900 0.500", "a 0.800", "b 0.900", "c 1.000"} <= set(lines)
    assert "run/fold0: and so on: the models" in lines
    assert "39 test patients of 5 folds" in " ".join(lines)


def test_without_test_patients_that_is_all_there_is_to_say(capsys):
    print_results(Path("run"), {"task": "segmentation", "labels": ["b", "a"], "test": {}, **BASIS})
    assert capsys.readouterr().out.startswith("no test patients: nothing was measured")
