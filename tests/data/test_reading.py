"""What is not a regular file is refused at once, whatever its name promises; and which contract scans call for."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from modelsgenesis.configs import CONTRACTS
from modelsgenesis.data import ScanReference, choose_contract, find_scans, read_volume, scan_sources
from modelsgenesis.errors import ConfigurationError, DataError, ScanError


@pytest.mark.parametrize("suffix", [".nii.gz", ".hdr", ".mgz", ".nrrd", ".mhd", ".png", ".tif"])
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "loop", "dangling"])
def test_what_is_not_a_regular_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(f"x{suffix}")
    if kind in ("fifo", "folder"):
        {"fifo": os.mkfifo, "folder": os.mkdir}[kind](path)
    else:
        path.symlink_to({"device": "/dev/zero", "loop": path, "dangling": "nothing"}[kind])
    with pytest.raises(ScanError, match=r"x\..*: (is not a regular|cannot be read|there is no such|holds no DICOM)"):
        read_volume(path)
    assert scan_sources(".")[0] == []


def test_names_of_no_scan_and_voxels_that_are_not_a_regular_file(tmp_path: Path) -> None:
    (tmp_path / "x.unknown").write_bytes(b"text")
    nib.save(nib.Nifti1Pair(np.zeros((3, 3, 3), np.int16), np.eye(4)), tmp_path / "x.hdr")
    (tmp_path / "x.img").unlink()
    os.mkfifo(tmp_path / "x.img")
    for name in ("x" * 300 + ".nii", "x\0.nii", "x.unknown", "nothing.nii.gz", "x.hdr"):
        with pytest.raises(ScanError, match=r"no such file|cannot be read|of no known format|voxels are missing"):
            read_volume(tmp_path / name)


def reference(name: str, modality: str | None, axes: int = 3) -> ScanReference:
    return ScanReference(path=Path(name), files=(), format="NIfTI", shape=(9,) * axes, spacing=None, modality=modality)


def ramp(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, 4096).reshape(16, 16, 16).astype(np.float32)


def test_what_is_asked_for_is_taken_then_tags_decide() -> None:
    ct, mri, plane, scan = (reference(*told) for told in (("a", "ct"), ("b", "mri"), ("c", "xray", 2), ("d", None)))
    assert (choose_contract([ct, ct])[0], choose_contract([plane])[0]) == (CONTRACTS["ct"], CONTRACTS["xray"])
    for scans, words in (([ct, mri, ct], "several modalities: 2 ct, 1 mri"), ([scan, plane], "1 volumes and 1 planes")):
        with pytest.raises(DataError, match=words):
            choose_contract(scans, modality="xray" if plane in scans else "auto")
    contract, why = choose_contract([scan], modality="mri", spacing=(1.0, 1.0, 1.0), window=(0.0, 500.0))
    assert (contract.intensity, contract.window, contract.spacing) == ("window", (0, 500), (1, 1, 1))
    assert (contract.orientation, why) == ("RAS", "modality: mri (from --modality)")
    assert choose_contract([scan], modality="ct", dims=2)[0].dims == 2
    with pytest.raises(ConfigurationError, match=r"modality: received 'mr'; did you mean mri"):
        choose_contract([scan], modality="mr")


@pytest.mark.shared
def test_real_scans_are_told_by_their_values(shared_data: Path) -> None:
    hippocampus = shared_data / "Task04_Hippocampus"
    for folder, modality, words in (
        (shared_data / "ct" / "images", "ct", "4 scans looked at"),
        (hippocampus / "imagesTr", "mri", "scale differs 10-fold"),
        (hippocampus, "mri", "from the files or their data set"),
    ):
        contract, why = choose_contract(find_scans(folder)[0])
        assert (contract, words in why) == (CONTRACTS[modality], True)
    with pytest.raises(DataError, match=r"modality of planes with values .* cannot be told; say which with --modality"):
        choose_contract(find_scans(shared_data / "chestxray8")[0])


@pytest.mark.parametrize(
    ("low", "high", "modality"),
    [
        *((-1024, 1500, "ct"), (-160, 300, "ct"), (-3024, 2000, "ct"), (0, 60_000, "mri")),
        # An 8-bit CT, a CT without its intercept, a z-scored scan, a mask.
        *((0, 255, None), (0, 4095, None), (-4, 4, None), (0, 1, None)),
    ],
)
def test_values_tell_or_leave_it_open(tmp_path: Path, low: float, high: float, modality: str | None) -> None:
    scan = reference(str(tmp_path / "x.nii"), None)
    nib.save(nib.Nifti1Image(ramp(low, high), np.eye(4)), scan.path)
    if modality:
        assert choose_contract([scan])[0].modality == modality
    else:
        with pytest.raises(DataError, match=rf"volumes with values {low:g} to {high:g} cannot be told"):
            choose_contract([scan])


def test_values_of_several_kinds_and_none_stop(tmp_path: Path) -> None:
    for name, low, high in [("a", -1024, 1500), ("b", 0, 60_000)]:
        nib.save(nib.Nifti1Image(ramp(low, high), np.eye(4)), tmp_path / f"{name}.nii")
    with pytest.raises(DataError, match=r"several modalities by their values: 1 ct, 1 mri"):
        choose_contract(find_scans(tmp_path)[0])
    with pytest.raises(DataError, match=r"none of the scans looked at can be used"):
        choose_contract([reference("nowhere.nii", None)])
