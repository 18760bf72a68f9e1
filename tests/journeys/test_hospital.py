"""A hospital with exports of DICOM, and a machine in it that has no network."""

import json

import nibabel
import numpy as np
import pytest

from conftest import make_ct
from dicom_files import write_series
from tiny_bundles import LABELS, write_bundle

STICK = {"HF_HOME": "stick"}
NO_NETWORK = {**STICK, "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def export(user):
    """Three patients as a scanner exports them: a folder of slices each, and a report that is no scan."""
    folder = user.home / "export"
    for patient in range(3):
        volume = (make_ct(patient).T.clip(-1024) + 1024).astype(np.uint16)  # z, y, x
        series = {"patient": f"P{patient}", "series": f"1.2.3.{patient}"}
        write_series(folder / f"P{patient}" / "CT", volume, **series)
    (folder / "report.txt").write_text("not a scan")
    return folder


def test_a_model_is_carried_to_a_machine_without_a_network(user, hub, tmp_path):
    bundle = write_bundle(tmp_path / "organs")
    hub.add("clinic/organs", {path.name: path.read_bytes() for path in bundle.iterdir()})
    user.types("modelsgenesis download clinic/organs", **STICK)
    assert hub.count("GET /large/") == 1


def test_dicom_is_pretrained_on_and_predicted_without_a_network(user, export):
    scans = json.loads(user.types("modelsgenesis scan export --json", **NO_NETWORK).stdout)["scans"]
    assert [(scan["patient"], scan["modality"]) for scan in scans] == [(f"P{number}", "ct") for number in range(3)]
    small = "--steps 4 --set network.widths=8,16 --set patch_size=16,16,12 --set batch_size=2 --set workers=0"
    user.types(f"modelsgenesis pretrain export -o runs/ct {small}", **NO_NETWORK)
    assert json.loads((user.home / "runs/ct/config.json").read_text())["input"]["modality"] == "ct"
    user.types("modelsgenesis predict clinic/organs export/P1 -o label.nii.gz", **NO_NETWORK)
    label = nibabel.load(user.home / "label.nii.gz")
    assert sorted(label.shape) == sorted(make_ct(1).shape)
    assert nibabel.affines.voxel_sizes(label.affine) == pytest.approx((0.75, 0.5, 2.0))
    assert set(np.unique(label.dataobj)) <= set(range(len(LABELS)))
    away = user.types("modelsgenesis predict genesis-chest-ct-3d export/P1 -o x.nii.gz", expect=1, **NO_NETWORK)
    assert "offline mode (HF_HUB_OFFLINE)" in away.stderr
    typo = user.types("modelsgenesis predict runs/tc export/P1 -o x.nii.gz", expect=1)
    assert "did you mean runs/ct?" in typo.stderr
