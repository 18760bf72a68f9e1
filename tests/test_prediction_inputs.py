"""DICOM series, several channels and what `predict` makes of them."""

import json
import shutil
from unittest.mock import ANY

import nibabel as nib
import numpy as np
import pytest

import modelsgenesis
from dicom_files import write_series
from modelsgenesis.configs import CONTRACTS
from modelsgenesis.errors import ConfigurationError, ScanError
from modelsgenesis.prediction import predict_all
from recorded_notes import Notes
from tiny_bundles import OBLIQUE, write_bundle

MRI = CONTRACTS["mri"]


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Two series of one patient in one folder, 8 slices of 20 × 24."""
    folder = tmp_path_factory.mktemp("dicom") / "patient7"
    for number in (1, 2):
        random = np.random.default_rng(number)
        body = (1024 + 60 + random.normal(0, 200, (8, 20, 24))).clip(0).astype(np.uint16)
        body[:, :3] = 24  # air
        write_series(folder, body, series=f"1.2.{number}", prefix=f"S{number}", orientation=(1, 0, 0, 0, 1, 0))
    return folder


def test_each_series_of_a_dicom_folder_is_predicted_in_its_own_frame(model, series, tmp_path):
    from modelsgenesis.data import find_scans

    found = predict_all(model, series, output=tmp_path, device="cpu")
    assert [answer.path.name for answer in found.predictions] == ["patient7_1.nii.gz", "patient7_2.nii.gz"]
    for reference, answer in zip(find_scans(series)[0], found.predictions, strict=True):
        volume, image = reference.read(), nib.load(answer.path)
        assert image.shape == volume.array.shape == (24, 20, 8)
        np.testing.assert_allclose(image.affine, volume.affine, atol=1e-6)


def test_one_series_is_one_answer(model, series, tmp_path, monkeypatch):
    one = tmp_path / "case"
    one.mkdir()
    for path in series.glob("S1*"):
        (one / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    found = modelsgenesis.predict(model, "case", device="cpu")
    assert str(found.path) == "case_seg.nii.gz"
    assert found.labels.shape == (24, 20, 8)


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """A model of two channels and three cases for it, by nnU-Net's names."""
    contract = MRI.override(channels=("t1", "flair"))
    folder = tmp_path_factory.mktemp("channels")
    for case in range(3):
        for channel in range(2):
            random = np.random.default_rng(10 * case + channel)
            array = random.uniform(1, 100 * (channel + 1), (16, 18, 14)).astype(np.float32)
            nib.save(nib.Nifti1Image(array, OBLIQUE), folder / f"brain_{case:03d}_{channel:04d}.nii.gz")
    return write_bundle(tmp_path_factory.mktemp("models") / "brain", contract=contract), folder


def test_channels_by_name_and_as_they_are_given_are_the_same_case(of_two, tmp_path):
    model, folder = of_two
    found = predict_all(model, folder, output=tmp_path / "all", device="cpu")
    assert [answer.path.name for answer in found.predictions] == [f"brain_{case:03d}.nii.gz" for case in range(3)]
    files = [folder / f"brain_001_{channel:04d}.nii.gz" for channel in range(2)]
    alone = modelsgenesis.predict(model, files, output=tmp_path / "one.nii.gz", device="cpu")
    assert np.array_equal(alone.labels, found.predictions[1].labels)
    turned = modelsgenesis.predict(model, files[::-1], output=tmp_path / "turned.nii.gz", device="cpu")
    assert turned.name == "brain_001"
    both = np.stack([np.asanyarray(nib.load(file).dataobj) for file in files], axis=-1)
    nib.save(nib.Nifti1Image(both, OBLIQUE), tmp_path / "four.nii.gz")
    four = modelsgenesis.predict(model, tmp_path / "four.nii.gz", output=tmp_path / "four_seg.nii.gz", device="cpu")
    assert np.array_equal(four.labels, alone.labels)


@pytest.mark.parametrize(
    ("declared", "same", "warned"),
    [
        (("FLAIR", "T1"), False, ""),
        (("T1", "FLAIR"), True, ""),
        (("T1", "T2"), True, "the channels of its data set, T1, T2"),
    ],
)
def test_channels_are_matched_by_the_names_that_their_data_set_gives_them(of_two, tmp_path, declared, same, warned):
    model, folder = of_two
    images, notes = tmp_path / "data" / "imagesTr", Notes()
    shutil.copytree(folder, images)
    names = {str(number): name for number, name in enumerate(declared)}
    content = {"channel_names": names, "labels": {"background": 0}, "numTraining": 3, "file_ending": ".nii.gz"}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(content))
    files = [images / f"brain_000_{channel:04d}.nii.gz" for channel in range(2)]
    straight, turned = (
        modelsgenesis.predict(model, order, output=tmp_path / f"{name}.nii.gz", device="cpu").labels
        for name, order in (("straight", files), ("turned", files[::-1]))
    )
    for source in (tmp_path / "data", images):
        found = predict_all(model, source, output=tmp_path / "out", device="cpu", reporter=notes).predictions[0].labels
        assert np.array_equal(found, straight if same else turned)
    assert not np.array_equal(straight, turned)
    assert [note for note in notes.notes if "channels" in note] == [ANY] * 2 * bool(warned)
    assert all(warned in note for note in notes.notes)


def test_channels_that_are_missing_or_do_not_fit(of_two, tmp_path):
    model, folder = of_two
    scans = tmp_path / "scans"
    scans.mkdir()
    first = nib.load(folder / "brain_000_0000.nii.gz")
    nib.save(first, scans / "a_0000.nii.gz")
    nib.save(first, scans / "alone.nii.gz")
    nib.save(first, scans / "b_0000.nii.gz")
    nib.save(first.slicer[:-1], scans / "b_0001.nii.gz")
    nib.save(first, scans / "c_0000.nii.gz")
    nib.save(nib.Nifti1Image(np.asanyarray(first.dataobj), OBLIQUE + np.eye(4, k=3)), scans / "c_0001.nii.gz")
    found = predict_all(model, scans, output=tmp_path / "out", device="cpu")
    assert not found.predictions
    reasons = {scan.source.rpartition("/")[2]: scan.reason for scan in found.failed}
    assert reasons["a_0000.nii.gz"] == "of its channels _0000 are there; expected _0000 to _0001"
    assert "is 1 file, the model takes 2: name them alone_0000 and so on" in reasons["alone.nii.gz"]
    assert "shape (15, 18, 14) is not the (16, 18, 14) of its image" in reasons["b_0000.nii.gz"]
    assert "its affine is up to 1 mm away" in reasons["c_0000.nii.gz"]


def test_several_files_for_one_channel_are_several_scans(model, scans, tmp_path):
    with pytest.raises(ConfigurationError, match="holds 2 scans, expected one; see predict_all for many"):
        modelsgenesis.predict(model, scans[:2], output=tmp_path / "x.nii.gz", device="cpu")


def test_a_4d_scan_is_refused_by_its_name(model, scans, tmp_path):
    scan = nib.load(scans[0])
    voxels = np.stack([np.asanyarray(scan.dataobj)] * 2, axis=-1)
    nib.save(nib.Nifti1Image(voxels, scan.affine), tmp_path / "two_times.nii.gz")
    with pytest.raises(ScanError, match=r"two_times\.nii\.gz.*2 volumes; expected 1"):
        modelsgenesis.predict(model, tmp_path / "two_times.nii.gz", output=tmp_path / "seg.nii.gz")
