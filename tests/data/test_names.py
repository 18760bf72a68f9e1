"""What the names of files, folders and channels tell."""

from pathlib import Path

import pytest

from modelsgenesis.data.finding import OWN_PATIENT, find_patients, is_label_map, modality_of
from modelsgenesis.errors import ConfigurationError, DataError

LABELS = """
    BraTS_000_seg.nii.gz BraTS-GLI-00000-000-seg.nii.gz segmentation-12.nii labels-0.nii.gz label0001.nii.gz
    x_mask_2.png patient-label.nrrd scan.seg.nrrd Segmentation-label.nrrd leftMask.png ISIC_0001_Segmentation.png
    aparc+aseg.mgz patient001_frame01_gt.nii.gz GT.nii.gz x_ground_truth.png labelsTr labelsTs gt_segmentations masks
    sub-01_dseg.nii.gz sub-01_desc-brain_mask.nii.gz sub-01_label-GM_probseg.nii.gz sub-01_FLAIR_roi.nii.gz
    case_pred.nii Annotations
"""
SCANS = """
    BraTS_000_flair.nii.gz t1_masked.nii.gz labelled.nii.gz T1_roi.nii.gz segment7.png 001.nii.gz imagesTr ÄÖ.png
    sub-01_acq-labelOff_T1w.nii.gz magt.nii
"""


def test_label_maps_are_known_as_people_name_them():
    assert [name for name in LABELS.split() if not is_label_map(name)] == []
    assert [name for name in SCANS.split() if is_label_map(name)] == []


@pytest.mark.parametrize(
    ("names", "patients"),
    [
        ("B_1/B_1_t1.nii B_1/B_1_seg.nii B_2/B_2_t1ce.nii", "B_1 B_1 B_2"),
        ("alice/t1.nii alice/FLAIR.nii.gz bob/t2.nii", "alice alice bob"),
        ("case_0/imaging.nii case_1/imaging.nii", "case_0 case_1"),
        ("s1/mri/brain.mgz s1/mri/T1.mgz s2/mri/brain.mgz", "s1 s1 s2"),
        ("T1/p1.nii T2/p1.nii T1/p2.nii", "p1 p1 p2"),
        ("p1_t1.nii p1_t2.nii p2_flair_slice_3.png", "p1 p1 p2"),
        ("patient1_frame01.nii patient1_frame12.nii", "patient1 patient1"),
        ("sub-07_ses-1_T1w.nii x/sub-07_ses-2_bold.nii 00001_004.png", "sub-07 sub-07 00001_004"),
        ("a/imagesTr/p_01_0000.nii a/imagesTr/p_01_0001.nii a/imagesTs/p_02_0000.nii", "p_01 p_01 p_02"),
        ("a.nii b.nii a/b.nii", "a b b"),
        ("site1/001.nii site1/002.nii site2/003.nii", "001 002 003"),
    ],
)
def test_patients_by_names_and_folders(names, patients):
    found, _ = find_patients([Path("data", name) for name in names.split()])
    assert found == patients.split()


@pytest.mark.parametrize(
    ("names", "classes", "patients"),
    [
        ("ill/7_1.png ill/7_2.png well/8_1.png well/9_1.png", "iiww", "7 7 8 9"),
        ("ill/p1/1.png ill/p1/2.png well/p2/1.png well/p3/1.png", "iiww", "p1 p1 p2 p3"),
        ("g0/g0_1.png g0/g0_2.png g1/g1_1.png", "001", "g0_1 g0_2 g1_1"),
        ("ill/1.png ill/2.png well/1.png well/2.png", "iiww", "ill/1 ill/2 well/1 well/2"),
        ("ill/img_1.png well/img_1.png well/img_2.png", "iww", "ill/img_1 well/img_1 well/img_2"),
        ("a/x.png b/x.png", "ab", "a/x.png b/x.png"),
    ],
)
def test_patients_of_labelled_images(names, classes, patients):
    found, rule = find_patients([Path(name) for name in names.split()], classes=classes)
    assert found == patients.split()
    assert (rule == OWN_PATIENT) == (len(set(found)) == len(found))


def test_a_pattern_is_looked_for_in_the_name_then_in_the_path():
    paths = [Path("p12/1.nii.gz"), Path("p3/2.nii.gz")]
    assert find_patients(paths, r"p(\d+)/")[0] == ["12", "3"]
    assert find_patients(paths, r"^\d$")[0] == ["1", "2"]
    assert find_patients(paths, r"\d\.nii")[0] == ["1.nii", "2.nii"]
    for pattern, message in ((r"p(\d\d)/", "does not fit 1 of 2 names, such as '2"), ("p(x)?", "does not fit 2 of 2")):
        with pytest.raises(DataError, match=f"--patient .*{message}"):
            find_patients(paths, pattern)
    for pattern in ("(", "*", "(?P<a>x)(?P<a>y)", "a{99999999999}", "(?<=a+)b"):
        with pytest.raises(ConfigurationError, match=r"--patient .*as a regular expression"):
            find_patients(paths, pattern)


def test_modalities_by_the_names_of_channels():
    channels = (["MRI_T1", "T2"], ["X-ray"], ["CT", "PET"], [])
    assert [modality_of(names) for names in channels] == ["mri", "xray", None, None]
