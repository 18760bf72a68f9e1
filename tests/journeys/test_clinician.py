"""A clinician who researches: label maps of some program, label maps of people, and a table for the paper."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest


@pytest.fixture(scope="module")
def folders(user):
    """Two structures of four patients, drawn by people; a program missed one of them in one patient."""
    x, y, z = np.indices((24, 24, 10))
    affine = np.diag([0.8, 0.8, 3.0, 1])
    for number in range(1, 5):
        for folder, shift in (("people", 0), ("program", number % 3)):
            values = np.zeros((24, 24, 10), np.uint8)
            values[(x - 8 - shift) ** 2 + (y - 8) ** 2 + (z - 5) ** 2 < 16] = 1
            if (folder, number) != ("program", 3):
                values[(x - 17) ** 2 + (y - 16) ** 2 + (z - 4) ** 2 < 9 + shift] = 2
            (user.home / folder).mkdir(exist_ok=True)
            name = f"p{number}.nii.gz" if folder == "people" else f"p{number}_seg.nii.gz"
            nib.save(nib.Nifti1Image(values, affine), user.home / folder / name)


def test_two_folders_become_a_table_that_opens(user, folders):
    said = user.types("modelsgenesis evaluate program people -o evaluated")
    assert "HD95 (mm)" in said.stdout
    assert "4 patients; 95% bootstrap intervals over patients" in said.stdout
    assert (
        "HD95 of 2: mean over 3 of 4 cases (in the others the ground truth or the prediction is empty)" in said.stdout
    )
    assert "full results: evaluated/results.json" in said.stdout
    folder = user.home / "evaluated"
    rows = {row["structure"]: row for row in csv.DictReader((folder / "results.csv").read_text("utf-8").splitlines())}
    assert list(rows) == ["mean", "1", "2"]
    assert 0.5 < float(rows["1"]["dice_low"]) < float(rows["1"]["dice"]) < float(rows["1"]["dice_high"]) <= 1
    assert float(rows["1"]["hausdorff95_mm"]) < 3
    latex = (folder / "results.tex").read_text("utf-8")
    body = latex.split("\\midrule\n")[1].split("\n\\bottomrule")[0].splitlines()
    assert [line.partition(" & ")[0] for line in body] == ["mean", "1", "2"]
    assert {line.count(" & ") for line in body} == {3}
    assert (folder / "results.md").read_text("utf-8").startswith("| structure | Dice")
    cases = list(csv.DictReader((folder / "cases.csv").read_text("utf-8").splitlines()))
    assert [(case["case"], case["distance_unit"]) for case in cases] == [(f"p{n}", "mm") for n in range(1, 5)]


def test_what_is_missing_is_named(user, folders):
    user.types("rm program/p4_seg.nii.gz && cp people/p1.nii.gz program/extra.nii.gz")
    said = user.types("modelsgenesis evaluate program people -o again --json", expect=1)
    assert said.stderr.count("p4: no prediction of p4 in program") == 1
    assert "predictions ignored, as no label map in people has the name: extra" in said.stderr
    assert json.loads(said.stdout)["cases"] == 3
    swapped = user.types("modelsgenesis evaluate people people -o third", expect=1)
    assert swapped.stderr.strip().endswith("people: predictions and labels are the same folder; give both")
    assert not (user.home / "third").exists()
