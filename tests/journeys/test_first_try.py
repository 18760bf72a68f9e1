"""Somebody who has just installed the package: the embedded sample, no data and no options of their own."""

import json

import nibabel as nib
import numpy as np


def test_the_line_of_the_readme_trains_from_the_best_embedded_genesis_and_says_so(user):
    output = user.types("modelsgenesis finetune --task seg --steps 6")
    assert "genesis-hippocampus-mri-3d-small" in output.stderr
    assert "runs/finetune" in output.stdout
    results = json.loads((user.home / "runs/finetune/results.json").read_text())
    assert results["test"]


def test_the_model_segments_a_scan_that_came_with_the_package(user):
    sample = user.types("python -c 'import modelsgenesis; print(*modelsgenesis.__path__)'").stdout.strip()
    user.types(f"cp {sample}/sample/images/c04_ts_abdomen_slab.nii.gz scan.nii.gz")
    output = user.types("modelsgenesis predict runs/finetune scan.nii.gz")
    scan, labels = nib.load(user.home / "scan.nii.gz"), nib.load(user.home / "scan_seg.nii.gz")
    assert "scan_seg.nii.gz" in output.stdout
    assert labels.shape == scan.shape
    assert np.allclose(labels.affine, scan.affine)
