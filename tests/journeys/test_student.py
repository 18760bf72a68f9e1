"""A student with 20 scans in `images/` and their label maps in `labels/`, and nothing else."""

import csv
import json
import re

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes

SHAPE, AFFINE = (24, 22, 20), np.diag([2.0, 2.0, 3.0, 1.0])
TINY = "--set network.widths=4,8 --set patch_size=16,16,16 --set workers=0"


def scan(number):
    """A scan of MR with a bright organ, whose label map holds 1 for it and 2 for its core."""
    centre, random = 10 + number % 4, np.random.default_rng(number)
    distance = np.linalg.norm(np.indices(SHAPE).T - centre, axis=-1).T
    label = (distance < 7).astype(np.uint8) + (distance < 4)
    return ((label * 400.0 + 300) * random.normal(1 + number, 0.02, SHAPE)).clip(1).astype(np.float32), label


def test_folders_of_images_and_labels_are_all_that_it_takes(user):
    for kind in ("images", "labels"):
        (user.home / "data" / kind).mkdir(parents=True)
        for number in range(20):
            path = user.home / "data" / kind / f"patient_{number:02d}.nii.gz"
            nib.save(nib.Nifti1Image(scan(number)[kind == "labels"], AFFINE), path)
    (user.home / "data" / "labels" / "patient_19.nii.gz").rename(user.home / "data" / "labels" / "someone.nii.gz")

    looked = user.types("modelsgenesis scan data")
    assert "20 scans of 20 patients" in looked.stdout
    assert "0 unusable, 1 left aside" in looked.stdout
    assert re.search("labels +holds labels, by its name", looked.stdout)

    trained = user.types(f"modelsgenesis finetune data -o runs/organ --modality mri --steps 60 {TINY}")
    assert "19 pairs of image and label map" in trained.stderr
    assert "patient_19.nii.gz: no label map has the name of this image" in trained.stderr
    assert "someone.nii.gz: no image has the name of this label map" in trained.stderr
    results = json.loads((user.home / "runs/organ/results.json").read_text())
    assert results["split"]["test"] == {"patients": 4, "cases": 4}
    with (user.home / "runs/organ/test.csv").open(newline="") as file:
        assert {row["case"][:8] for row in csv.DictReader(file)} == {"patient_"}

    predicted = user.types("modelsgenesis predict runs/organ data -o found")
    assert "labels: holds labels, by its name" in predicted.stderr
    found = nib.load(user.home / "found" / "images" / "patient_19.nii.gz")
    assert (found.shape, tuple(voxel_sizes(found.affine))) == (SHAPE, (2, 2, 3))
    assert set(np.unique(np.asanyarray(found.dataobj))) <= {0, 1, 2}


def test_names_that_do_not_pair_are_shown(user):
    for number in range(3):
        label = user.home / "data" / "labels" / f"patient_{number:02d}.nii.gz"
        (user.home / "other" / "labels").mkdir(parents=True, exist_ok=True)
        (user.home / "other" / "images").mkdir(exist_ok=True)
        label.rename(user.home / "other" / "labels" / f"{number}_organ.nii.gz")
        (user.home / "data" / "images" / label.name).rename(user.home / "other" / "images" / label.name)
    refused = user.types("modelsgenesis finetune other -o runs/other --modality mri", expect=1)
    message = refused.stderr.strip().splitlines()[-1]
    assert "patient_00.nii.gz" in message
    assert "labels/0_organ.nii.gz; name them alike, such as images/p1.nii.gz and labels/p1.nii.gz" in message
    assert not (user.home / "runs/other").exists()
