"""Somebody with few labels who asks whether pretraining helps: initialisations compared, tiny."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

TINY = "--set network.widths=8,16 --set patch_size=16,16,12 --set samples_per_scan=2 --set batch_size=2 --steps 2"


@pytest.fixture(scope="module")
def labelled(user):
    """Six patients with a bright ball."""
    random, lines = np.random.default_rng(0), ["image,mask,label"]
    inside = sum((axis - side / 2) ** 2 for axis, side in zip(np.indices((24, 24, 16)), (24, 24, 16), strict=True)) < 36
    (user.home / "data").mkdir()
    for number in range(6):
        scan = random.normal(100 + 80 * inside, 20).astype(np.float32)
        for name, values in (("scan", scan), ("mask", inside.astype(np.uint8))):
            nib.save(nib.Nifti1Image(values, np.eye(4)), user.home / "data" / f"p{number}_{name}.nii.gz")
        lines.append(f"p{number}_scan.nii.gz,p{number}_mask.nii.gz,ball")
    (user.home / "data" / "data.csv").write_text("\n".join(lines))


def test_pretraining_is_held_against_scratch(user, labelled):
    pretrain = f"modelsgenesis pretrain data --modality mri {TINY} --set validation_samples=2"
    line = f"modelsgenesis compare data --init scratch --init own=runs/own --labels 1,2 --runs 1 --modality mri {TINY}"
    user.types(f"{pretrain} -o runs/hasty")
    refused = user.types(f"{line.replace('runs/own', 'runs/hasty')} -o runs/compared", expect=1)
    assert "has seen 1 of the 1 test patient" in refused.stderr
    user.types(f"modelsgenesis finetune data --init scratch --modality mri {TINY} --set validate_every=2 -o runs/split")
    user.types(f"{pretrain} --set data.exclude_test_cases=runs/split/split.json -o runs/own")
    line += " --split runs/split/split.json"
    said = user.types(f"{line} -o runs/compared --set validate_every=2")
    assert "## Every metric" in said.stdout
    folder = user.home / "runs" / "compared"
    rows = list(csv.DictReader((folder / "results.csv").read_text("utf-8").splitlines()))
    assert [(row["labels"], row["initialisation"]) for row in rows] == [
        (labels, name) for labels in ("1", "2") for name in ("scratch", "own")
    ]
    assert all(0 <= float(row["dice"]) <= 1 and row["structure"] == "ball" for row in rows)
    assert "\\begin{tabular}" in (folder / "results.tex").read_text("utf-8")
    assert json.loads((folder / "results.json").read_text())["unit"] == "mm"
    with Image.open(folder / "comparison.png") as figure:
        figure.load()
    again = user.types(f"{line} -o runs/compared --set validate_every=2")  # finished runs are not repeated
    assert again.stdout == said.stdout
