"""`scan` and `preview` on the command line."""

import numpy as np
from PIL import Image


def test_scan_prints_what_is_there_and_what_is_refused(command, ct_folder, tmp_path):
    (tmp_path / "bad[1].nii").write_bytes(b"no scan")
    for path in ct_folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    shown = command("scan", tmp_path)
    assert shown.status == 0
    assert "patient0.nii.gz  NIfTI   28×24×20  2×2×2.5" in shown.out
    assert "bad[1].nii  starts with no NIfTI header" in shown.out
    assert shown.out.splitlines()[-1] == (
        "4 scans of 4 patients, 1 unusable, 0 left aside; "
        "modality: ct (air or fat and soft tissue in HU in 4 scans looked at)"
    )
    assert "reading scans: 4/4" in shown.err
    assert command("scan", tmp_path, "-q").err == ""


def test_scan_as_json_with_patients_by_a_pattern(command, ct_folder):
    found = command("scan", ct_folder, "--json", "--patient", r"(patient)\d").json()
    assert [scan["patient"] for scan in found["scans"]] == ["patient"] * 4
    assert (found["contract"]["modality"], found["scans"][0]["shape"], found["refused"]) == ("ct", [28, 24, 20], [])


def test_preview_writes_a_picture_and_names_its_rows(command, ct_folder, tmp_path):
    shown = command("preview", ct_folder, "-o", tmp_path / "sheet.png", "-n", 2, "--spacing", "3,3,3")
    assert shown.status == 0
    assert shown.out.splitlines() == [
        str(tmp_path / "sheet.png"),
        f"  scan 1: {ct_folder / 'patient0.nii.gz'}",
        f"  scan 2: {ct_folder / 'patient3.nii.gz'}",
    ]
    assert np.asarray(Image.open(tmp_path / "sheet.png").convert("L")).std() > 50


def test_mistakes_are_one_line(command, tmp_path):
    empty = command("scan", tmp_path)
    assert (empty.status, empty.err.count("\n")) == (1, 1)
    assert "no usable scan" in empty.err
    assert "nowhere: " in command("scan", tmp_path / "nowhere").err
