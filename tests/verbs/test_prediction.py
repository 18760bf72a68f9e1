import nibabel as nib
import numpy as np
import pytest

import modelsgenesis
from modelsgenesis.errors import ConfigurationError, ScanError, UnreadableScanError


def test_predicts_in_the_shape_and_affine_of_the_scan_bit_for_bit(finetuned, decathlon, tmp_path):
    path = sorted((decathlon / "imagesTr").iterdir())[0]
    prediction = modelsgenesis.predict(
        finetuned[0], path, output=tmp_path / "seg.nii.gz", probabilities=tmp_path / "soft.nii.gz", device="cpu"
    )
    scan, answer, soft = nib.load(path), nib.load(tmp_path / "seg.nii.gz"), nib.load(tmp_path / "soft.nii.gz")
    assert answer.shape == scan.shape
    assert answer.affine.tobytes() == scan.affine.tobytes()
    assert soft.shape == (*scan.shape, 3)
    labels = np.asanyarray(answer.dataobj)
    assert np.array_equal(labels, prediction.labels)
    assert np.array_equal(np.asanyarray(soft.dataobj).argmax(-1), labels)
    assert prediction.voxels == {"bright": int((labels == 1).sum()), "dark": int((labels == 2).sum())}
    truth = np.asanyarray(nib.load(decathlon / "labelsTr" / path.name).dataobj)
    assert 2 * ((labels == 1) & (truth == 1)).sum() / ((labels == 1).sum() + (truth == 1).sum()) > 0.6


@pytest.mark.parametrize("codes", ["LPS", "SPR", "ARI"])
def test_another_orientation_of_the_same_scan_gives_the_same_answer(finetuned, decathlon, tmp_path, codes):
    path = sorted((decathlon / "imagesTr").iterdir())[0]
    scan = nib.load(path)
    change = nib.orientations.ornt_transform(nib.io_orientation(scan.affine), nib.orientations.axcodes2ornt(codes))
    turned = scan.as_reoriented(change)
    nib.save(turned, tmp_path / "turned.nii.gz")
    straight = modelsgenesis.predict(finetuned[0], path, output=tmp_path / "a.nii.gz", device="cpu")
    modelsgenesis.predict(finetuned[0], tmp_path / "turned.nii.gz", output=tmp_path / "b.nii.gz", device="cpu")
    answer = nib.load(tmp_path / "b.nii.gz")
    assert answer.shape == turned.shape
    np.testing.assert_allclose(answer.affine, turned.affine, atol=1e-4)
    back = np.asanyarray(
        nib.load(tmp_path / "b.nii.gz")
        .as_reoriented(
            nib.orientations.ornt_transform(nib.io_orientation(answer.affine), nib.io_orientation(scan.affine))
        )
        .dataobj
    )
    assert np.array_equal(back, straight.labels)


def test_predicts_a_scan_smaller_than_the_patch(finetuned, decathlon, tmp_path):
    scan = nib.load(sorted((decathlon / "imagesTr").iterdir())[0])
    nib.save(scan.slicer[4:14, 5:20, 3:10], tmp_path / "small.nii.gz")
    prediction = modelsgenesis.predict(
        finetuned[0], tmp_path / "small.nii.gz", output=tmp_path / "seg.nii.gz", device="cpu"
    )
    assert prediction.labels.shape == (10, 15, 7)


def test_prediction_refuses_the_wrong_model_and_bad_scans(genesis, finetuned, tmp_path):
    with pytest.raises(ConfigurationError, match=r"the model is for restoration: .*fine-tuned with --task seg"):
        modelsgenesis.predict(genesis, tmp_path / "scan.nii.gz")
    with pytest.raises(UnreadableScanError, match=r"scan\.nii\.gz: there is no such file"):
        modelsgenesis.predict(finetuned[0], tmp_path / "scan.nii.gz")
    with pytest.raises(ConfigurationError, match="received 2 files, expected 1"):
        modelsgenesis.predict(finetuned[0], ["a.nii.gz", "b.nii.gz"])


def test_a_4d_scan_is_refused_by_its_name(finetuned, decathlon, tmp_path):
    scan = nib.load(sorted((decathlon / "imagesTr").iterdir())[0])
    voxels = np.stack([np.asanyarray(scan.dataobj)] * 2, axis=-1)
    nib.save(nib.Nifti1Image(voxels, scan.affine), tmp_path / "two_times.nii.gz")
    with pytest.raises(ScanError, match=r"two_times\.nii\.gz.*2 volumes"):
        modelsgenesis.predict(finetuned[0], tmp_path / "two_times.nii.gz", output=tmp_path / "seg.nii.gz")
