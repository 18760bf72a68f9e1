"""Which contract scans call for."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from modelsgenesis.configs import CONTRACTS
from modelsgenesis.data import ScanReference, Volume, choose_contract, find_scans
from modelsgenesis.errors import ConfigurationError, DataError


def reference(name: str, modality: str | None, axes: int = 3) -> ScanReference:
    return ScanReference(path=Path(name), format="DICOM", shape=(9,) * axes, spacing=(1.0,) * axes, modality=modality)


def volume(array: np.ndarray, modality: str | None = None) -> Volume:
    return Volume(array=array, affine=np.eye(4), source="scan", modality=modality)


def test_tags_decide() -> None:
    contract, why = choose_contract([reference("a", "ct"), reference("b", "ct")])
    assert contract == CONTRACTS["ct"]
    assert why.startswith("modality: ct (from the files")
    contract, _ = choose_contract([reference("a", "xray", 2)])
    assert contract == CONTRACTS["xray"]


def test_several_modalities_stop() -> None:
    scans = [reference("a", "ct"), reference("b", "mri"), reference("c", "ct")]
    with pytest.raises(DataError, match=r"scans of several modalities: 2 ct, 1 mri; keep them apart"):
        choose_contract(scans)
    with pytest.raises(DataError, match=r"1 volumes and 1 planes in one set"):
        choose_contract([reference("a", "ct"), reference("b", "ct", 2)])


@pytest.mark.shared
def test_real_scans_are_told_by_their_values(shared_data: Path) -> None:
    contract, why = choose_contract(find_scans(shared_data / "ct" / "images")[0])
    assert contract == CONTRACTS["ct"]
    assert "4 of 4 scans" in why
    hippocampus = shared_data / "Task04_Hippocampus"
    contract, why = choose_contract(find_scans(hippocampus / "imagesTr")[0])
    assert contract == CONTRACTS["mri"]
    assert "differs 10-fold" in why
    assert choose_contract(find_scans(hippocampus)[0])[1] == "modality: mri (from the files or their data set)"
    with pytest.raises(DataError, match=r"modality of planes with values .* cannot be told; say which with --modality"):
        choose_contract(find_scans(shared_data / "chestxray8")[0])


@pytest.mark.parametrize(
    ("low", "high", "modality"),
    [(-1024, 1500, "ct"), (-160, 300, "ct"), (-3024, 2000, "ct"), (0, 60_000, "mri")],
)
def test_values_that_tell(low: int, high: int, modality: str) -> None:
    array = np.linspace(low, high, 4096).reshape(16, 16, 16)
    assert choose_contract(volume(array))[0].modality == modality


@pytest.mark.parametrize(("low", "high"), [(0, 255), (0, 4095), (-4, 4), (0, 1)])
def test_values_that_leave_it_open_stop(low: float, high: float) -> None:
    """An 8-bit CT, a CT without its intercept, a z-scored scan, a mask."""
    array = np.linspace(low, high, 4096).reshape(16, 16, 16)
    with pytest.raises(DataError, match=rf"volumes with values {low:g} to {high:g} cannot be told"):
        choose_contract(volume(array))


def test_values_of_several_kinds_stop(tmp_path: Path) -> None:
    for name, low, high in [("a", -1024, 1500), ("b", 0, 60_000)]:
        array = np.linspace(low, high, 4096).reshape(16, 16, 16).astype(np.float32)
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}.nii")
    with pytest.raises(DataError, match=r"several modalities by their values: 1 ct, 1 mri"):
        choose_contract(find_scans(tmp_path)[0])


def test_unreadable_scans_do_not_vote(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the scans looked at can be used"):
        choose_contract([reference(str(tmp_path / "a.nii"), None)])


def test_what_is_asked_for_is_taken() -> None:
    scan = volume(np.zeros((4, 4, 4)))
    contract, why = choose_contract(scan, modality="mri", spacing=(1.0, 1.0, 1.0), window=(0.0, 500.0))
    assert (contract.intensity, contract.window, contract.spacing) == ("window", (0, 500), (1, 1, 1))
    assert why == "modality: mri (from --modality)"
    assert choose_contract(scan, modality="ct", dims=2)[0].dims == 2
    assert choose_contract(scan, modality="shape")[0].window == (0, 1)
    assert choose_contract(scan, modality="ultrasound")[0].orientation == "RAS"
    with pytest.raises(ConfigurationError, match=r"modality: received 'mr'; did you mean mri"):
        choose_contract(scan, modality="mr")
    with pytest.raises(ConfigurationError, match=r"is not 3 sizes in mm"):
        choose_contract(scan, modality="ct", spacing=(1.0, 1.0))
