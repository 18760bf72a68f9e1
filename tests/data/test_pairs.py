"""Images and label maps by their names alone: the layouts that people have, and those that cannot be paired."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelled_files import mask, picture, save, volume, write_csv
from modelsgenesis.configs import SegmentationConfig
from modelsgenesis.data import find_scans
from modelsgenesis.data.labelled import read_labelled
from modelsgenesis.errors import DataError
from modelsgenesis.training.splits import split_cases


def lay_out(folder: Path, files: str, labels: str = "") -> Path:
    """Write images, and label maps, by names in which `#` is the number of one of three patients."""
    for number in "123":
        for name in files.replace("#", number).split():
            if name.endswith("png"):
                picture(folder / name, int(number))
            else:
                save(folder / name, volume(int(number)))
        for name in labels.replace("#", number).split():
            if name.endswith("png"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.diag(np.full(16, 255, np.uint8))).save(folder / name)
            else:
                save(folder / name, mask(1, 2))
    return folder


@pytest.mark.parametrize(
    ("files", "labels", "cases", "patients", "channels"),
    [
        ("images/p#.nii.gz", "labels/p#.nii.gz", 3, 3, "image"),
        ("images/p#.nii.gz", "masks/p#_seg.nii.gz", 3, 3, "image"),
        ("imagesTr/p_#.nii.gz", "labelsTr/p_#.nii.gz", 3, 3, "image"),
        ("imagesTr/p_#_0000.nii.gz imagesTr/p_#_0001.nii.gz", "labelsTr/p_#.nii.gz", 3, 3, "channel 0 channel 1"),
        ("p#.nii.gz", "p#_mask.nii.gz", 3, 3, "image"),
        ("B_#/B_#_flair.nii.gz B_#/B_#_t1.nii.gz", "B_#/B_#_seg.nii.gz", 3, 3, "flair t1"),
        ("case_#/imaging.nii.gz", "case_#/segmentation.nii.gz", 3, 3, "image"),
        ("T1/p#.nii.gz T2/p#.nii.gz", "ground_truth/p#.nii.gz", 3, 3, "T1 T2"),
        ("A#/A#_frame01.nii A#/A#_frame12.nii A#/A#.nii", "A#/A#_frame01_gt.nii A#/A#_frame12_gt.nii", 6, 3, "image"),
        ("siteA/images/p#.nii siteB/images/p#.nii", "siteA/labels/p#.nii siteB/labels/p#.nii", 6, 3, "image"),
        ("train_images/a#.png", "train_masks/a#_mask.png", 3, 3, "image"),
        ("images/train/7_#.png images/val/8_#.png", "labels/train/7_#.png labels/val/8_#.png", 6, 2, "image"),
        ("p#/visit1/image.nii p#/visit2/image.nii", "p#/visit1/label.nii p#/visit2/label.nii", 6, 3, "image"),
        ("sub-#/ses-1/anat/sub-#_T1w.nii", "derivatives/labels/sub-#/sub-#_T1w_dseg.nii", 3, 3, "image"),
        ("train/img/a#.nii test/img/b#.nii", "train/manual_labels/a#.nii test/manual_labels/b#.nii", 6, 6, "image"),
        ("benign/b#.png malignant/m#.png", "benign/b#_mask.png malignant/m#_mask.png", 6, 6, "image"),
    ],
)
def test_images_and_label_maps_are_paired_by_their_names(tmp_path, files, labels, cases, patients, channels):
    lay_out(tmp_path / "segmentation data", files, labels)  # a name that says labels, of a folder that holds more
    data = read_labelled(tmp_path / "segmentation data", modality="mri")
    assert (data.task, len(data.cases), len({case.patient for case in data.cases})) == ("segmentation", cases, patients)
    assert " ".join(data.channels) == channels
    assert data.labels == (("background", "255") if "png" in files else ("background", "1", "2"))
    for case in data.cases:
        told = [
            re.sub("_0000|_0001|_frame..|[78]_|T[12]", "", path.relative_to(tmp_path).as_posix()) for path in case.paths
        ]
        assert len({next(iter(re.findall("[123]", name))) for name in told}) == 1
    found, skipped = find_scans(tmp_path / "segmentation data")
    assert len(found) == 3 * len(files.split())
    assert skipped
    assert not any(one.bad for one in skipped)


def test_parts_that_folders_name_stay(tmp_path):
    lay_out(tmp_path, "train/images/a#.png val/images/b#.png", "train/masks/a#.png val/masks/b#.png")
    split = split_cases(read_labelled(tmp_path, modality="photo"), SegmentationConfig())
    assert (split.validation, len(split.training + split.test)) == (("b1", "b2", "b3"), 3)


def test_what_has_no_partner_is_left_aside_and_named(tmp_path):
    lay_out(tmp_path, "images/p#.nii.gz", "labels/p#.nii.gz")
    save(tmp_path / "images" / "p4.nii.gz", volume(4))
    save(tmp_path / "labels" / "p5.nii.gz", mask(1))
    save(tmp_path / "labels" / "p3_seg.nii.gz", mask(1))
    write_csv(tmp_path / "patients.csv", ["id", "age"], [["p1", 50]])
    data = read_labelled(tmp_path, modality="mri")
    assert [case.name for case in data.cases] == ["p1", "p2"]
    said = "\n".join(data.notes)
    assert "2 pairs of image and label map" in said
    assert f"skipped {Path('images/p4.nii.gz')}: no label map has the name of this image" in said
    assert f"skipped {Path('labels/p5.nii.gz')}: no image has the name of this label map" in said
    names = ", ".join(str(Path(name)) for name in ("images/p3.nii.gz", "labels/p3.nii.gz", "labels/p3_seg.nii.gz"))
    assert f"skipped p3: {names} have one name; expected one label map and one image" in said


def test_a_missing_channel_is_named(tmp_path):
    lay_out(tmp_path, "p#_t1.nii.gz p#_t2.nii.gz", "p#_seg.nii.gz")
    (tmp_path / "p3_t2.nii.gz").unlink()
    data = read_labelled(tmp_path)
    assert [case.name for case in data.cases] == ["p1", "p2"]
    assert "skipped p3: lacks t2" in data.notes
    save(tmp_path / "p2_mask.nii.gz", mask(1))
    data = read_labelled(tmp_path)
    assert data.notes[0] == "1 pair of image and label map, by their names"
    assert "have one name; expected one label map and one image for each of t1, t2" in "\n".join(data.notes)


def test_folders_are_classes_where_not_every_image_has_a_label_map(tmp_path):
    lay_out(tmp_path, "well/a#.png ill/b#.png", "ill/b#_mask.png")
    data = read_labelled(tmp_path, modality="xray")
    assert data.labels == ("ill", "well")
    told = "although 3 images have label maps; --task seg takes them as a segmentation"
    assert f"warning: the folders are taken for classes {told}" in data.notes
    data = read_labelled(tmp_path, task="seg", modality="xray")
    assert (data.task, len(data.cases)) == ("segmentation", 3)
    lay_out(tmp_path, "", "well/a#_mask.png")
    assert read_labelled(tmp_path, modality="xray").task == "segmentation"
    data = read_labelled(tmp_path, task="cls", modality="xray")
    assert data.labels == ("ill", "well")
    assert "taken for classes" not in "\n".join(data.notes)
    lay_out(tmp_path / "inner", "images/no/a#.png images/yes/b#.png")
    assert read_labelled(tmp_path / "inner", modality="xray").labels == ("no", "yes")


@pytest.mark.parametrize(
    ("files", "labels", "task", "message"),
    [
        ("images/p#.nii", "labels/x#.nii", None, r"no label map has the name of an image: .*p1.*x1.*name them alike"),
        ("", "labels/x#.nii", None, r"no image, label maps such as .*x1\.nii; name them alike"),
        ("images/p#.nii", "", None, "no folder of a class in it; expected .* folders of images and of label maps"),
        (
            "p#.nii",
            "p#_seg.nii p#_mask.nii",
            None,
            r"p3\.nii, p3_mask\.nii, p3_seg\.nii have one name; expected one label",
        ),
        (
            "images/p#.nii images/p#.nii.gz",
            "labels/p#.nii",
            None,
            "have one name; expected one label map and one image",
        ),
        ("images/p#.nii", "labels/p#.nii", "cls", "its labels are for segmentation; classification was asked for"),
    ],
)
def test_layouts_that_cannot_be_paired(tmp_path, files, labels, task, message):
    with pytest.raises(DataError, match=message):
        read_labelled(lay_out(tmp_path, files, labels), task=task)
