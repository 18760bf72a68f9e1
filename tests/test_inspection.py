"""Looking before training."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from modelsgenesis.errors import ConfigurationError, DataError, ScanError
from modelsgenesis.inspection import inspect_scans, preview


def test_what_pretraining_would_use_and_skip(ct_folder: Path, tmp_path: Path) -> None:
    """Two good CT, an empty one, one without HU, a damaged file, labels."""
    folder = tmp_path / "mixed"
    (folder / "labels").mkdir(parents=True)
    for name in ("patient0.nii.gz", "patient1.nii.gz"):
        (folder / name).symlink_to(ct_folder / name)
    air = np.random.default_rng(0).normal(-1000, 10, (8, 8, 8)).astype(np.int16)
    nib.save(nib.Nifti1Image(air, np.eye(4)), folder / "air.nii.gz")
    nib.save(nib.Nifti1Image((air + 1100).astype(np.uint8), np.eye(4)), folder / "grey.nii.gz")
    (folder / "torn.nii.gz").write_bytes((ct_folder / "patient2.nii.gz").read_bytes()[:5000])
    found = inspect_scans(folder, modality="ct")
    assert [Path(scan["source"]).name for scan in found.scans] == ["patient0.nii.gz", "patient1.nii.gz"]
    assert found.scans[0]["range"][0] < -1000 < 700 < found.scans[0]["range"][1]
    reasons = {Path(one.source).name.partition(".")[0]: one.reason for one in found.skipped}
    expected = {
        "air": "all air",
        "grey": "not in HU",
        "torn": "Compressed file ended",
        "labels": "holds labels",
    }
    assert {name for name, words in expected.items() if words in reasons[name]} == set(reasons) == set(expected)
    assert found.why == "modality: ct (from --modality)"
    with pytest.raises(ScanError, match=r"air\.nii\.gz: all air"):
        preview(folder / "air.nii.gz", folder / "x.png", modality="ct")


def test_a_modality_that_cannot_be_told_is_said_and_the_scans_shown(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no usable scan; expected NIfTI"):
        inspect_scans(tmp_path)
    Image.fromarray(np.arange(100, dtype=np.uint8).reshape(10, 10)).save(tmp_path / "x.png")
    found = inspect_scans(tmp_path)
    assert (found.contract, found.scans[0]["range"]) == (None, (0, 99))
    assert "cannot be told; say which with --modality" in found.why


def test_preview_of_an_image(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 90)).astype(np.uint8)).save(tmp_path / "x.png")
    path, _ = preview(tmp_path / "x.png", tmp_path / "new" / "one.png", modality="xray", patch_size=(32, 32))
    height, width = np.asarray(Image.open(path).convert("L")).shape
    assert width > height


@pytest.mark.parametrize(("name", "message"), [("x.png", "is one of the scans"), ("sheet", "such as preview.png")])
def test_a_preview_is_a_picture_and_never_one_of_the_scans(tmp_path: Path, name: str, message: str) -> None:
    Image.fromarray(np.eye(40, dtype=np.uint8) * 255).save(tmp_path / "x.png")
    before = (tmp_path / "x.png").read_bytes()
    with pytest.raises(ConfigurationError, match=message):
        preview(tmp_path / "x.png", tmp_path / name, modality="xray")
    assert (tmp_path / "x.png").read_bytes() == before
